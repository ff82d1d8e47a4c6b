//! Commands to data planes: sent down a plane's sync stream, answered up the same stream, and given up after [`COMMAND_TIME`]. Which control
//! plane the stream is connected to makes no difference here ([`crate::replicas`]).
//! A command that was given up may have been done; every one can be sent again.

use std::time::Duration;

use sluice_proto::admin::v1::Problem;
use sluice_proto::sync::v1::command::Kind;
use sluice_proto::sync::v1::command_error::Code;
use sluice_proto::sync::v1::command_result::Outcome;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::error::{Failure, violation};
use crate::levels;
use crate::shared::Shared;

/// How long a data plane may take to answer.
const COMMAND_TIME: Duration = Duration::from_secs(10);
/// Commands that wait for a stream; further ones are refused.
pub(crate) const WAITING_MAX: usize = 64;

/// A command on its way to a stream.
#[derive(Debug)]
pub(crate) struct Order {
    /// Boxed: room for many of them is kept for every stream.
    pub(crate) kind: Box<Kind>,
    /// Dropped: the stream ended.
    pub(crate) reply: oneshot::Sender<Outcome>,
}

/// The way to the stream of a data plane.
pub(crate) type Orders = mpsc::Sender<Order>;

/// Has `data_plane` do something. `subject` is what it is about.
///
/// # Errors
/// Why it was not done, or that it is not known whether it was.
pub(crate) async fn ask(shared: &Shared, data_plane: &str, subject: &str, kind: Kind) -> Result<Outcome, Failure> {
    let answer = give(shared, data_plane, kind).await?;
    hear(data_plane, subject, answer, COMMAND_TIME).await
}

/// As [`ask`], but waits for its turn while the commands of the data plane are many.
///
/// # Errors
/// As those of [`ask`].
pub(crate) async fn ask_in_turn(
    shared: &Shared,
    data_plane: &str,
    subject: &str,
    kind: Kind,
) -> Result<Outcome, Failure> {
    let (reply, answer) = oneshot::channel();
    let orders = orders(shared, data_plane).await?;
    let sent = tokio::time::timeout(COMMAND_TIME, orders.send(Order { kind: Box::new(kind), reply })).await;
    let sent = sent.map_err(|_late| Failure::Overloaded("commands of a data plane"))?;
    sent.map_err(|_gone| Failure::DataPlaneAway(data_plane.to_owned()))?;
    hear(data_plane, subject, answer, COMMAND_TIME).await
}

/// Has any connected data plane that sees `workspace` do something once, and says which. Another one is asked only if the one before
/// has certainly not begun. `subject` is the field that a data plane may refuse.
///
/// # Errors
/// Nobody could do it (`nobody`, or the last one's reason), or it is not known whether it was done.
pub(crate) async fn ask_any(
    shared: &Shared,
    (workspace, subject): (&str, &str),
    kind: Kind,
    patience: Duration,
    nobody: fn() -> Failure,
) -> Result<(String, Outcome), Failure> {
    let mut planes = able(shared, workspace).await;
    if let Some(first) = Uuid::new_v4().as_u64_pair().1.checked_rem(planes.len() as u64) {
        planes.rotate_left(usize::try_from(first).unwrap_or_default());
    }
    let mut refused = nobody();
    for data_plane in planes {
        let answered = match give(shared, &data_plane, kind.clone()).await {
            Ok(answer) => hear(&data_plane, subject, answer, patience).await,
            Err(failure) => {
                refused = failure;
                continue;
            }
        };
        match answered {
            Err(failure @ (Failure::DataPlaneTooOld(_) | Failure::Overloaded(_))) => refused = failure,
            answered => return answered.map(|outcome| (data_plane, outcome)),
        }
    }
    Err(refused)
}

/// The connected data planes that take commands and see `workspace`. One that has just connected elsewhere is known when it is asked for.
pub(crate) async fn able(shared: &Shared, workspace: &str) -> Vec<String> {
    let known = shared.data_planes.taking_commands(Some(workspace));
    if !known.is_empty() {
        return known;
    }
    shared.replicas.fresh().await;
    shared.data_planes.taking_commands(Some(workspace))
}

/// The way to a data plane, wherever it is connected.
///
/// # Errors
/// It is not connected, or takes no commands.
pub(crate) async fn orders(shared: &Shared, data_plane: &str) -> Result<Orders, Failure> {
    if let Ok(orders) = shared.data_planes.orders(data_plane) {
        return Ok(orders);
    }
    shared.replicas.fresh().await;
    shared.data_planes.orders(data_plane)
}

/// Puts a command in line for a data plane's stream.
async fn give(shared: &Shared, data_plane: &str, kind: Kind) -> Result<oneshot::Receiver<Outcome>, Failure> {
    let (reply, answer) = oneshot::channel();
    let orders = orders(shared, data_plane).await?;
    // Configuration that comes with a command is not cut down either.
    if levels::of_command(&kind)? > shared.data_planes.config_level(data_plane) {
        return Err(Failure::DataPlaneTooOld(data_plane.to_owned()));
    }
    orders.try_send(Order { kind: Box::new(kind), reply }).map_err(|refused| match refused {
        mpsc::error::TrySendError::Full(_) => Failure::Overloaded("commands of a data plane"),
        mpsc::error::TrySendError::Closed(_) => Failure::DataPlaneAway(data_plane.to_owned()),
    })?;
    Ok(answer)
}

/// Waits for what came of a command.
async fn hear(
    data_plane: &str,
    subject: &str,
    answer: oneshot::Receiver<Outcome>,
    patience: Duration,
) -> Result<Outcome, Failure> {
    let away = || Failure::DataPlaneAway(data_plane.to_owned());
    let outcome = tokio::time::timeout(patience, answer).await.map_err(|_late| away())?.map_err(|_gone| away())?;
    let Outcome::Error(error) = outcome else { return Ok(outcome) };
    tracing::info!(data_plane, code = error.code().as_str_name(), message = error.message, "a command was refused");
    let of = subject.to_owned();
    Err(match error.code() {
        Code::JobNotKept => Failure::DeliveryNotKept(of),
        Code::JobInWork => Failure::DeliveryInWork(of),
        Code::JobEnded => Failure::DeliveryEnded(of),
        Code::WorkspaceNotServed => Failure::NoDataPlane(format!("data plane `{data_plane}` does not serve it yet")),
        Code::DraftInvalid => {
            let told = |problem: Problem| {
                violation(
                    &problem.field,
                    "REFUSED_BY_DATA_PLANE",
                    format!("data plane `{data_plane}`: {}", problem.message),
                )
            };
            Failure::Draft { name: of, violations: error.problems.into_iter().map(told).collect() }
        }
        Code::LimitReached => Failure::Overloaded("open captures of a data plane"),
        Code::UnknownCommand => Failure::DataPlaneTooOld(data_plane.to_owned()),
        Code::ConfigurationInvalid => Failure::field(subject, "NOT_USABLE", error.message),
        Code::TooManyTests => Failure::Overloaded("tests of a data plane"),
        Code::StepRemoved => Failure::NotPublished(of),
        Code::Unspecified | Code::Unavailable => away(),
    })
}
