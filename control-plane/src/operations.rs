//! Operations: work that goes on after its call was answered. [`run`] carries out what is written down, a step of each in turn; what
//! a step is, [`replay`] and [`data_keys`] know. Whatever is cut off is repeated: a step is written down when it is done, and only by who has
//! read the one before it.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use sluice_proto::admin::v1::operation::{State, Work};
use sluice_proto::admin::v1::{DataKeyRotation, DeliveryFilter, Operation, Replay, ReplayPlan};

use crate::clock::timestamp;
use crate::error::Failure;
use crate::shared::Shared;
use crate::store::{OperationKind, OperationRow};
use crate::wakes::Topic;
use crate::{data_keys, replay};

/// Operations of one workspace that run at once.
pub(crate) const RUNNING_MAX: i64 = 20;
/// Operations that take turns.
const TURNS_MAX: i64 = 1000;
/// How soon an operation that waits for something is looked at again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often is looked when nothing wakes.
const EVERY: Duration = Duration::from_secs(30);

/// An operation as it is shown.
pub(crate) fn present(row: &OperationRow) -> Result<Operation, Failure> {
    let broken = |error: prost::DecodeError| Failure::Internal(format!("stored operation {}: {error}", row.name));
    let work = match row.kind {
        OperationKind::Replay => Work::Replay(Replay {
            filter: Some(DeliveryFilter::decode(row.filter.as_slice()).map_err(broken)?),
            plan: Some(ReplayPlan::decode(row.plan.as_slice()).map_err(broken)?),
            done: row.done,
            failed: row.failed,
        }),
        OperationKind::DataKeyRotation => {
            let planned = DataKeyRotation::decode(row.plan.as_slice()).map_err(broken)?;
            Work::DataKeyRotation(DataKeyRotation { done: row.done, unreadable: row.failed, ..planned })
        }
    };
    Ok(Operation {
        name: row.name.clone(),
        state: i32::try_from(row.state).unwrap_or_default(),
        create_time: Some(timestamp(row.create_time)),
        update_time: Some(timestamp(row.update_time)),
        end_time: (row.end_time > 0).then(|| timestamp(row.end_time)),
        message: row.message.clone(),
        work: Some(work),
    })
}

/// Carries out all operations, turn by turn, until the server stops, while no other control plane does.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut wake = shared.wakes.operations();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.lead.ours() => {}
        }
        // Before looking, so that nothing that is written down meanwhile is missed.
        drop(wake.borrow_and_update());
        let wait = match turn(&shared).await {
            Ok(wait) => wait,
            Err(failure) => {
                // Logs it; what is written down is tried again.
                let _told = failure.into_status();
                Some(AGAIN)
            }
        };
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(wait.unwrap_or(EVERY)) => {}
            _ = wake.changed(), if wait.is_none() => {}
        }
    }
}

/// One step of every operation; how long to wait after it.
async fn turn(shared: &Shared) -> Result<Option<Duration>, Failure> {
    let states = [State::Running as i64, State::Cancelling as i64];
    let rows = shared.store.read().await?.operations_in(states, TURNS_MAX).await?;
    let (mut pace, mut waits) = (Duration::ZERO, false);
    let any = !rows.is_empty();
    for row in rows {
        if shared.stop.is_cancelled() || !shared.lead.is_ours() {
            break;
        }
        let stepped = match row.kind {
            OperationKind::Replay => replay::step(shared, row).await,
            OperationKind::DataKeyRotation => data_keys::step(shared, row).await,
        };
        match stepped {
            Ok(Stepped::Moved(rest)) => pace += rest,
            Ok(Stepped::Waits) => waits = true,
            Ok(Stepped::Ended) => {}
            Err(failure) => {
                // Logs it. The others do not wait for this one.
                let _told = failure.into_status();
                waits = true;
            }
        }
    }
    Ok(match (any, !pace.is_zero(), waits) {
        (false, ..) => None,
        (true, true, _) => Some(pace),
        (true, false, true) => Some(AGAIN),
        (true, false, false) => Some(Duration::ZERO),
    })
}

/// What became of a step.
pub(crate) enum Stepped {
    /// It has moved on; the next step of anything comes after this time.
    Moved(Duration),
    /// Nothing can be done now.
    Waits,
    Ended,
}

/// Writes down how far an operation came, and tells who watches. `false`: another control plane was faster, and nothing was written.
pub(crate) async fn moved(shared: &Shared, row: &mut OperationRow) -> Result<bool, Failure> {
    row.update_time = shared.settings.clock.now();
    let mut tx = shared.store.write().await?;
    let is_ours = tx.operation_moved(row).await?;
    tx.commit().await?;
    shared.tell(Topic::Operations);
    Ok(is_ours)
}

/// Says what an operation waits for, once.
pub(crate) async fn wait(shared: &Shared, mut row: OperationRow, why: &str) -> Result<Stepped, Failure> {
    let message = format!("waits: {why}");
    if row.message != message {
        row.message = message;
        // Whoever was faster says what it waits for.
        let _is_ours = moved(shared, &mut row).await?;
    }
    Ok(Stepped::Waits)
}

pub(crate) async fn end(shared: &Shared, row: &OperationRow, state: State) -> Result<Stepped, Failure> {
    let now = shared.settings.clock.now();
    let mut tx = shared.store.write().await?;
    tx.operation_state(&row.name, (row.state, state as i64), now, now).await?;
    tx.commit().await?;
    tracing::info!(operation = row.name, done = row.done, failed = row.failed, ?state, "an operation has ended");
    shared.tell(Topic::Operations);
    Ok(Stepped::Ended)
}
