//! Reading what scripts answer. Whatever is not as expected is nothing.

use ::redis::Value;
use bytes::Bytes;
use uuid::Uuid;

pub(super) fn list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

pub(super) fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        // Fields of a job are texts.
        _ => text(value)?.parse().ok(),
    }
}

pub(super) fn ints(value: Value) -> Option<Vec<i64>> {
    list(value)?.iter().map(int).collect()
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

pub(super) fn opaque(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        _ => None,
    }
}

pub(super) fn uuid(value: &Value) -> Option<Uuid> {
    match value {
        Value::BulkString(bytes) => Uuid::from_slice(bytes).ok(),
        _ => None,
    }
}
