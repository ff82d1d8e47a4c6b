//! What a list of documents shows and in which order: the page, the filter and `order_by` of a request. In the order of names pages
//! are read by name; in any other order, or through a filter, everything is looked at and only the page is kept.

use std::cmp::Ordering;

use prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::error::{Failure, violation};
use crate::fields;
use crate::list_filter::{Filter, time, whole};
use crate::paging::{List, Page};
use crate::secrets::Secrets;

/// Characters of a text that count for its order; a page token holds them.
const ORDERED_CHARS_MAX: usize = 128;

/// The list part of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a> {
    pub(crate) page_size: i32,
    pub(crate) page_token: &'a str,
    pub(crate) filter: &'a str,
    pub(crate) order_by: &'a str,
    pub(crate) show_deleted: bool,
}

/// The list part of a request that has one.
macro_rules! query {
    ($asked:expr) => {
        $crate::listing::Query {
            page_size: $asked.page_size,
            page_token: &$asked.page_token,
            filter: &$asked.filter,
            order_by: &$asked.order_by,
            show_deleted: $asked.show_deleted,
        }
    };
}
pub(crate) use query;

/// A query that was understood: offer it every item, then take the page.
pub(crate) struct Listing<'a, T> {
    list: List<'a>,
    page: Page,
    filter: Filter,
    order: Order,
    after: Option<Position>,
    found: Vec<(Position, usize, T)>,
}

/// By which field, and which way.
struct Order {
    field: FieldDescriptor,
    descending: bool,
}

/// Where an item stands; its name settles ties.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Position {
    key: Key,
    name: String,
}

/// A field's value as it is ordered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(i64),
    Time(i64, i32),
    Text(String),
}

impl<'a, T> Listing<'a, T> {
    /// Reads the query of a list of `kind`; `scope` is what else selects what is in the list.
    ///
    /// # Errors
    /// Every broken rule of the query.
    pub(crate) fn new(secrets: &'a Secrets, kind: &str, scope: &[&'a str], query: Query<'a>) -> Result<Self, Failure> {
        let kind = fields::kind(kind)?;
        let deleted = if query.show_deleted { "deleted" } else { "" };
        let list = List::new(secrets, &[scope, &[query.filter, query.order_by, deleted]].concat());
        let (filter, order) = (Filter::parse(query.filter, &kind), Order::parse(query.order_by, &kind));
        let (filter, order) = match (filter, order) {
            (Ok(filter), Ok(order)) => (filter, order),
            (filter, order) => return Err(Failure::Fields(filter.err().into_iter().chain(order.err()).collect())),
        };
        let page = list.page(query.page_size, query.page_token)?;
        let after = page.after.as_deref().map(|text| Position::read(text).ok_or(Failure::PageToken)).transpose()?;
        Ok(Self { list, page, filter, order, after, found: Vec::new() })
    }

    /// The page goes on after this name and everything behind it is part of the list: whoever reads by name may begin here and end
    /// when [`Listing::is_full`]. `None` when everything has to be looked at.
    pub(crate) fn by_name(&self) -> Option<&str> {
        let is_plain = self.order.field.name() == "name" && !self.order.descending;
        is_plain.then(|| self.after.as_ref().map_or("", |after| after.name.as_str()))
    }

    /// As many as the page takes, and one that tells of the next page, are there.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= self.wanted()
    }

    fn wanted(&self) -> usize {
        usize::try_from(self.page.limit()).unwrap_or(usize::MAX)
    }

    /// An item called `name` that reads as `message`.
    pub(crate) fn offer(&mut self, name: &str, message: &DynamicMessage, size: usize, item: T) {
        if !self.filter.matches(message) {
            return;
        }
        let position = Position { key: self.order.key(message), name: name.to_owned() };
        if self.after.as_ref().is_some_and(|after| self.order.compare(&position, after) != Ordering::Greater) {
            return;
        }
        self.found.push((position, size, item));
        // What cannot be on this page is let go now and then: the page bounds the memory, not the list.
        if self.found.len() >= self.wanted().saturating_mul(2).max(64) {
            self.cut_back();
        }
    }

    fn cut_back(&mut self) {
        self.found.sort_by(|(one, ..), (other, ..)| self.order.compare(one, other));
        self.found.truncate(self.wanted());
    }

    /// The page and the token of the next one.
    pub(crate) fn finish(mut self) -> (Vec<T>, String) {
        self.cut_back();
        let next =
            self.list.cut(&self.page, &mut self.found, |(_, size, _)| *size, |(position, ..)| position.written());
        (self.found.into_iter().map(|(_, _, item)| item).collect(), next)
    }
}

impl Order {
    fn parse(text: &str, kind: &MessageDescriptor) -> Result<Self, sluice_core::validate::Violation> {
        let broken = |message: String| violation("order_by", "ORDER_INVALID", message);
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or("name");
        let descending = match (words.next(), words.next()) {
            (None | Some("asc"), None) => false,
            (Some("desc"), None) => true,
            _ => return Err(broken("must be one field, or one field and `desc`".to_owned())),
        };
        match kind.fields().find(|field| field.name() == name).filter(can_order) {
            Some(field) => Ok(Self { field, descending }),
            None => {
                let known: Vec<String> = kind.fields().filter(can_order).map(|field| field.name().to_owned()).collect();
                Err(broken(format!("`{name}` is not a field to order by; those are {}", known.join(", "))))
            }
        }
    }

    fn key(&self, message: &DynamicMessage) -> Key {
        match message.get_field(&self.field).as_ref() {
            Value::String(text) => Key::Text(text.chars().take(ORDERED_CHARS_MAX).collect()),
            Value::Bool(value) => Key::Number((*value).into()),
            Value::Message(message) => time(message).map_or(Key::Number(0), |time| Key::Time(time.seconds, time.nanos)),
            value => Key::Number(whole(value).unwrap_or_default()),
        }
    }

    fn compare(&self, one: &Position, other: &Position) -> Ordering {
        let by_key = one.key.cmp(&other.key);
        let by_key = if self.descending { by_key.reverse() } else { by_key };
        by_key.then_with(|| one.name.cmp(&other.name))
    }
}

/// A field with one plain value that is no secret.
fn can_order(field: &FieldDescriptor) -> bool {
    let plain = match field.kind() {
        Kind::String | Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Enum(_) => true,
        Kind::Message(message) => message.full_name() == "google.protobuf.Timestamp",
        _ => false,
    };
    plain
        && field.cardinality() != Cardinality::Repeated
        && field.containing_oneof().is_none()
        && !sluice_proto::SENSITIVE.contains(&field.full_name())
}

impl Position {
    fn written(&self) -> String {
        let key = match &self.key {
            Key::Number(number) => serde_json::json!(number),
            Key::Time(seconds, nanos) => serde_json::json!([seconds, nanos]),
            Key::Text(text) => serde_json::json!(text),
        };
        serde_json::json!([key, self.name]).to_string()
    }

    fn read(text: &str) -> Option<Self> {
        let (key, name): (serde_json::Value, String) = serde_json::from_str(text).ok()?;
        let key = match &key {
            serde_json::Value::Number(number) => Key::Number(number.as_i64()?),
            serde_json::Value::String(text) => Key::Text(text.clone()),
            serde_json::Value::Array(parts) => {
                let [seconds, nanos] = parts.as_slice() else { return None };
                Key::Time(seconds.as_i64()?, i32::try_from(nanos.as_i64()?).ok()?)
            }
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Object(_) => return None,
        };
        Some(Self { key, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        for key in [Key::Number(-3), Key::Time(1_800_000_000, 5), Key::Text("ä \"x\"".to_owned())] {
            let position = Position { key, name: "workspaces/acme/workflows/flow".to_owned() };
            assert_eq!(Position::read(&position.written()), Some(position));
        }
        assert_eq!(Position::read("{}"), None);
    }

    #[test]
    fn fields_to_order_by() {
        let kind = fields::kind("sluice.admin.v1.Connection").unwrap();
        for good in ["", "name", "display_name desc", "create_time asc", "version"] {
            assert!(Order::parse(good, &kind).is_ok(), "{good}");
        }
        for bad in ["nope", "name up", "name desc x", "allowed_hosts", "api_key", "name, display_name"] {
            assert_eq!(Order::parse(bad, &kind).err().unwrap().reason, "ORDER_INVALID", "{bad}");
        }
    }
}
