//! Outcomes from data planes: stored once however often they are reported, then acknowledged. What was sent, what was answered
//! and what came in rests sealed with the workspace's data key.

use std::collections::{HashMap, HashSet};

use prost::Message as _;
use sluice_proto::admin::v1::{Attempt, Delivery, Event};
use sluice_proto::sync::v1::{AcceptedRequest, Outcome, ReportRequest};

use crate::clock::{UnixMillis, millis};
use crate::crash::Moment;
use crate::enrolment::Scope;
use crate::error::Failure;
use crate::names;
use crate::secrets::Vault;
use crate::shared::Shared;
use crate::store::{DeliveryRow, EventRow, IncomingRequestRow, Transaction};
use crate::wakes::Topic;

/// Most outcomes of one report.
const OUTCOMES_MAX: usize = 500;
/// The sealed field of a delivery: what was sent and answered at one attempt.
pub(crate) const EXCHANGE: &str = "exchange";
/// The sealed field of an incoming request.
pub(crate) const ENVELOPE: &str = "envelope";

/// Stores a report in one transaction. What belongs to no workspace of this store is dropped: its data plane could do
/// nothing about it, and would report it for ever.
pub(crate) async fn store(shared: &Shared, scope: &Scope, report: ReportRequest) -> Result<(), Failure> {
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
    let data_plane = &report.data_plane_id;
    let mut storing = Storing { shared, scope, tx, vaults: HashMap::new(), data_plane, now };
    let mut batch = Batch::default();
    for (sequence, mut outcome) in (sequence..).zip(report.outcomes) {
        let Some(told) = storing.read(sequence, &mut outcome).await? else {
            tracing::warn!(
                workspace = outcome.workspace,
                data_plane,
                "dropped an outcome: its workspace or its names are not of this store, or not its data plane's to tell of"
            );
            continue;
        };
        // What is told twice in one report is stored in its order.
        if batch.holds(&told) {
            storing.write(std::mem::take(&mut batch)).await?;
        }
        batch.push(told);
    }
    storing.write(batch).await?;
    shared.settings.reached(Moment::ReportWritten, "");
    storing.tx.commit().await?;
    shared.settings.reached(Moment::ReportCommitted, "");
    shared.tell(Topic::Outcomes);
    Ok(())
}

/// Stores the event of a test in the workspace `parent`, among those of deliveries.
pub(crate) async fn store_event(shared: &Shared, parent: &str, event: &Event) -> Result<(), Failure> {
    let name = names::parse(&event.name, "events", "name")?;
    let workspace = names::workspace_id(parent, "parent")?;
    if name.workspace != workspace {
        return Err(Failure::Internal(format!("a data plane told an event of another workspace than {parent}")));
    }
    let mut tx = shared.store.write().await?;
    let sequence = tx.outcome_sequences(1).await?;
    let row = event_row(sequence, &workspace, event);
    tx.events_put(&[&row], shared.settings.clock.now()).await?;
    tx.commit().await?;
    shared.tell(Topic::Outcomes);
    Ok(())
}

fn event_row(sequence: i64, workspace: &str, event: &Event) -> EventRow {
    EventRow {
        sequence,
        workspace: workspace.to_owned(),
        name: event.name.clone(),
        action: event.action.clone(),
        body: event.encode_to_vec(),
    }
}

/// One outcome as it is stored.
struct Told {
    sequence: i64,
    request: Option<IncomingRequestRow>,
    delivery: Option<DeliveryRow>,
    /// What was sent and answered, sealed, under the number of its attempt.
    exchange: Option<(i64, Vec<u8>)>,
    event: Option<EventRow>,
}

/// Outcomes that are stored together: no two of one delivery or one event.
#[derive(Default)]
struct Batch {
    told: Vec<Told>,
    names: HashSet<String>,
}

impl Batch {
    fn holds(&self, told: &Told) -> bool {
        told.names().any(|name| self.names.contains(name))
    }

    fn push(&mut self, told: Told) {
        self.names.extend(told.names().map(str::to_owned));
        self.told.push(told);
    }
}

impl Told {
    fn names(&self) -> impl Iterator<Item = &str> {
        let delivery = self.delivery.as_ref().map(|row| row.name.as_str());
        delivery.into_iter().chain(self.event.as_ref().map(|row| row.name.as_str()))
    }
}

/// A report on its way into the store.
struct Storing<'a> {
    shared: &'a Shared,
    scope: &'a Scope,
    tx: Transaction,
    /// By the id of the workspace; `None`: it is not of this store.
    vaults: HashMap<String, Option<Vault>>,
    data_plane: &'a str,
    now: UnixMillis,
}

impl Storing<'_> {
    /// A delivery and what belongs to it, taken out of an outcome; nothing if it does not belong here.
    async fn read(&mut self, sequence: i64, outcome: &mut Outcome) -> Result<Option<Told>, Failure> {
        let Ok(workspace) = names::workspace_id(&outcome.workspace, "workspace") else { return Ok(None) };
        let belongs =
            |name: &str, collection| names::parse(name, collection, "name").is_ok_and(|n| n.workspace == workspace);
        let shown = outcome.request.as_ref().and_then(|accepted| accepted.request.as_ref());
        let whole = outcome.delivery.as_ref().is_none_or(|delivery| belongs(&delivery.name, "deliveries"))
            && outcome.event.as_ref().is_none_or(|event| belongs(&event.name, "events"))
            && shown.is_none_or(|request| belongs(&request.name, "incomingRequests"));
        // Of what its data plane does not see, nothing is taken (A15).
        let whole = whole && self.scope.sees(&outcome.workspace);
        if !whole || (outcome.delivery.is_none() && outcome.event.is_none()) || !self.knows(&workspace).await? {
            return Ok(None);
        }
        let request = outcome.request.as_ref().map(|accepted| self.request(&workspace, accepted));
        let order = outcome.order;
        let delivery = outcome.delivery.take().map(|delivery| self.delivery(&workspace, delivery, order));
        let (delivery, exchange) = delivery.transpose()?.unzip();
        let event = outcome.event.as_ref().map(|event| event_row(sequence, &workspace, event));
        Ok(Some(Told {
            sequence,
            request: request.transpose()?.flatten(),
            delivery,
            exchange: exchange.flatten(),
            event,
        }))
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

    /// A trigger, which is kept for replays.
    fn request(&self, workspace: &str, accepted: &AcceptedRequest) -> Result<Option<IncomingRequestRow>, Failure> {
        let Some(request) = &accepted.request else { return Ok(None) };
        Ok(Some(IncomingRequestRow {
            workspace: workspace.to_owned(),
            name: request.name.clone(),
            incoming: request.incoming_integration.clone(),
            accept_time: request.accept_time.as_ref().map_or(self.now, millis),
            body: request.encode_to_vec(),
            envelope: self.seal(workspace, &request.name, ENVELOPE, 1, &accepted.envelope)?,
        }))
    }

    /// Where a delivery stands, and what its last attempt exchanged.
    fn delivery(&self, workspace: &str, mut shown: Delivery, order: i64) -> Result<(DeliveryRow, Exchange), Failure> {
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
            body: shown.encode_to_vec(),
            name: shown.name,
            state: shown.state.into(),
            reason: shown.reason.into(),
            status: status.into(),
            workflow: shown.workflow,
            step: shown.step_id,
            incoming: shown.incoming_integration,
            trigger_id: shown.trigger_id,
            operation: shown.operation,
            accept_time: shown.accept_time.as_ref().map_or(self.now, millis),
            order,
        };
        if request.is_none() && response.is_none() {
            return Ok((row, None));
        }
        let attempts = vec![Attempt { response, ..Attempt::default() }];
        let exchange = Delivery { request, attempts, ..Delivery::default() }.encode_to_vec();
        let sealed = self.seal(workspace, &row.name, EXCHANGE, number.into(), &exchange)?;
        Ok((row, Some((number.into(), sealed))))
    }

    /// Stores a batch. Of a delivery of which this or something newer is known, so is its event.
    async fn write(&mut self, batch: Batch) -> Result<(), Failure> {
        let told = &batch.told;
        let mut requests: Vec<(i64, &IncomingRequestRow)> = Vec::new();
        let mut named = HashSet::new();
        for (sequence, request) in told.iter().filter_map(|told| Some((told.sequence, told.request.as_ref()?))) {
            if named.insert(request.name.as_str()) {
                requests.push((sequence, request));
            }
        }
        self.tx.incoming_requests_put(&requests, self.now).await?;
        let deliveries: Vec<(i64, &DeliveryRow)> =
            told.iter().filter_map(|told| Some((told.sequence, told.delivery.as_ref()?))).collect();
        let news = self.tx.deliveries_put(&deliveries, self.now).await?;
        let is_news = |told: &&Told| told.delivery.as_ref().is_none_or(|row| news.contains(&row.name));
        let mut exchanges = Vec::new();
        let mut events = Vec::new();
        for told in told.iter().filter(is_news) {
            if let (Some(row), Some((number, sealed))) = (&told.delivery, &told.exchange) {
                exchanges.push((row.name.as_str(), *number, sealed.as_slice()));
            }
            events.extend(told.event.as_ref());
        }
        self.tx.exchanges_put(&exchanges).await?;
        self.tx.events_put(&events, self.now).await?;
        // A request stays for as long as its deliveries go on.
        for row in deliveries.iter().map(|(_, row)| row).filter(|row| row.order > 1 && !row.trigger_id.is_empty()) {
            if news.contains(&row.name) {
                let request = format!("{}/incomingRequests/{}", names::workspace_name(&row.workspace), row.trigger_id);
                self.tx.incoming_request_touch(&row.workspace, &request, self.now).await?;
            }
        }
        Ok(())
    }
}

/// What an attempt exchanged, sealed, under its number.
type Exchange = Option<(i64, Vec<u8>)>;
