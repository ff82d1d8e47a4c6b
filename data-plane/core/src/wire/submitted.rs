//! What callers submit to start workflows.

use serde_json::{Map, Value};
use sluice_proto::admin::v1 as admin;

use super::Parsed;
use crate::cause::{AUDIENCE, EVENT_AHEAD_MAX, EVENT_BYTES_MAX, EVENT_ID_BYTES_MAX, SubmittedEvent, is_uuid};
use crate::flatten::{Limits, parse_body};
use crate::validate::{Check, NAME_CHARS_MAX};

/// Parameters, or a customer.
type Object = Map<String, Value>;

/// Reads an event that is submitted now as `trigger_id`, a UUID, which is also its own where the caller gives it no UUID.
pub fn submitted_event(proto: &admin::SubmitEventRequest, trigger_id: &str, now: i64) -> Parsed<SubmittedEvent> {
    let mut check = Check::default();
    check.name("action", &proto.action, NAME_CHARS_MAX);
    if !proto.event_id.is_empty() {
        check_id(&mut check, "event_id", &proto.event_id);
    }
    let time = proto.event_time.as_ref().map_or(Some(now), |time| happened(&mut check, time, now));
    let (params, customer) = content(&mut check, &proto.params, &proto.customer);
    let id = if is_uuid(&proto.event_id) { &proto.event_id } else { trigger_id };
    let event = time.zip(params).map(|(time, params)| SubmittedEvent {
        id: id.to_owned(),
        action: proto.action.clone(),
        params,
        customer,
        time,
    });
    check.finish(event)
}

/// Reads a member of an audience, submitted now as `trigger_id`.
pub fn audience_member(proto: &admin::BatchItem, trigger_id: &str, now: i64) -> Parsed<SubmittedEvent> {
    let mut check = Check::default();
    check_id(&mut check, "id", &proto.id);
    let (params, customer) = content(&mut check, &proto.params, &proto.customer);
    let id = if is_uuid(&proto.id) { &proto.id } else { trigger_id };
    let action = AUDIENCE.to_owned();
    check.finish(params.map(|params| SubmittedEvent { id: id.to_owned(), action, params, customer, time: now }))
}

fn check_id(check: &mut Check, field: &str, id: &str) {
    let length = 1..=EVENT_ID_BYTES_MAX;
    if !(length.contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())) {
        check.fail(field, "ID_INVALID", format!("must be 1 to {EVENT_ID_BYTES_MAX} visible ASCII characters"));
    }
}

/// In milliseconds since 1970. What is still to come is refused (F24).
fn happened(check: &mut Check, time: &prost_types::Timestamp, now: i64) -> Option<i64> {
    let millis = time.seconds.checked_mul(1000)?.checked_add(i64::from(time.nanos) / 1_000_000);
    let good = millis.filter(|millis| *millis <= now.saturating_add(EVENT_AHEAD_MAX));
    if good.is_none() {
        let message = format!("must not be more than {} s ahead of the server", EVENT_AHEAD_MAX / 1000);
        check.fail("event_time", "OUT_OF_RANGE", message);
    }
    good
}

/// Parameters and customer; without the parameters something is wrong with them.
fn content(check: &mut Check, params: &str, customer: &str) -> (Option<Object>, Option<Object>) {
    let bytes = params.len() + customer.len();
    if bytes > EVENT_BYTES_MAX {
        let message = format!("params and customer have {bytes} bytes together; the limit is {EVENT_BYTES_MAX}");
        check.fail("params", "TOO_LONG", message);
        return (None, None);
    }
    let params = if params.is_empty() { Some(Map::new()) } else { object(check, "params", params) };
    let customer = if customer.is_empty() { None } else { object(check, "customer", customer) };
    (params, customer)
}

fn object(check: &mut Check, field: &str, text: &str) -> Option<Object> {
    match parse_body(text.as_bytes(), &Limits::default()) {
        Ok(Value::Object(object)) => Some(object),
        Ok(_) => {
            check.fail(field, "TYPE", "must be one JSON object");
            None
        }
        Err(error) => {
            check.fail(field, error.code(), format!("must be one JSON object: {error}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_718_010_930_123;
    const MADE: &str = "0190a6c1-7e2b-7000-8000-000000000009";

    fn asked() -> admin::SubmitEventRequest {
        admin::SubmitEventRequest { action: "form.submit".to_owned(), ..Default::default() }
    }

    fn refused(asked: &admin::SubmitEventRequest) -> Vec<(String, &'static str)> {
        let found = submitted_event(asked, MADE, NOW).err().unwrap_or_default();
        found.into_iter().map(|violation| (violation.field, violation.reason)).collect()
    }

    #[test]
    fn what_is_left_out_has_a_meaning() {
        let event = submitted_event(&asked(), MADE, NOW).unwrap();
        assert_eq!((event.id.as_str(), event.time, event.params.len(), event.customer), (MADE, NOW, 0, None));
        let own = admin::SubmitEventRequest { event_id: "order-7".to_owned(), ..asked() };
        assert_eq!(submitted_event(&own, MADE, NOW).unwrap().id, MADE);
        let uuid = "3F2504E0-4F89-41D3-9A0C-0305E82C3301".to_owned();
        let own = admin::SubmitEventRequest { event_id: uuid.clone(), customer: "{}".to_owned(), ..asked() };
        let event = submitted_event(&own, MADE, NOW).unwrap();
        assert_eq!((event.id, event.customer), (uuid, Some(Map::new())));
    }

    #[test]
    fn every_limit_has_its_edge() {
        let at = |millis: i64| {
            let nanos = i32::try_from(millis.rem_euclid(1000) * 1_000_000).unwrap();
            let event_time = Some(prost_types::Timestamp { seconds: millis.div_euclid(1000), nanos });
            refused(&admin::SubmitEventRequest { event_time, ..asked() })
        };
        assert_eq!(at(NOW + EVENT_AHEAD_MAX), []);
        assert_eq!(at(NOW + EVENT_AHEAD_MAX + 1), [("event_time".to_owned(), "OUT_OF_RANGE")]);
        let id = |event_id: String| refused(&admin::SubmitEventRequest { event_id, ..asked() });
        assert_eq!(id("!".repeat(EVENT_ID_BYTES_MAX)), []);
        for bad in ["x".repeat(EVENT_ID_BYTES_MAX + 1), "a b".to_owned(), "\u{e9}".to_owned(), "a\n".to_owned()] {
            assert_eq!(id(bad), [("event_id".to_owned(), "ID_INVALID")]);
        }
        let sized = |bytes: usize| {
            let params = format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - r#"{"a":""}{}"#.len()));
            refused(&admin::SubmitEventRequest { params, customer: "{}".to_owned(), ..asked() })
        };
        assert_eq!(sized(EVENT_BYTES_MAX), []);
        assert_eq!(sized(EVENT_BYTES_MAX + 1), [("params".to_owned(), "TOO_LONG")]);
    }

    #[test]
    fn a_member_of_an_audience_needs_an_id() {
        let member = |id: &str| admin::BatchItem { id: id.to_owned(), customer: "{}".to_owned(), ..Default::default() };
        let read = audience_member(&member("m-1"), MADE, NOW).unwrap();
        assert_eq!((read.id.as_str(), read.action.as_str(), read.time), (MADE, "audience", NOW));
        assert_eq!(read.customer, Some(Map::new()));
        let found = audience_member(&admin::BatchItem { params: "1".to_owned(), ..member("") }, MADE, NOW).unwrap_err();
        let found: Vec<_> = found.iter().map(|violation| (violation.field.as_str(), violation.reason)).collect();
        assert_eq!(found, [("id", "ID_INVALID"), ("params", "TYPE")]);
    }

    #[test]
    fn everything_wrong_is_said_at_once_and_shows_no_data() {
        let wrong = admin::SubmitEventRequest {
            params: r#"{"a": CANARY}"#.to_owned(),
            customer: r#"["CANARY"]"#.to_owned(),
            event_id: "CANARY 1".to_owned(),
            ..Default::default()
        };
        let found = submitted_event(&wrong, MADE, NOW).unwrap_err();
        let fields: Vec<&str> = found.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["action", "event_id", "params", "customer"]);
        assert!(found.iter().all(|violation| !violation.to_string().contains("CANARY")), "{found:?}");
    }
}
