//! Outcomes from data planes: stored once however often they are reported, then acknowledged. What was sent, what was answered
//! and what came in rests sealed with the workspace's data key.

use std::collections::HashMap;

use prost::Message as _;
use sluice_proto::admin::v1::{Attempt, Delivery};
use sluice_proto::sync::v1::{AcceptedRequest, Outcome, ReportRequest};

use crate::clock::{UnixMillis, millis};
use crate::error::Failure;
use crate::names;
use crate::secrets::Vault;
use crate::shared::Shared;
use crate::store::{DeliveryRow, IncomingRequestRow, OutcomeRow, Transaction};

/// Most outcomes of one report.
const OUTCOMES_MAX: usize = 500;
/// The sealed field of a delivery: what was sent and answered at one attempt.
pub(crate) const EXCHANGE: &str = "exchange";
/// The sealed field of an incoming request.
pub(crate) const ENVELOPE: &str = "envelope";

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
    let mut tx = shared.store.write().await?;
    let count = i64::try_from(report.outcomes.len()).unwrap_or(i64::MAX);
    let sequence = tx.outcome_sequences(count).await?;
    let now = shared.settings.clock.now();
    let mut storing = Storing { shared, tx, vaults: HashMap::new(), data_plane: &report.data_plane_id, sequence, now };
    for outcome in &report.outcomes {
        if !storing.one(outcome).await? {
            let (workspace, data_plane) = (&outcome.workspace, &report.data_plane_id);
            tracing::warn!(
                workspace,
                data_plane,
                "dropped an outcome: its workspace or its names are not of this store"
            );
        }
        storing.sequence += 1;
    }
    storing.tx.commit().await?;
    shared.outcomes.send_replace(());
    Ok(())
}

/// One report on its way into the store.
struct Storing<'a> {
    shared: &'a Shared,
    tx: Transaction,
    /// By the id of the workspace; `None`: it is not of this store.
    vaults: HashMap<String, Option<Vault>>,
    data_plane: &'a str,
    sequence: i64,
    now: UnixMillis,
}

impl Storing<'_> {
    /// Stores a delivery and what belongs to it; whether it belongs here.
    async fn one(&mut self, outcome: &Outcome) -> Result<bool, Failure> {
        let Ok(workspace) = names::workspace_id(&outcome.workspace, "workspace") else { return Ok(false) };
        let belongs =
            |name: &str, collection| names::parse(name, collection, "name").is_ok_and(|n| n.workspace == workspace);
        let shown = outcome.request.as_ref().and_then(|accepted| accepted.request.as_ref());
        let whole = outcome.delivery.as_ref().is_none_or(|delivery| belongs(&delivery.name, "deliveries"))
            && outcome.event.as_ref().is_none_or(|event| belongs(&event.name, "events"))
            && shown.is_none_or(|request| belongs(&request.name, "incomingRequests"));
        if !whole || (outcome.delivery.is_none() && outcome.event.is_none()) || !self.knows(&workspace).await? {
            return Ok(false);
        }
        if let Some(accepted) = &outcome.request {
            self.request(&workspace, accepted).await?;
        }
        if let Some(delivery) = &outcome.delivery
            && !self.delivery(&workspace, delivery, outcome.order).await?
        {
            // It is known already, and so is its event.
            return Ok(true);
        }
        if let Some(event) = &outcome.event {
            let row = OutcomeRow { sequence: self.sequence, body: event.encode_to_vec() };
            self.tx.event_put(&workspace, &event.name, &event.action, &row, self.now).await?;
        }
        Ok(true)
    }

    async fn knows(&mut self, workspace: &str) -> Result<bool, Failure> {
        if !self.vaults.contains_key(workspace) {
            let row = self.tx.workspace(workspace).await?;
            let vault = row.map(|row| self.shared.secrets.vault(&row)).transpose()?;
            self.vaults.insert(workspace.to_owned(), vault);
        }
        Ok(self.vaults.get(workspace).is_some_and(Option::is_some))
    }

    fn seal(&self, workspace: &str, object: &str, field: &str, version: i64, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
        let vault = self.vaults.get(workspace).and_then(Option::as_ref);
        vault.map_or_else(|| Ok(Vec::new()), |vault| vault.seal(object, field, version, bytes))
    }

    /// Keeps a trigger for replays.
    async fn request(&mut self, workspace: &str, accepted: &AcceptedRequest) -> Result<(), Failure> {
        let Some(request) = &accepted.request else { return Ok(()) };
        let row = IncomingRequestRow {
            workspace: workspace.to_owned(),
            name: request.name.clone(),
            incoming: request.incoming_integration.clone(),
            accept_time: request.accept_time.as_ref().map_or(self.now, millis),
            body: request.encode_to_vec(),
            envelope: self.seal(workspace, &request.name, ENVELOPE, 1, &accepted.envelope)?,
        };
        Ok(self.tx.incoming_request_put(&row, self.sequence, self.now).await?)
    }

    /// Stores where a delivery stands; `false` when this or something newer is known.
    async fn delivery(&mut self, workspace: &str, delivery: &Delivery, order: i64) -> Result<bool, Failure> {
        let mut shown = delivery.clone();
        self.data_plane.clone_into(&mut shown.data_plane);
        let request = shown.request.take();
        let response = shown.attempts.last_mut().and_then(|attempt| attempt.response.take());
        for attempt in &mut shown.attempts {
            attempt.response = None;
        }
        let last = shown.attempts.last();
        let (number, status) = last.map_or((0, 0), |last| (last.number, last.status));
        let row = DeliveryRow {
            workspace: workspace.to_owned(),
            name: shown.name.clone(),
            body: shown.encode_to_vec(),
            state: shown.state.into(),
            reason: shown.reason.into(),
            status: status.into(),
            workflow: shown.workflow.clone(),
            step: shown.step_id.clone(),
            incoming: shown.incoming_integration.clone(),
            trigger_id: shown.trigger_id.clone(),
            operation: shown.operation.clone(),
            accept_time: shown.accept_time.as_ref().map_or(self.now, millis),
            order,
        };
        if !self.tx.delivery_put(&row, self.sequence, self.now).await? {
            return Ok(false);
        }
        if request.is_some() || response.is_some() {
            let attempts = vec![Attempt { response, ..Attempt::default() }];
            let exchange = Delivery { request, attempts, ..Delivery::default() }.encode_to_vec();
            let sealed = self.seal(workspace, &row.name, EXCHANGE, number.into(), &exchange)?;
            self.tx.exchange_put(&row.name, number.into(), &sealed).await?;
        }
        if order > 1 && !row.trigger_id.is_empty() {
            let request = format!("{}/incomingRequests/{}", names::workspace_name(workspace), row.trigger_id);
            self.tx.incoming_request_touch(workspace, &request, self.now).await?;
        }
        Ok(true)
    }
}
