//! What a connection adds to a request right before it is sent (D08): the credentials in force at that moment. They are never
//! part of what the inbox keeps (I7).

use sluice_core::credentials::credential;
use sluice_core::model::OutgoingRequest;
use sluice_core::redact::Redactor;
use sluice_core::response_event::FailureReason;
use sluice_egress::Request;

use crate::aside::{QUICK_STEPS, aside};
use crate::runtime::Workspace;

/// Why a request is not sent: it would go without its credentials.
#[derive(Debug)]
pub(crate) struct Withheld {
    pub(crate) reason: FailureReason,
    /// Holds no secret.
    pub(crate) message: String,
}

/// Puts the credentials of the request's connection on it; with what must not come back of them (R11).
pub(crate) fn put(
    request: &mut Request,
    workspace: &Workspace,
    target: &OutgoingRequest,
) -> Result<Redactor, Withheld> {
    let Some(name) = &target.connection else { return Ok(Redactor::default()) };
    let connection = workspace.connection(name).ok_or_else(|| Withheld {
        reason: FailureReason::ConnectionMissing,
        message: format!("the connection {name} is not there"),
    })?;
    let quick = connection.scheme.steps_most() <= QUICK_STEPS;
    let render = || credential(&connection.scheme, None);
    let credential = if quick { render() } else { aside(render) };
    let credential = credential
        .map_err(|failure| Withheld { reason: FailureReason::AuthError, message: format!("{name}: {failure}") })?;
    let redactor = Redactor::of_attempt([(&connection.scheme, &credential)]);
    sluice_egress::apply(request, credential);
    Ok(redactor)
}
