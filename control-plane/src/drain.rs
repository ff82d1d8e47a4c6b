//! Draining one data plane: it is asked to end its work, and how far it is.

use std::time::Duration;

use prost::Message;
use sluice_proto::admin::v1::{
    DrainDataPlaneRequest, DrainDataPlaneResponse, ResumeDataPlaneRequest, ResumeDataPlaneResponse,
};
use sluice_proto::sync::v1::command::Kind;
use sluice_proto::sync::v1::command_result::Outcome;
use sluice_proto::sync::v1::{DrainPlane, DrainedPlane};
use sluice_tls::identity::is_id;

use crate::call::{Begun, Call};
use crate::commands::{ask, orders};
use crate::error::Failure;
use crate::shared::Shared;

/// How long triggers are still taken when the caller does not say.
const GRACE: Duration = Duration::from_secs(10);
/// The longest that this may be.
const GRACE_MAX: Duration = Duration::from_secs(3600);

/// Has a data plane end its work, and says how far it is.
pub(crate) async fn drain(
    shared: &Shared,
    call: Call,
    asked: &DrainDataPlaneRequest,
) -> Result<DrainDataPlaneResponse, Failure> {
    let grace = match asked.grace {
        None => Some(GRACE),
        Some(grace) => Duration::try_from(grace).ok().filter(|grace| *grace <= GRACE_MAX),
    };
    let message = || format!("must be 0 s to {} s", GRACE_MAX.as_secs());
    let grace = grace.ok_or_else(|| Failure::field("grace", "OUT_OF_RANGE", message()))?;
    let grace = prost_types::Duration::try_from(grace).ok();
    tell(shared, call, &asked.name, DrainPlane { grace, resume: false }, |told| DrainDataPlaneResponse {
        drained: told.refuses_triggers && told.jobs == 0 && told.reports == 0,
        open_deliveries: told.jobs,
        unreported_outcomes: told.reports,
    })
    .await
}

/// Has a data plane take triggers again.
pub(crate) async fn resume(
    shared: &Shared,
    call: Call,
    asked: &ResumeDataPlaneRequest,
) -> Result<ResumeDataPlaneResponse, Failure> {
    let wanted = DrainPlane { grace: None, resume: true };
    tell(shared, call, &asked.name, wanted, |_| ResumeDataPlaneResponse {}).await
}

async fn tell<A: Message + Default>(
    shared: &Shared,
    call: Call,
    name: &str,
    wanted: DrainPlane,
    answer: impl FnOnce(DrainedPlane) -> A,
) -> Result<A, Failure> {
    let id = name.strip_prefix("dataPlanes/").filter(|id| is_id(id));
    let id = id.ok_or_else(|| Failure::field("name", "NAME_INVALID", "must be `dataPlanes/{id}`"))?;
    if let Some(known) = call.known(shared).await? {
        return Ok(known);
    }
    if call.validate_only {
        return orders(shared, id).await.map(|_orders| A::default());
    }
    let draining = !wanted.resume;
    let Outcome::Drained(told) = ask(shared, id, "name", Kind::Drain(wanted)).await? else {
        return Err(Failure::Internal("a command was answered with something else".to_owned()));
    };
    shared.data_planes.set_draining(id, draining);
    // Whoever is told that it is done finds it so at every control plane.
    shared.replicas.fresh().await;
    match call.begin(shared).await? {
        Begun::New(change) => change.finish(shared, answer(told)).await,
        Begun::Known(known) => Ok(known),
    }
}
