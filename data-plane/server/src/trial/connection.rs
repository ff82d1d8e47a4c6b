//! Connections that are tried out (R048): a token is fetched beside all that deliveries hold, looked at, and dropped.

use sluice_core::credentials::{self as core, AuthFailure, Credential, Finished, MaskedAnswer, Placed};
use sluice_core::model::{Connection, Purpose};
use sluice_core::redact::Redactor;
use sluice_egress::Exchange;
use sluice_proto::admin::v1::{HttpHeader, PlacedCredential, ReceivedResponse, TokenError};
use sluice_proto::sync::v1::command_error::Code;
use sluice_proto::sync::v1::{CommandError, TestConnection, TestedConnection};
use uuid::Uuid;

use super::{compiled, place};
use crate::aside::aside;
use crate::commands::refuse;
use crate::credentials::{FetchError, answer, ask};
use crate::outcome::SHOWN_BYTES;
use crate::plane::Plane;

/// Where a request would go whose signature is tried.
const SAMPLE_URL: &str = "https://example.com/";

/// Tries a connection.
///
/// # Errors
/// Nothing was sent: there is no place, or what came with the command cannot be used.
pub(crate) async fn connection(plane: &Plane, asked: TestConnection) -> Result<TestedConnection, CommandError> {
    let _place = place(plane)?;
    let workspace = compiled(plane, &asked.workspace, asked.configuration).await?;
    let connected = workspace.connection(&asked.connection);
    let connected = connected
        .ok_or_else(|| refuse(Code::ConfigurationInvalid, "the connection is not part of what came with the test"))?;
    let connection = &connected.connection;
    let tested = match connection.scheme.fetches_token() {
        true => fetched(plane, connection).await,
        false => rendered(plane, connection),
    };
    let (workspace, error) = (&asked.workspace, tested.error().as_str_name());
    tracing::info!(test = true, workspace, status = tested.status, error, "a connection was tried");
    Ok(tested)
}

/// Fetches a token and shows what came.
async fn fetched(plane: &Plane, connection: &Connection) -> TestedConnection {
    let answered = match ask(plane, connection).await {
        Ok(answered) => answered,
        Err(error) => return failed(&error),
    };
    let now = plane.clock.now();
    let (scheme, given) = (&connection.scheme, answer(&answered));
    let (placed, read) =
        aside(|| (core::placements(scheme, Some(given), now), core::read_answer(scheme, given, now).map(drop)));
    let credential = Credential {
        headers: placed.iter().filter_map(|one| Some((one.name.clone(), one.value.clone().ok()?))).collect(),
        url_parameters: Vec::new(),
    };
    let redactor = Redactor::of_attempt([(scheme, &credential)]);
    let masked = core::mask_answer(given, &redactor);
    let tested = TestedConnection {
        status: answered.status.into(),
        response: Some(shown(masked, &answered)),
        placements: placed.iter().map(placement).collect(),
        ..TestedConnection::default()
    };
    match read {
        Ok(()) => tested,
        Err(failure) => {
            let error = FetchError::Answer(failure);
            TestedConnection { error: error.shown().into(), message: error.to_string(), ..tested }
        }
    }
}

fn failed(error: &FetchError) -> TestedConnection {
    TestedConnection { error: error.shown().into(), message: error.to_string(), ..TestedConnection::default() }
}

/// Renders and signs without asking anybody.
fn rendered(plane: &Plane, connection: &Connection) -> TestedConnection {
    let scheme = &connection.scheme;
    let placed = match scheme.purpose() {
        Purpose::Authenticates => core::placements(scheme, None, plane.clock.now()),
        Purpose::Signs => Vec::new(),
    };
    let of_placement = placed.iter().find_map(|placed| placed.value.as_ref().err().cloned());
    let failure = of_placement.or_else(|| signature_failure(plane, connection));
    let tested = TestedConnection { placements: placed.iter().map(placement).collect(), ..TestedConnection::default() };
    match failure {
        // Whether the request has it, the request says.
        None | Some(AuthFailure::HeaderMissing(_)) => tested,
        Some(failure) => TestedConnection { error: TokenError::Request.into(), message: failure.to_string(), ..tested },
    }
}

fn signature_failure(plane: &Plane, connection: &Connection) -> Option<AuthFailure> {
    if !connection.scheme.signs() {
        return None;
    }
    let url = sluice_core::address::check_url(SAMPLE_URL, &plane.urls).ok()?;
    let message_id = Uuid::new_v4().to_string();
    let finished = Finished {
        method: "POST",
        url: &url,
        headers: &[],
        body: b"{}",
        message_id: &message_id,
        timestamp: plane.clock.now(),
    };
    core::sign(&connection.scheme, &finished).err()
}

fn placement(placed: &Placed) -> PlacedCredential {
    let (value, error) = match core::mask_placed(placed) {
        Ok(value) => (value, String::new()),
        Err(failure) => (String::new(), failure.to_string()),
    };
    PlacedCredential { field: placed.field.clone(), name: placed.name.clone(), value, error }
}

fn shown(masked: MaskedAnswer, answered: &Exchange) -> ReceivedResponse {
    let MaskedAnswer { headers, mut body } = masked;
    let cut = body.len() > SHOWN_BYTES;
    body.truncate(SHOWN_BYTES);
    let headers = headers.into_iter().map(|(name, value)| HttpHeader { name, value }).collect();
    ReceivedResponse { headers, body: body.into(), body_truncated: cut || answered.truncated }
}
