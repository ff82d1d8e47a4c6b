//! What starts a workflow: a request, or an event that a delivery told (D01).
//!
//! Hides how an event looks to filters and templates ([`EventEnvelope`]), and that a path of the one never leads into
//! the other.

use serde_json::{Map, Value, json};

use crate::envelope::{Body, Envelope};
use crate::flatten::{BodyError, Limits, parse_body};
use crate::response_event::ResponseEvent;

/// What a filter and the templates of a delivery look at.
#[derive(Clone, Copy, Debug)]
pub enum Cause<'a> {
    /// A trigger endpoint was called: `body.…`, `headers.…` in filters, `request.…` in templates (R177).
    Request(&'a Envelope),
    /// A delivery told how it ended: `event.…` in both (F82).
    Event(&'a EventEnvelope),
}

impl<'a> From<&'a Envelope> for Cause<'a> {
    fn from(envelope: &'a Envelope) -> Self {
        Self::Request(envelope)
    }
}

impl<'a> From<&'a EventEnvelope> for Cause<'a> {
    fn from(event: &'a EventEnvelope) -> Self {
        Self::Event(event)
    }
}

/// An event as filters and templates see it (F82): `event.action`, `event.params.status`, `event.params["body.id"]`,
/// `event.eventUUID`, `event.time` (milliseconds since 1970) and `event.createDate` (ISO 8601).
#[derive(Clone, Debug, PartialEq)]
pub struct EventEnvelope {
    document: Body,
    time: i64,
}

impl EventEnvelope {
    /// The event that a delivery told.
    pub fn of(event: &ResponseEvent) -> Self {
        let param = |name: &str| event.params.get(name).cloned().unwrap_or_default();
        let document = json!({
            "action": event.action,
            "createDate": param("eventCreateTime"),
            "eventUUID": event.id,
            "params": event.params,
            "time": param("time"),
        });
        Self { time: time_of(&document), document: document.into() }
    }

    /// The event as it is shown to operators: its id, its action, and its parameters as JSON.
    ///
    /// # Errors
    /// The parameters are no JSON object.
    pub fn shown(id: &str, action: &str, params: &str) -> Result<Self, BodyError> {
        let params = parse_body(params.as_bytes(), &Limits::STORED)?;
        let params = params.as_object().cloned().unwrap_or_default();
        Ok(Self::of(&ResponseEvent { id: id.to_owned(), action: action.to_owned(), params }))
    }

    /// As JSON: what a job keeps. [`EventEnvelope::from_json`] gives back the same.
    pub fn to_json(&self) -> Vec<u8> {
        self.document.text().as_bytes().to_vec()
    }

    /// Reads what [`EventEnvelope::to_json`] wrote.
    ///
    /// # Errors
    /// It is not an object that was written so.
    pub fn from_json(bytes: &[u8]) -> Result<Self, BodyError> {
        let document = Body::read(&bytes.to_vec().into(), &Limits::STORED)?;
        Ok(Self { time: time_of(document.value()), document })
    }

    /// The whole event.
    pub fn document(&self) -> &Body {
        &self.document
    }

    /// When it was told, in milliseconds since 1970 (UTC).
    pub fn time(&self) -> i64 {
        self.time
    }
}

fn time_of(document: &Value) -> i64 {
    document.as_object().and_then(|event: &Map<String, Value>| event.get("time")?.as_i64()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use sluice_proto::admin::v1 as admin;

    use super::*;
    use crate::address::UrlPolicy;
    use crate::model::{Action, Step, Workflow};
    use crate::path::{Found, Path};
    use crate::request;
    use crate::response_event::{self, Customer, Delivery, Outcome};
    use crate::template::{Mode, OnMissing, Template};
    use crate::wire;

    fn event() -> EventEnvelope {
        let built = response_event::build(&Delivery {
            event_uuid: "0190a6c1-7e2b-7000-8000-000000000001",
            business_profile_id: 7,
            time: 1_718_010_930_123,
            action: "ticket.created",
            name: "Help desk",
            request_url: "",
            step: None,
            customer: Customer::default(),
            outcome: Outcome::Response {
                status: 201,
                headers: &Default::default(),
                body: br#"{"id":"T-9","total":12.50}"#,
                truncated: false,
            },
            parameters: &[("action".to_owned(), "mine".to_owned())],
        });
        EventEnvelope::of(&built.event)
    }

    fn at(path: &str) -> Vec<String> {
        let shown = |found| match found {
            Found::Json(value) => value.to_string(),
            Found::Text(text) => text.to_owned(),
        };
        path.parse::<Path>().unwrap().resolve(&event()).into_iter().map(shown).collect()
    }

    #[test]
    fn paths_lead_into_the_event_and_nowhere_else() {
        assert_eq!(at("event.action"), [r#""ticket.created""#]);
        assert_eq!(at("event.params.status"), ["201"]);
        assert_eq!(at(r#"event.params["body.total"]"#), ["12.50"]);
        assert_eq!(at("event.createDate"), [r#""2024-06-10T09:15:30.123Z""#]);
        for of_a_request in ["body", "headers.Host", "method", "time", "eventId", "businessProfileId"] {
            assert!(at(of_a_request).is_empty(), "{of_a_request}");
        }
    }

    #[test]
    fn it_survives_being_kept() {
        assert_eq!(EventEnvelope::from_json(&event().to_json()).unwrap(), event());
        assert_eq!(event().time(), 1_718_010_930_123);
        let params = event().document().value()["params"].to_string();
        let shown = EventEnvelope::shown("0190a6c1-7e2b-7000-8000-000000000001", "ticket.created", &params).unwrap();
        assert_eq!(shown.to_json(), event().to_json(), "to the byte");
        assert!(EventEnvelope::from_json(b"{").is_err());
    }

    #[test]
    fn templates_see_it_by_both_names() {
        let workflow = Workflow {
            name: String::new(),
            uid: String::new(),
            display_name: String::new(),
            version: 1,
            triggers: Vec::new(),
            steps: Vec::new(),
        };
        let step = Step { id: String::new(), name: String::new(), action: Action::Outgoing(String::new()) };
        let context = request::context(&event(), &workflow, &step, "e1");
        let print =
            |text: &str| Template::compile(text, Mode::Text).unwrap().render(&context, OnMissing::Empty).unwrap().text;
        // A parameter cannot take the place of what the event itself says.
        assert_eq!(print("{{ event.action }} {{ event.params.action }}"), "ticket.created mine");
        assert_eq!(print("{{ event.params.status }} {{ event.status }}"), "201 201");
        assert_eq!(print("{{ event.params['body.total'] }}|{{ event['body.id'] }}"), "12.50|T-9");
        assert_eq!(print("{{ event.createDate }} {{ event.time }}"), "2024-06-10T09:15:30.123Z 1718010930123");
        assert_eq!(print("[{{ request.body.id }}]"), "[]");
    }

    /// The fields and reasons that a trigger is refused with.
    fn refused(trigger: admin::Trigger) -> Vec<(String, &'static str)> {
        let step = admin::Step {
            step_name: "s".to_owned(),
            action: Some(admin::step::Action::OutgoingIntegration("workspaces/w/outgoingIntegrations/out".to_owned())),
            ..Default::default()
        };
        let workflow = admin::Workflow {
            display_name: "w".to_owned(),
            triggers: vec![trigger],
            steps: vec![step],
            ..Default::default()
        };
        let found = wire::workflow(&workflow, &UrlPolicy::default()).err().unwrap_or_default();
        found.into_iter().map(|violation| (violation.field, violation.reason)).collect()
    }

    fn trigger(incoming: &str, action: Option<&str>, path: &str) -> admin::Trigger {
        let condition =
            admin::Condition { path: path.to_owned(), operator: admin::Operator::Exists.into(), operands: Vec::new() };
        admin::Trigger {
            incoming_integration: incoming.to_owned(),
            filter: Some(admin::Filter { kind: Some(admin::filter::Kind::Condition(condition)) }),
            response_event: action.map(|action| admin::ResponseEventTrigger { action: action.to_owned() }),
            allow_unseen: false,
        }
    }

    #[test]
    fn a_trigger_has_one_source_and_filters_what_it_has() {
        let incoming = "workspaces/w/incomingIntegrations/in";
        let path = "triggers[0].filter.condition.path".to_owned();
        assert_eq!(refused(trigger(incoming, None, "body.a")), []);
        assert_eq!(refused(trigger("", Some("ticket.created"), "event.params.status")), []);
        assert_eq!(refused(trigger(incoming, None, "event.action")), [(path.clone(), "PATH_INVALID")]);
        assert_eq!(refused(trigger("", Some("ticket.created"), "body.a")), [(path, "PATH_INVALID")]);
        assert_eq!(
            refused(trigger(incoming, Some("ticket.created"), "event.action")),
            [("triggers[0].incoming_integration".to_owned(), "CONFLICT")]
        );
        assert_eq!(
            refused(trigger("", Some(""), "event.action")),
            [("triggers[0].response_event.action".to_owned(), "REQUIRED")]
        );
        assert_eq!(refused(trigger("", None, "body.a")).len(), 1);
    }
}
