//! What starts a workflow: a request, an event that a delivery told, or one that a caller submitted, alone or as a member of an
//! audience (D01).
//!
//! Hides how an event looks to filters and templates ([`EventEnvelope`]), whose it is (D02), and that a path of the one never
//! leads into the other.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::envelope::Envelope;
use crate::flatten::{BodyError, Limits, parse_body};
use crate::response_event::{Customer, ResponseEvent, create_time};

/// The member of a stored event that holds its customer, beside those of the event itself.
const CUSTOMER: &str = "customer";

/// What a filter and the templates of a delivery look at.
#[derive(Clone, Copy, Debug)]
pub enum Cause<'a> {
    /// A trigger endpoint was called: `body.…`, `headers.…` in filters, `request.…` in templates (R177).
    Request(&'a Envelope),
    /// A delivery told how it ended, or a caller submitted it: `event.…` in both (F82), and `customer.…` where the caller says whose
    /// it is (D02).
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
    document: Value,
    customer: Option<Value>,
}

/// An event that a caller submitted. It has been held to its limits before.
#[derive(Clone, Debug, PartialEq)]
pub struct SubmittedEvent {
    /// `event.eventUUID`.
    pub id: String,
    /// `event.action`.
    pub action: String,
    /// `event.params`.
    pub params: Map<String, Value>,
    /// `customer`, if the caller says whose it is.
    pub customer: Option<Map<String, Value>>,
    /// When it happened, in milliseconds since 1970 (UTC).
    pub time: i64,
}

impl From<SubmittedEvent> for EventEnvelope {
    fn from(event: SubmittedEvent) -> Self {
        let (created, time) = (create_time(event.time).into(), event.time.into());
        let document = document(event.action, created, event.id, event.params, time);
        Self { document, customer: event.customer.map(Value::Object) }
    }
}

/// An event as templates and filters see it. Put together from what was read, as it is: whatever goes through a serializer loses the
/// text of its numbers (D16).
fn document(action: String, created: Value, id: String, params: Map<String, Value>, time: Value) -> Value {
    let members = [
        ("action", action.into()),
        ("createDate", created),
        ("eventUUID", id.into()),
        ("params", Value::Object(params)),
        ("time", time),
    ];
    Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

impl EventEnvelope {
    /// The event that a delivery told.
    pub fn of(event: &ResponseEvent) -> Self {
        let param = |name: &str| event.params.get(name).cloned().unwrap_or_default();
        let (created, time) = (param("eventCreateTime"), param("time"));
        let document = document(event.action.clone(), created, event.id.clone(), event.params.clone(), time);
        Self { document, customer: None }
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
        let mut text = self.document.to_string();
        if let Some(customer) = &self.customer {
            // An event has members, and none of this name.
            text.pop();
            text.push_str(&format!(",\"{CUSTOMER}\":{customer}}}"));
        }
        text.into_bytes()
    }

    /// Reads what [`EventEnvelope::to_json`] wrote.
    ///
    /// # Errors
    /// It is not an object that was written so.
    pub fn from_json(bytes: &[u8]) -> Result<Self, BodyError> {
        let mut document = parse_body(bytes, &Limits::STORED)?;
        let customer = document.as_object_mut().and_then(|event| event.shift_remove(CUSTOMER));
        Ok(Self { document, customer })
    }

    /// The whole event, without its customer.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Whose it is, where the caller said so: an object (D02).
    pub fn customer(&self) -> Option<&Value> {
        self.customer.as_ref()
    }

    /// Whose it is, as the response event names them (F24): `clientId` of the customer when it is a whole number, `uuid` when it is
    /// a UUID. Others are not named.
    pub fn profile(&self) -> Customer<'_> {
        let attribute = |name: &str| self.customer.as_ref().and_then(|customer| customer.get(name));
        Customer {
            client_id: attribute("clientId").and_then(Value::as_u64),
            uuid: attribute("uuid").and_then(Value::as_str).filter(|text| is_uuid(text)),
        }
    }

    /// When it was told or happened, in milliseconds since 1970 (UTC).
    pub fn time(&self) -> i64 {
        self.document.get("time").and_then(Value::as_i64).unwrap_or_default()
    }
}

/// Longest id that a caller gives to what he submits, in bytes.
pub const EVENT_ID_BYTES_MAX: usize = 128;
/// Parameters and customer of what a caller submits, in bytes of JSON.
pub const EVENT_BYTES_MAX: usize = 256 * 1024;
/// How far a caller's clock may be ahead, in milliseconds.
pub const EVENT_AHEAD_MAX: i64 = 60_000;
/// `event.action` of a member of an audience.
pub const AUDIENCE: &str = "audience";

/// Under which key a submission is recognised when it comes again: by workspace, by action or by the workflow of the audience, and
/// by the caller's id (I2, I10).
pub fn submission_key(workspace: &str, of: Of<'_>, id: &str) -> [u8; 32] {
    let (kind, of) = match of {
        Of::Action(action) => ("event", action),
        Of::Audience(workflow) => (AUDIENCE, workflow),
    };
    let mut hash = Sha256::new();
    for part in ["sluice submission", workspace, kind, of, id] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Whom a submission is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of<'a> {
    /// Every workflow that asks for this action.
    Action(&'a str),
    /// This workflow, of whose audience it is a member.
    Audience(&'a str),
}

/// Whether a text is a UUID as they are usually written: 36 characters.
pub(crate) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
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
        let params = event().document()["params"].to_string();
        let shown = EventEnvelope::shown("0190a6c1-7e2b-7000-8000-000000000001", "ticket.created", &params).unwrap();
        assert_eq!(shown.to_json(), event().to_json(), "to the byte");
        assert!(EventEnvelope::from_json(b"{").is_err());
    }

    fn submitted(params: &str, customer: Option<&str>) -> EventEnvelope {
        let object = |text: &str| parse_body(text.as_bytes(), &Limits::default()).unwrap().as_object().unwrap().clone();
        EventEnvelope::from(SubmittedEvent {
            id: "0190a6c1-7e2b-7000-8000-000000000002".to_owned(),
            action: "form.submit".to_owned(),
            params: object(params),
            customer: customer.map(object),
            time: 1_718_010_930_123,
        })
    }

    /// T17, T18.
    const EWA: &str = r#"{"firstname":"Ewa","email":"ewa@example.com","my attr":"z","clientId":18446744073709551615,
        "uuid":"3F2504E0-4F89-41D3-9A0C-0305E82C3301","score":1.10,"$serde_json::private::Number":"7"}"#;

    #[test]
    fn a_customer_is_kept_beside_the_event() {
        let whose = submitted(r#"{"formId":"contact","customer":5}"#, Some(EWA));
        let kept = EventEnvelope::from_json(&whose.to_json()).unwrap();
        assert_eq!((&kept, kept.to_json()), (&whose, whose.to_json()), "to the byte");
        assert!(kept.document().get("customer").is_none());
        assert_eq!(kept.customer().unwrap()["score"].to_string(), "1.10");
        let at = |path: &str| path.parse::<Path>().unwrap().resolve(&kept).len();
        assert_eq!((at("customer.firstname"), at(r#"customer["my attr"]"#), at("event.params.customer")), (1, 1, 1));
        assert_eq!((at("event.customer"), at("customer.lastname"), at("event.firstname"), at("body")), (0, 0, 0, 0));
        let nobodys = EventEnvelope::from_json(&submitted("{}", None).to_json()).unwrap();
        assert_eq!((nobodys.customer(), nobodys.time()), (None, 1_718_010_930_123));
        assert_eq!("customer.a".parse::<Path>().unwrap().resolve(&nobodys), []);
    }

    /// D16: to the character, in the event, in what a job keeps of it, and in templates.
    #[test]
    fn numbers_keep_their_text() {
        let params = r#"{"big":1e400,"price":1.50,"zero":-0,"small":1E-7,"$serde_json::private::Number":"7"}"#;
        let event = submitted(params, Some(params));
        assert_eq!(event.document()["params"].to_string(), params);
        assert_eq!(event.customer().unwrap().to_string(), params);
        let kept = EventEnvelope::from_json(&event.to_json()).unwrap();
        assert_eq!((kept.to_json(), &kept), (event.to_json(), &event));
        assert_eq!(printed(&kept, "{{ event.params.price }} {{ event.params.big|tojson }}").unwrap(), "1.50 1e400");
        let shown = EventEnvelope::shown("0190a6c1-7e2b-7000-8000-000000000001", "a", params).unwrap();
        assert_eq!(shown.document()["params"].to_string(), params);
    }

    #[test]
    fn a_submission_has_a_key_of_its_own() {
        let keys = [
            submission_key("workspaces/a", Of::Action("x"), "1"),
            submission_key("workspaces/b", Of::Action("x"), "1"),
            submission_key("workspaces/a", Of::Action("y"), "1"),
            submission_key("workspaces/a", Of::Audience("x"), "1"),
            submission_key("workspaces/a", Of::Action("x"), "2"),
            submission_key("workspaces/a", Of::Action("x1"), ""),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
        assert_eq!(keys[0], submission_key("workspaces/a", Of::Action("x"), "1"));
    }

    #[test]
    fn a_profile_is_named_by_what_the_contract_has() {
        let profile = |customer: &str| {
            let event = submitted("{}", Some(customer));
            let Customer { client_id, uuid } = event.profile();
            (client_id, uuid.map(str::to_owned))
        };
        let uuid = "3F2504E0-4F89-41D3-9A0C-0305E82C3301".to_owned();
        assert_eq!(profile(EWA), (Some(u64::MAX), Some(uuid)));
        for other in ["{}", r#"{"clientId":"5","uuid":"ewa"}"#, r#"{"clientId":-1,"uuid":7}"#, r#"{"clientId":1.5}"#] {
            assert_eq!(profile(other), (None, None), "{other}");
        }
        let event = submitted("{}", None);
        assert_eq!((event.profile().client_id, event.profile().uuid), (None, None));
    }

    fn printed(event: &EventEnvelope, text: &str) -> Result<String, crate::template::Unrendered> {
        let (workflow, step) = of_workflow();
        let context = request::context(event, &workflow, &step, "e1");
        let template = Template::compile(text, Mode::Text).unwrap();
        template.render(&context, OnMissing::Empty).map(|rendered| rendered.text)
    }

    #[test]
    fn templates_see_the_customer() {
        let event = submitted(r#"{"formId":"contact"}"#, Some(EWA));
        let t17 =
            "Hi {{ customer.firstname }} [{{ customer.lastname }}] {{ customer[\"my attr\"] }} {% customer email %}";
        assert_eq!(printed(&event, t17).unwrap(), "Hi Ewa [] z ewa@example.com");
        assert_eq!(printed(&event, "{{ event.action }} {{ event.formId }}").unwrap(), "form.submit contact");
        assert_eq!(
            printed(&event, "{{ event.params.formId }} {{ event.createDate }}").unwrap(),
            "contact 2024-06-10T09:15:30.123Z"
        );
        let skipped = |event: &EventEnvelope, text: &str| {
            matches!(printed(event, text), Err(crate::template::Unrendered::Skipped(_)))
        };
        // T18.
        assert!(skipped(&event, "{% customer lastname %}"));
        let nobodys = submitted("{}", None);
        assert_eq!(printed(&nobodys, "[{{ customer.firstname }}]").unwrap(), "[]");
        assert!(skipped(&nobodys, "{% customer email %}"));
    }

    fn of_workflow() -> (Workflow, Step) {
        let workflow = Workflow {
            name: String::new(),
            uid: String::new(),
            display_name: String::new(),
            version: 1,
            triggers: Vec::new(),
            steps: Vec::new(),
        };
        (
            workflow,
            Step {
                id: String::new(),
                name: String::new(),
                action: Action::Outgoing(String::new()),
                form_values: Vec::new(),
            },
        )
    }

    #[test]
    fn templates_see_it_by_both_names() {
        let (workflow, step) = of_workflow();
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
            ..admin::Trigger::default()
        }
    }

    #[test]
    fn what_callers_submit_is_filtered_by_event_and_customer() {
        let event = || Some(admin::EventTrigger { action: "form.submit".to_owned() });
        let audience = || Some(admin::AudienceTrigger {});
        let path = "triggers[0].filter.condition.path".to_owned();
        let of = |event, audience, path| admin::Trigger { event, audience, ..trigger("", None, path) };
        for good in ["event.params.formId", "event.action", r#"customer["my attr"]"#, "customer"] {
            assert_eq!(refused(of(event(), None, good)), [], "{good}");
            assert_eq!(refused(of(None, audience(), good)), [], "{good}");
        }
        for bad in ["body.a", "headers.Host", "time"] {
            assert_eq!(refused(of(event(), None, bad)), [(path.clone(), "PATH_INVALID")], "{bad}");
            assert_eq!(refused(of(None, audience(), bad)), [(path.clone(), "PATH_INVALID")], "{bad}");
        }
        assert_eq!(refused(of(event(), audience(), "event.action")), [("triggers[0].audience".to_owned(), "CONFLICT")]);
        let all = admin::Trigger {
            incoming_integration: "workspaces/w/incomingIntegrations/in".to_owned(),
            response_event: Some(admin::ResponseEventTrigger { action: "a".to_owned() }),
            ..of(event(), audience(), "event.action")
        };
        let fields: Vec<String> = refused(all).into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["triggers[0].incoming_integration", "triggers[0].event", "triggers[0].audience"]);
        let nameless = Some(admin::EventTrigger::default());
        assert_eq!(refused(of(nameless, None, "event.action")), [("triggers[0].event.action".to_owned(), "REQUIRED")]);
    }

    #[test]
    fn a_trigger_has_one_source_and_filters_what_it_has() {
        let incoming = "workspaces/w/incomingIntegrations/in";
        let path = "triggers[0].filter.condition.path".to_owned();
        assert_eq!(refused(trigger(incoming, None, "body.a")), []);
        assert_eq!(refused(trigger("", Some("ticket.created"), "event.params.status")), []);
        assert_eq!(refused(trigger(incoming, None, "event.action")), [(path.clone(), "PATH_INVALID")]);
        for other in ["body.a", "customer.email"] {
            assert_eq!(refused(trigger("", Some("ticket.created"), other)), [(path.clone(), "PATH_INVALID")]);
        }
        assert_eq!(refused(trigger(incoming, None, "customer.email")), [(path, "PATH_INVALID")]);
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
