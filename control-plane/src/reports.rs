//! Outcomes from data planes: stored once however often they are reported, then acknowledged.

use prost::Message as _;
use sluice_proto::sync::v1::{Outcome, ReportRequest};

use crate::error::Failure;
use crate::names;
use crate::shared::Shared;
use crate::store::{OutcomeRow, Transaction};

/// Most outcomes of one report.
const OUTCOMES_MAX: usize = 500;

/// Stores a report in one transaction. What belongs to no workspace of this store is dropped: its data plane could do
/// nothing about it, and would report it for ever.
pub(crate) async fn store(shared: &Shared, report: &ReportRequest) -> Result<(), Failure> {
    if report.outcomes.len() > OUTCOMES_MAX {
        let message = format!("has {} items; the limit is {OUTCOMES_MAX}", report.outcomes.len());
        return Err(Failure::field("outcomes", "TOO_MANY", message));
    }
    if report.outcomes.is_empty() {
        return Ok(());
    }
    let mut write = shared.store.write().await?;
    let count = i64::try_from(report.outcomes.len()).unwrap_or(i64::MAX);
    let mut sequence = write.outcome_sequences(count).await?;
    let now = shared.settings.clock.now();
    for outcome in &report.outcomes {
        if !store_one(&mut write, outcome, sequence, now).await? {
            let (workspace, data_plane) = (&outcome.workspace, &report.data_plane_id);
            tracing::warn!(
                workspace,
                data_plane,
                "dropped an outcome: its workspace or its names are not of this store"
            );
        }
        sequence += 1;
    }
    write.commit().await?;
    shared.outcomes.send_replace(());
    Ok(())
}

/// Stores a delivery and its event; whether they belong here.
async fn store_one(write: &mut Transaction, outcome: &Outcome, sequence: i64, now: i64) -> Result<bool, Failure> {
    let Ok(workspace) = names::workspace_id(&outcome.workspace, "workspace") else { return Ok(false) };
    let belongs =
        |name: &str, collection| names::parse(name, collection, "name").is_ok_and(|n| n.workspace == workspace);
    let delivery = outcome.delivery.as_ref().filter(|delivery| belongs(&delivery.name, "deliveries"));
    let event = outcome.event.as_ref().filter(|event| belongs(&event.name, "events"));
    let whole = delivery.is_some() == outcome.delivery.is_some() && event.is_some() == outcome.event.is_some();
    if !whole || (delivery.is_none() && event.is_none()) || write.workspace(&workspace).await?.is_none() {
        return Ok(false);
    }
    if let Some(delivery) = delivery {
        let row = OutcomeRow { sequence, body: delivery.encode_to_vec() };
        write.delivery_insert(&workspace, &delivery.name, delivery.state, &row, now).await?;
    }
    if let Some(event) = event {
        let row = OutcomeRow { sequence, body: event.encode_to_vec() };
        write.event_insert(&workspace, &event.name, &event.action, &row, now).await?;
    }
    Ok(true)
}
