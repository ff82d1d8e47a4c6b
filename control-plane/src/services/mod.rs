//! One service each: unpack the request, call what does the work, pack the answer.

mod api_keys;
mod audit;
mod captures;
mod configuration;
mod connections;
mod data_planes;
mod deliveries;
mod enrollment;
mod event_definitions;
mod events;
mod incoming_integrations;
mod incoming_requests;
mod join_tokens;
mod master_keys;
mod operations;
mod outgoing_integrations;
mod roles;
mod schema_templates;
mod secrets;
mod service_accounts;
mod snippets;
mod sync;
mod test_profiles;
mod tests;
mod token_keys;
mod versions;
mod workflows;
mod workspaces;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::door::Caller;
use crate::enrolment::Rights;
use crate::error::Failure;
use crate::shared::Shared;

/// What every unary method returns.
type Answer<T> = Result<Response<T>, Status>;

/// All services of one control plane.
#[derive(Clone)]
pub(crate) struct Services(pub(crate) Arc<Shared>);

fn pack<T>(result: Result<T, Failure>) -> Answer<T> {
    result.map(Response::new).map_err(Status::from)
}

/// What the data plane that calls may see.
fn rights<T>(request: &Request<T>) -> Result<Rights, Failure> {
    let caller = request.extensions().get::<Caller>();
    let caller = caller.ok_or_else(|| Failure::Internal("a request came past the door".to_owned()))?;
    Ok(caller.access.rights.clone())
}
