//! Which connected data planes serve a revision: waited for, and told of those that do not.

use std::time::Duration;

use sluice_proto::admin::v1::{WaitServedRequest, WaitServedResponse};

use crate::error::Failure;
use crate::names;
use crate::shared::Shared;

/// How long is waited when the caller does not say.
const WAIT: Duration = Duration::from_secs(10);
/// Longest wait: below the deadline of every call.
const WAIT_MAX: Duration = Duration::from_secs(25);

/// Waits until every connected data plane has answered for the revision, or the time is over.
pub(crate) async fn wait(shared: &Shared, asked: &WaitServedRequest) -> Result<WaitServedResponse, Failure> {
    let id = names::workspace_id(&asked.parent, "parent")?;
    let row = shared.store.read().await?.workspace(&id).await?;
    let newest = row.ok_or_else(|| Failure::NotFound(asked.parent.clone()))?.revision;
    let revision = revision_of(asked.revision, newest)?;
    let limit = patience(asked)?;
    let mut changes = shared.data_planes.changes();
    let settled = async {
        loop {
            changes.borrow_and_update();
            shared.replicas.fresh().await;
            if shared.data_planes.have_answered(&asked.parent, revision) {
                return Ok(());
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = shared.stop.cancelled() => return Err(Failure::Stopping),
            }
        }
    };
    // When the time is over, what is known then is the answer.
    tokio::time::timeout(limit, settled).await.unwrap_or(Ok(()))?;
    Ok(shared.data_planes.serving_revision(&asked.parent, revision))
}

/// The revision that is asked for; 0 is the newest.
pub(crate) fn revision_of(asked: i64, newest: i64) -> Result<i64, Failure> {
    match asked {
        0 => Ok(newest),
        revision if (1..=newest).contains(&revision) => Ok(revision),
        revision => {
            let message = format!("is {revision}; the newest revision is {newest}");
            Err(Failure::field("revision", "OUT_OF_RANGE", message))
        }
    }
}

fn patience(asked: &WaitServedRequest) -> Result<Duration, Failure> {
    let Some(wanted) = asked.timeout else { return Ok(WAIT) };
    Duration::try_from(wanted)
        .ok()
        .filter(|wanted| *wanted <= WAIT_MAX)
        .ok_or_else(|| Failure::field("timeout", "OUT_OF_RANGE", format!("must be 0 s to {} s", WAIT_MAX.as_secs())))
}
