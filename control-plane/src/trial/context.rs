//! What templates of a test see (R115 to R117): a request, an event, a customer, as data planes read them.

use serde_json::{Map, Value};
use sluice_core::cause::{EventEnvelope, SubmittedEvent};
use sluice_core::envelope::{Body, Envelope, Headers};
use sluice_core::flatten::{Limits, parse_body};
use sluice_core::request::is_token;
use sluice_core::validate::{self, Violation};
use sluice_proto::admin::v1::test_context::StartedBy;
use sluice_proto::admin::v1::{TestContext, TestEvent, TestProfile, TestTrigger};
use uuid::Uuid;

use crate::captures;
use crate::clock::{UnixMillis, millis};
use crate::error::{Failure, violation};
use crate::names;
use crate::resource::Resource as _;
use crate::shared::Shared;
use crate::store::{Transaction, WorkspaceRow};
use crate::stored::Stored;

/// Largest body of a request that is made up, in bytes.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// Most headers of one.
const HEADERS_MAX: usize = 100;
/// All of them, names and values, in bytes.
const HEADERS_BYTES_MAX: usize = 32 * 1024;

/// What was chosen, as JSON; empty: not chosen.
#[derive(Default)]
pub(super) struct Chosen {
    pub(super) envelope: Vec<u8>,
    pub(super) event: Vec<u8>,
    pub(super) customer: Vec<u8>,
}

impl Chosen {
    pub(super) fn is_nothing(&self) -> bool {
        self.envelope.is_empty() && self.event.is_empty() && self.customer.is_empty()
    }

    pub(super) fn has_customer(&self) -> bool {
        !self.customer.is_empty()
    }
}

/// Reads what was chosen.
pub(super) async fn read(
    shared: &Shared,
    tx: &mut Transaction,
    workspace: &WorkspaceRow,
    asked: TestContext,
) -> Result<Chosen, Failure> {
    let now = shared.settings.clock.now();
    let profile = profile(tx, workspace, &asked.test_profile).await?;
    let customer = profile.as_ref().map(|profile| object(&profile.attributes)).transpose()?;
    let mut chosen = Chosen::default();
    match asked.started_by {
        None => {}
        Some(StartedBy::Request(_) | StartedBy::Captured(_)) if customer.is_some() => {
            let message = "leave it empty: a workflow that is started by an incoming request has no customer (R080)";
            return Err(Failure::field("context.test_profile", "CUSTOMER_NOT_AVAILABLE", message));
        }
        Some(StartedBy::Request(trigger)) => chosen.envelope = made_up(workspace, &trigger, now)?.to_json(),
        Some(StartedBy::Captured(name)) => {
            chosen.envelope = captures::sample(shared, tx, workspace, &name, "context.captured").await?.to_json();
        }
        Some(StartedBy::ProfileEvent(place)) => {
            let events = profile.map(|profile| profile.events).unwrap_or_default();
            let chosen_one = usize::try_from(place).ok().and_then(|place| events.get(place));
            let missing = || {
                let message = format!("the test profile has {} events, counted from 0", events.len());
                Failure::field("context.profile_event", "OUT_OF_RANGE", message)
            };
            chosen.event = submitted(chosen_one.ok_or_else(missing)?, customer.clone(), now)?.to_json();
        }
        Some(StartedBy::Event(event)) => {
            check_event(&event)?;
            chosen.event = submitted(&event, customer.clone(), now)?.to_json();
        }
    }
    chosen.customer = customer.map(|customer| Value::Object(customer).to_string().into_bytes()).unwrap_or_default();
    Ok(chosen)
}

async fn profile(tx: &mut Transaction, workspace: &WorkspaceRow, name: &str) -> Result<Option<TestProfile>, Failure> {
    if name.is_empty() {
        return Ok(None);
    }
    let parsed = names::parse(name, TestProfile::COLLECTION, "context.test_profile")?;
    if parsed.workspace != workspace.id {
        return Err(Failure::NotFound(name.to_owned()));
    }
    Ok(Some(Stored::<TestProfile>::load(tx, &parsed, "").await?.draft))
}

/// The rules of an event of a test profile, for one that is given.
fn check_event(event: &TestEvent) -> Result<(), Failure> {
    let alone = TestProfile {
        display_name: TestProfile::COLLECTION.to_owned(),
        events: vec![event.clone()],
        ..TestProfile::default()
    };
    let found = validate::test_profile(&alone).into_iter();
    let found: Vec<Violation> = found
        .map(|broken| Violation { field: broken.field.replacen("events[0]", "context.event", 1), ..broken })
        .collect();
    if found.is_empty() { Ok(()) } else { Err(Failure::Fields(found)) }
}

fn submitted(
    event: &TestEvent,
    customer: Option<Map<String, Value>>,
    now: UnixMillis,
) -> Result<EventEnvelope, Failure> {
    let time = event.time.as_ref().map_or(now, millis);
    let (id, action) = (Uuid::new_v4().to_string(), event.action.clone());
    Ok(EventEnvelope::from(SubmittedEvent { id, action, params: object(&event.params)?, customer, time }))
}

/// A JSON object that was checked when it was stored; an empty text is one without members.
fn object(text: &str) -> Result<Map<String, Value>, Failure> {
    let text = if text.is_empty() { "{}" } else { text };
    match parse_body(text.as_bytes(), &Limits::STORED) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) | Err(_) => Err(Failure::Internal("a JSON object of a test cannot be read".to_owned())),
    }
}

/// The request of a sender that there is not.
fn made_up(workspace: &WorkspaceRow, trigger: &TestTrigger, now: UnixMillis) -> Result<Envelope, Failure> {
    let mut found = Vec::new();
    let field = "context.request.body";
    let body = if trigger.body.len() > BODY_BYTES_MAX {
        let message = format!("has {} bytes; the limit is {BODY_BYTES_MAX}", trigger.body.len());
        found.push(violation(field, "TOO_LONG", message));
        None
    } else {
        let read = Body::read(&trigger.body.clone().into(), &Limits::default());
        read.map_err(|error| found.push(violation(field, "JSON_INVALID", error.to_string()))).ok()
    };
    let bytes: usize = trigger.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
    if trigger.headers.len() > HEADERS_MAX || bytes > HEADERS_BYTES_MAX {
        let message = format!("may be {HEADERS_MAX} headers of {HEADERS_BYTES_MAX} bytes in all");
        found.push(violation("context.request.headers", "TOO_MANY", message));
    }
    for (index, header) in trigger.headers.iter().enumerate() {
        if !is_token(&header.name) {
            let message = "must be an HTTP header name: letters, digits and !#$%&'*+-.^_`|~";
            found.push(violation(&format!("context.request.headers[{index}].name"), "HEADER_NAME", message));
        }
        if header.value.chars().any(|c| c.is_control() && c != '\t') {
            let message = "cannot hold line breaks or other control characters";
            found.push(violation(&format!("context.request.headers[{index}].value"), "HEADER_VALUE", message));
        }
    }
    let Some(body) = body.filter(|_| found.is_empty()) else { return Err(Failure::Fields(found)) };
    Ok(Envelope {
        body,
        business_profile_id: workspace.business_profile_id.unsigned_abs(),
        endpoint_id: Uuid::nil().to_string(),
        event_id: Uuid::new_v4().to_string(),
        headers: Headers::from_iter(trigger.headers.iter().map(|header| (&header.name, &header.value))),
        method: "POST".to_owned(),
        time: now,
    })
}
