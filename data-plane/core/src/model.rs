//! Configuration as it is used: parsed once from the wire ([`crate::wire`]), templates compiled, secrets opened.
//! What is wrong does not get here.

mod connection;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::address::PublishedUrl;
use crate::dedup;
use crate::filter::Filter;
use crate::form::Form;
use crate::jwt::{TokenKey, Verifier};
use crate::seal::{Secret, Slot};
use crate::template::{OnMissing, Template};

pub use connection::*;

/// A public endpoint (R140).
#[derive(Debug)]
pub struct Incoming {
    /// `workspaces/{workspace}/incomingIntegrations/{id}`.
    pub name: Arc<str>,
    /// The id in its URL.
    pub endpoint_id: Box<str>,
    /// Who may send.
    pub authorization: Authorization,
    /// Which requests are the same.
    pub dedup: dedup::Rule,
    /// How much it takes.
    pub rate_limit: RateLimit,
    /// It takes nothing until it is resumed.
    pub paused: bool,
}

impl Incoming {
    /// Accepts another secret of the field `path` beside the active one.
    pub fn accept_also(&mut self, path: &str, secret: SenderSecret) {
        match (&mut self.authorization, path) {
            (Authorization::Meta { app_secrets, .. }, "meta.app_secret") => app_secrets.push(secret),
            (Authorization::Meta { verify_tokens, .. }, "meta.verify_token") => verify_tokens.push(secret),
            (Authorization::Meta { .. } | Authorization::None | Authorization::Jwt(_), _) => {}
        }
    }
}

/// A secret that senders may know.
#[derive(Debug)]
pub struct SenderSecret {
    /// Its place in a rotation.
    pub slot: Slot,
    /// The secret.
    pub secret: Secret,
}

impl SenderSecret {
    /// The one in force.
    pub fn active(secret: &str) -> Self {
        Self { slot: Slot::Active, secret: Secret::new(secret) }
    }
}

/// Who may send to an endpoint. There may be very many: those with secrets do not make the others larger.
#[derive(Debug)]
pub enum Authorization {
    /// Anyone who knows the URL (R149).
    None,
    /// Webhooks from Meta (R154).
    Meta {
        /// Sign the bodies: the active one first, others during a rotation (S16).
        app_secrets: Box<Vec<SenderSecret>>,
        /// Sent when Meta verifies the endpoint: the active one first.
        verify_tokens: Box<Vec<SenderSecret>>,
    },
    /// JSON Web Tokens (R150).
    Jwt(TokenSource),
}

/// Whose tokens an endpoint accepts.
#[derive(Debug)]
pub enum TokenSource {
    /// Those of `workspaces/{workspace}/apiKeys/{id}` (R152).
    ApiKey(Box<str>),
    /// Those of another issuer.
    Issuer(Box<Verifier>),
}

/// A workspace API key that may get tokens (D14, R153).
#[derive(Debug)]
pub struct LoginKey {
    /// `workspaces/{workspace}/apiKeys/{id}`.
    pub name: String,
    /// By which it is found; `sub` of its tokens.
    pub id: String,
    /// SHA-256 of its secret part.
    pub secret_hash: [u8; 32],
    /// What it may do at endpoints.
    pub permissions: Vec<String>,
    /// When it ends, in milliseconds since 1970.
    pub expires: Option<i64>,
    /// Where it may be used from; empty: anywhere.
    pub allowed_networks: Vec<IpNet>,
}

/// What a JSON Web Token must allow to start anything (R153).
pub const EXECUTE: &str = "INCOMING_WEBHOOK_EXECUTE";

impl LoginKey {
    /// Whether it has ended.
    pub fn is_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    /// Whether it may be used from there.
    pub fn allows(&self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        self.allowed_networks.is_empty() || self.allowed_networks.iter().any(|network| network.contains(&from))
    }

    /// Whether its tokens may start anything.
    pub fn may_execute(&self) -> bool {
        self.permissions.iter().any(|permission| permission == EXECUTE)
    }
}

/// The keys of a workspace's tokens.
#[derive(Debug)]
pub struct TokenKeys {
    /// Signs.
    pub active: TokenKey,
    /// Checks: the active one and those before it.
    pub verifier: Verifier,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests per second.
    pub requests_per_second: u32,
    /// Requests that may come at once.
    pub burst: u32,
}

/// A reusable outgoing request (R003).
#[derive(Debug)]
pub struct Outgoing {
    /// `workspaces/{workspace}/outgoingIntegrations/{id}`.
    pub name: Arc<str>,
    /// The published version.
    pub version: i64,
    /// The request.
    pub request: OutgoingRequest,
    /// What its steps fill in; absent: they fill in nothing (R009).
    pub form: Option<Form>,
}

/// A request built from templates, and what belongs to sending it.
#[derive(Debug)]
pub struct OutgoingRequest {
    /// Parameter `name` of the response event (R065).
    pub webhook_name: Box<str>,
    /// Action of the response event (R066, R067).
    pub event_name: Cow<'static, str>,
    /// What is sent.
    pub template: RequestTemplate,
    /// Authenticates: `workspaces/{workspace}/connections/{id}`.
    pub connection: Option<Box<str>>,
    /// Signs: `workspaces/{workspace}/connections/{id}`.
    pub signature: Option<Box<str>>,
    /// Additional event parameters.
    pub event_parameters: Box<[(Box<str>, Template)]>,
    /// When to try again: most do as all do that say nothing of it.
    pub retry: Arc<RetryPolicy>,
    /// For the whole exchange.
    pub timeout: Duration,
    /// How much is sent; absent: no limit.
    pub rate_limit: Option<RateLimit>,
    /// Requests under way at once; absent: no limit.
    pub concurrency_max: Option<u32>,
}

impl OutgoingRequest {
    /// The connections it names: the field, the name, and what it is named for.
    pub fn connections(&self) -> impl Iterator<Item = (&'static str, &str, Purpose)> {
        let named =
            [("connection", &self.connection, Purpose::Authenticates), ("signature", &self.signature, Purpose::Signs)];
        named.into_iter().filter_map(|(field, name, purpose)| Some((field, name.as_deref()?, purpose)))
    }

    /// Every template with its field's path.
    pub fn templates(&self) -> Vec<(String, &Template)> {
        let mut all = self.template.templates();
        for (index, (_, value)) in self.event_parameters.iter().enumerate() {
            all.push((format!("event_parameters[{index}].value"), value));
        }
        all
    }
}

/// The templates of one request.
#[derive(Debug)]
pub struct RequestTemplate {
    /// An upper-case HTTP method.
    pub method: &'static str,
    /// The URL.
    pub url: Template,
    /// The literal beginning of the URL: every rendering must lead to its host and port (R073).
    pub published_url: PublishedUrl,
    /// Names and values.
    pub headers: Box<[(Template, Template)]>,
    /// Absent: no body is sent.
    pub body: Option<Template>,
    /// Send `Content-Type: application/json` when the author sets none (X20).
    pub default_json_type: bool,
    /// What a missing value prints.
    pub on_missing: OnMissing,
}

impl RequestTemplate {
    /// Every template with its field's path.
    pub fn templates(&self) -> Vec<(String, &Template)> {
        let mut all = vec![("url".to_owned(), &self.url)];
        for (index, (name, value)) in self.headers.iter().enumerate() {
            all.push((format!("headers[{index}].name"), name));
            all.push((format!("headers[{index}].value"), value));
        }
        all.extend(self.body.iter().map(|body| ("body".to_owned(), body)));
        all
    }
}

/// When a failed attempt is repeated (D09).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all.
    pub attempts_max: u32,
    /// The longest wait after each attempt; the last one holds for all further attempts.
    pub waits: Cow<'static, [Duration]>,
    /// How old a delivery may grow.
    pub age_max: Duration,
    /// Statuses to repeat after; `None`: 408, 425, 429 and every 5xx.
    pub statuses: Option<Vec<u16>>,
}

/// Attempts by default (D09).
pub const ATTEMPTS_DEFAULT: u32 = 8;
/// Waits by default (D09): 5 s, 30 s, 5 min, 30 min, 2 h, 5 h, 10 h.
pub const WAITS_DEFAULT: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(10 * 3600),
];
/// Age limit by default: 3 days.
pub const AGE_DEFAULT: Duration = Duration::from_secs(3 * 24 * 3600);

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: ATTEMPTS_DEFAULT,
            waits: Cow::Borrowed(&WAITS_DEFAULT),
            age_max: AGE_DEFAULT,
            statuses: None,
        }
    }
}

/// Which triggers lead to which requests (D01).
#[derive(Debug)]
pub struct Workflow {
    /// `workspaces/{workspace}/workflows/{id}`.
    pub name: String,
    /// Never changes; `diagramId` of the response event.
    pub uid: String,
    /// What people call it; `diagramName` of the response event.
    pub display_name: String,
    /// The published version.
    pub version: i64,
    /// Joined by OR.
    pub triggers: Vec<Trigger>,
    /// Independent deliveries.
    pub steps: Vec<Step>,
}

/// A start of a workflow.
#[derive(Debug)]
pub struct Trigger {
    /// What starts it.
    pub start: Start,
    /// Which of the requests or events; absent: all.
    pub filter: Option<Filter>,
}

/// Where the requests or events come from that start a workflow.
#[derive(Debug)]
pub enum Start {
    /// `workspaces/{workspace}/incomingIntegrations/{id}`.
    Incoming(String),
    /// Response events with this action (D01).
    ResponseEvents(String),
    /// Events with this action that callers submit (D01).
    Events(String),
    /// Members of an audience that callers submit (R126).
    Audience,
}

impl Start {
    /// Why what starts here has no customer; `None`: its caller may say whose it is (D02).
    pub fn no_customer(&self) -> Option<&'static str> {
        match self {
            Self::Incoming(_) => Some("requests of an incoming integration have none"),
            Self::ResponseEvents(_) => Some("response events have none"),
            Self::Events(_) | Self::Audience => None,
        }
    }
}

impl Trigger {
    /// Whether requests of this incoming integration may start the workflow.
    pub fn is_incoming(&self, incoming: &str) -> bool {
        matches!(&self.start, Start::Incoming(name) if name == incoming)
    }

    /// The action of the response events that may start the workflow.
    pub fn response_events(&self) -> Option<&String> {
        match &self.start {
            Start::ResponseEvents(action) => Some(action),
            Start::Incoming(_) | Start::Events(_) | Start::Audience => None,
        }
    }

    /// Whether response events with this action may start the workflow.
    pub fn is_response_event(&self, of_action: &str) -> bool {
        self.response_events().is_some_and(|action| action == of_action)
    }

    /// The action of the submitted events that may start the workflow.
    pub fn events(&self) -> Option<&String> {
        match &self.start {
            Start::Events(action) => Some(action),
            Start::Incoming(_) | Start::ResponseEvents(_) | Start::Audience => None,
        }
    }

    /// Whether submitted events with this action may start the workflow.
    pub fn is_event(&self, of_action: &str) -> bool {
        self.events().is_some_and(|action| action == of_action)
    }

    /// Whether members of an audience may start the workflow.
    pub fn is_audience(&self) -> bool {
        matches!(self.start, Start::Audience)
    }
}

/// One outgoing request of a workflow.
#[derive(Debug)]
pub struct Step {
    /// `blockId` of the response event.
    pub id: String,
    /// `blockName` of the response event.
    pub name: String,
    /// What it sends.
    pub action: Action,
    /// What it fills into the form of the integration, by field.
    pub form_values: Vec<(String, Template)>,
}

/// What a step sends (R002).
#[derive(Debug)]
pub enum Action {
    /// A published outgoing integration, by name.
    Outgoing(String),
    /// A request of its own.
    Custom(OutgoingRequest),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_may_be_a_million_of_is_small() {
        assert!(size_of::<Incoming>() <= 112, "{}", size_of::<Incoming>());
    }
}
