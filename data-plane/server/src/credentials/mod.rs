//! What a connection adds to a request right before it is sent (D08): the credentials in force at that moment, a token fetched for
//! them if need be, and signatures over what is sent in the end. They are never part of what the inbox keeps (I7).
//!
//! | Module | What |
//! |---|---|
//! | [`life`] | what is decided of one token: when it is fetched, used, dropped |
//! | [`keeper`] | one token for many deliveries: one fetch under way, all wait for it |
//! | [`error`] | why a fetch fails |
//! | [`told`] | what the control plane is told of tokens |
//!
//! A token belongs to one connection as one revision holds it ([`Connected`]): it cannot be found under another workspace or version
//! (R15), and it is gone with the connection or its last change (S16). It is kept in memory only.

mod error;
mod keeper;
mod life;
mod told;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use sluice_core::address::{CheckedUrl, check_url};
use sluice_core::credentials::{self as core, Answer, AuthFailure, Credential, Finished, Token};
use sluice_core::lineage::HOPS_MAX;
use sluice_core::model::{Connection, OutgoingRequest};
use sluice_core::redact::{LastRedactor, Redactor};
use sluice_core::response_event::FailureReason;
use sluice_egress::{Exchange, Request};
use tokio::sync::watch;

use crate::aside::{QUICK_STEPS, aside};
use crate::clock::Clock;
use crate::plane::Plane;
use crate::runtime::Workspace;
use keeper::{ComeBack, Keeper, Lent};
use life::{Fetched, Obtained};

pub(crate) use error::FetchError;
pub(crate) use told::{held, tell};

/// How long a token fetch may take, apart from the exchange it is for (D11).
const FETCH_TIME: Duration = Duration::from_secs(10);

/// A connection in force, with the token fetched for it.
#[derive(Debug)]
pub struct Connected {
    /// As published.
    pub connection: Connection,
    /// Absent for kinds that fetch none.
    token: Option<Arc<Keeper<Arc<Token>>>>,
    /// Of the attempts that it lets in, or signs without letting in.
    redactor: LastRedactor,
}

/// What the tokens of one data plane share.
#[derive(Debug)]
pub struct Tokens {
    clock: Clock,
    /// Moves when there is something to tell.
    changes: watch::Sender<()>,
}

impl Tokens {
    /// No token yet.
    pub fn new(clock: Clock) -> Self {
        Self { clock, changes: watch::Sender::new(()) }
    }

    /// A connection that comes into force. Its token is fetched when a delivery needs it.
    pub(crate) fn connect(&self, connection: Connection) -> Connected {
        let keeper = || Arc::new(Keeper::new(self.clock.clone(), self.changes.clone()));
        let token = connection.scheme.fetches_token().then(keeper);
        Connected { connection, token, redactor: LastRedactor::default() }
    }

    /// Other connections are in force.
    pub(crate) fn served(&self) {
        self.changes.send_replace(());
    }
}

/// Why a request is not sent now: it would go without its credentials (D21).
#[derive(Debug)]
pub(crate) enum Withheld {
    /// Nor later.
    Refused { reason: FailureReason, message: String },
    /// There is no token; there may be one after this time.
    NoToken {
        after: Duration,
        message: String,
        /// It is being fetched.
        under_way: bool,
    },
}

/// Which token is on a request.
#[derive(Debug)]
pub(crate) struct UsedToken {
    keeper: Arc<Keeper<Arc<Token>>>,
    serial: life::Serial,
}

impl UsedToken {
    /// The destination answered 401: the token is dropped. Whether the request is worth repeating with another one (S21, R14).
    pub(crate) fn refused(&self) -> bool {
        self.keeper.refused(self.serial)
    }
}

/// What a request was given.
#[derive(Debug)]
pub(crate) struct Given {
    /// The token on it, if one was fetched.
    pub(crate) token: Option<UsedToken>,
    /// What must not come back of it (R11).
    pub(crate) redactor: Redactor,
}

/// Puts credentials on a request and signs it.
///
/// # Errors
/// The request is not to be sent, now or at all.
pub(crate) async fn put(
    plane: &Plane,
    workspace: &Workspace,
    target: &OutgoingRequest,
    request: &mut Request,
    message_id: &str,
) -> Result<Given, Withheld> {
    let (mut secrets, mut used) = (Vec::new(), Vec::new());
    let mut token = None;
    if let Some(name) = &target.connection {
        let connected = find(plane, workspace, name, request)?;
        let lent = lend(plane, workspace, connected).await?;
        let credential = authenticate(&connected.connection, lent.as_ref().map(|lent| lent.token.as_ref()))?;
        sluice_egress::apply(request, credential.clone());
        sign(plane, &connected.connection, request, message_id)?;
        secrets.push((&connected.connection.scheme, credential));
        used.push(connected);
        token = lent.and_then(|lent| Some(UsedToken { keeper: connected.token.clone()?, serial: lent.serial }));
    }
    if let Some(name) = &target.signature {
        let connected = find(plane, workspace, name, request)?;
        sign(plane, &connected.connection, request, message_id)?;
        secrets.push((&connected.connection.scheme, Credential::default()));
        used.push(connected);
    }
    let secrets = secrets.iter().map(|(scheme, credential)| (*scheme, credential));
    let redactor = used.first().map_or_else(Redactor::default, |connected| connected.redactor.of_attempt(secrets));
    Ok(Given { token, redactor })
}

/// Puts masks where [`put`] puts credentials and signatures.
///
/// # Errors
/// The request would not be sent.
pub(crate) fn put_masked(
    plane: &Plane,
    workspace: &Workspace,
    target: &OutgoingRequest,
    request: &mut Request,
) -> Result<(), Withheld> {
    for name in [&target.connection, &target.signature].into_iter().flatten() {
        let connected = find(plane, workspace, name, request)?;
        sluice_egress::apply(request, core::masked(&connected.connection.scheme));
    }
    Ok(())
}

/// A connection of the request, if it may go where the request goes: its secrets are sent nowhere else, whatever a template or a
/// later change of the connection says.
fn find<'w>(
    plane: &Plane,
    workspace: &'w Workspace,
    name: &str,
    request: &Request,
) -> Result<&'w Arc<Connected>, Withheld> {
    let connected = workspace.connection(name).ok_or_else(|| Withheld::Refused {
        reason: FailureReason::ConnectionMissing,
        message: format!("the connection {name} is not there"),
    })?;
    let allowed = &connected.connection.allowed_hosts;
    if allowed.0.is_empty() || allowed.allow(checked_url(plane, request)?.host()) {
        return Ok(connected);
    }
    let message = format!("{name} may not be sent to this host");
    Err(Withheld::Refused { reason: FailureReason::HostNotAllowed, message })
}

fn checked_url(plane: &Plane, request: &Request) -> Result<CheckedUrl, Withheld> {
    check_url(&request.url, &plane.urls).map_err(|error| Withheld::Refused {
        reason: FailureReason::EgressDenied,
        message: format!("the URL is refused: {error}"),
    })
}

fn failed(connection: &Connection, failure: &AuthFailure) -> Withheld {
    Withheld::Refused { reason: FailureReason::AuthError, message: format!("{}: {failure}", connection.name) }
}

fn authenticate(connection: &Connection, token: Option<&Token>) -> Result<Credential, Withheld> {
    let quick = connection.scheme.steps_most() <= QUICK_STEPS;
    let credential = || core::credential(&connection.scheme, token);
    let credential = if quick { credential() } else { aside(credential) };
    credential.map_err(|failure| failed(connection, &failure))
}

/// Signs what is on the request so far: URL parameters and headers of credentials too (F52).
fn sign(plane: &Plane, connection: &Connection, request: &mut Request, message_id: &str) -> Result<(), Withheld> {
    if !connection.scheme.signs() {
        return Ok(());
    }
    let url = checked_url(plane, request)?;
    let finished = Finished {
        method: request.method.as_str(),
        url: &url,
        headers: &request.headers,
        body: &request.body,
        message_id,
        timestamp: plane.clock.now(),
    };
    let quick = connection.scheme.steps_most() <= QUICK_STEPS;
    let signature = || core::sign(&connection.scheme, &finished);
    let signature = if quick { signature() } else { aside(signature) };
    let signature = signature.map_err(|failure| failed(connection, &failure))?;
    sluice_egress::apply(request, signature);
    Ok(())
}

/// The token of a connection that fetches one.
async fn lend(
    plane: &Plane,
    workspace: &Workspace,
    connected: &Arc<Connected>,
) -> Result<Option<Lent<Arc<Token>>>, Withheld> {
    let Some(keeper) = &connected.token else { return Ok(None) };
    let name = &connected.connection.name;
    let lent = keeper.lend(|| fetch(plane.clone(), connected.clone())).await;
    if workspace.is_for_test() {
        return lent.map(Some).map_err(|come_back| withheld(name, come_back));
    }
    let runtime = plane.served.load();
    let in_force = runtime.workspace(&workspace.name).and_then(|served| served.connection(name));
    if !in_force.is_some_and(|in_force| Arc::ptr_eq(in_force, connected)) {
        // Changed while it waited: what was fetched with the old secret is not used (S16).
        let message = format!("{name} has changed");
        return Err(Withheld::NoToken { after: Duration::ZERO, message, under_way: false });
    }
    lent.map(Some).map_err(|come_back| withheld(name, come_back))
}

fn withheld(name: &str, ComeBack { after, error }: ComeBack) -> Withheld {
    let under_way = error.is_none();
    let message = error.map_or_else(|| "fetching a token takes long".to_owned(), |error| error.to_string());
    Withheld::NoToken { after, message: format!("{name}: {message}"), under_way }
}

/// One fetch, through the one way out.
async fn fetch(plane: Plane, connected: Arc<Connected>) -> Fetched<Arc<Token>> {
    let connection = &connected.connection;
    let fetched = exchange(&plane, connection).await;
    let (name, version) = (&connection.name, connection.version);
    match &fetched {
        Ok(token) => {
            plane.metrics.token_fetch("obtained");
            tracing::info!(connection = name, version, lifetime_s = token.lifetime.as_secs(), "a token was obtained");
        }
        Err(error) => {
            plane.metrics.token_fetch(error.label());
            tracing::warn!(connection = name, version, %error, "a token could not be fetched");
        }
    }
    let token = fetched?;
    let (lifetime, refresh_after) = (token.lifetime, token.refresh_after);
    Ok(Obtained { token: Arc::new(token), lifetime, refresh_after })
}

async fn exchange(plane: &Plane, connection: &Connection) -> Result<Token, FetchError> {
    let answered = ask(plane, connection).await?;
    aside(|| core::read_answer(&connection.scheme, answer(&answered), plane.clock.now())).map_err(FetchError::Answer)
}

/// What the endpoint answers to the connection's authorization request.
///
/// # Errors
/// It could not be asked.
pub(crate) async fn ask(plane: &Plane, connection: &Connection) -> Result<Exchange, FetchError> {
    let scheme = &connection.scheme;
    let asked = aside(|| core::auth_request(scheme, &plane.urls, plane.clock.now()));
    let asked = asked.map_err(FetchError::Request)?.ok_or(FetchError::Internal)?;
    let method = Method::from_bytes(asked.method.as_bytes()).map_err(|_| FetchError::Internal)?;
    let header = |(name, value): (String, sluice_core::seal::Secret)| (name, value.expose().to_owned());
    let request = Request {
        method,
        url: asked.url.expose().to_owned(),
        headers: asked.headers.into_iter().map(header).collect(),
        body: asked.body.map(|body| Bytes::copy_from_slice(body.expose().as_bytes())).unwrap_or_default(),
        // Should the endpoint be a trigger of ours: what it starts may not send anything, or fetching would go in a circle.
        hops: HOPS_MAX - 1,
    };
    plane.egress.send(request, FETCH_TIME).await.map_err(FetchError::Send)
}

pub(crate) fn answer(answered: &Exchange) -> Answer<'_> {
    Answer { status: answered.status, headers: &answered.headers, body: &answered.body, truncated: answered.truncated }
}
