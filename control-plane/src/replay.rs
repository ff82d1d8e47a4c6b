//! Replays: deliveries that are delivered once more. [`start`] plans one and writes it down; [`step`] is what an operation
//! ([`crate::operations`]) does at a time.
//!
//! A step is a few deliveries, sent as one command to one data plane. Its place is written down before (who may have it) and after
//! (that it is done), so that whatever is cut off is repeated, by the same data plane, which enqueues each delivery of an
//! operation once. A step whose data plane is away waits for it.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message as _;
use sluice_core::cause::EventEnvelope;
use sluice_core::envelope::Envelope;
use sluice_core::lineage;
use sluice_proto::admin::v1::operation::State;
use sluice_proto::admin::v1::refused_replays::Reason;
use sluice_proto::admin::v1::{
    Delivery, DeliveryFilter, DeliveryState, Event, IncomingRequest, RefusedReplays, ReplayDeliveriesRequest,
    ReplayDeliveriesResponse, ReplayPlan,
};
use sluice_proto::sync::v1::command::Kind;
use sluice_proto::sync::v1::command_error::Code;
use sluice_proto::sync::v1::command_result::Outcome;
use sluice_proto::sync::v1::{ReplayJob, ReplayJobs, Resource, Submitted, resource::Document};
use uuid::Uuid;

use crate::call::{Begun, Call};
use crate::clock::timestamp;
use crate::commands::ask;
use crate::delivery_filter::selection;
use crate::error::Failure;
use crate::names::{workspace_id, workspace_name};
use crate::operations::{RUNNING_MAX, Stepped, end, moved, wait};
use crate::reports::ENVELOPE;
use crate::secrets::Vault;
use crate::shared::Shared;
use crate::store::{OperationKind, OperationRow, Place, Selected, Tally, Transaction};
use crate::wakes::Topic;

/// Deliveries of one step.
const STEP_MAX: i64 = 50;
/// Bytes of envelopes of one step; one delivery may exceed it alone.
const STEP_BYTES: usize = 2 << 20;

/// Plans a replay and, unless the call only validates, writes it down.
pub(crate) async fn start(
    shared: &Shared,
    call: Call,
    asked: ReplayDeliveriesRequest,
) -> Result<ReplayDeliveriesResponse, Failure> {
    let workspace = workspace_id(&asked.parent, "parent")?;
    let mut read = shared.store.read().await?;
    if read.workspace(&workspace).await?.is_none() {
        return Err(Failure::NotFound(asked.parent));
    }
    let filter = asked.filter.unwrap_or_default();
    if filter == DeliveryFilter::default() {
        return Err(Failure::field("filter", "REQUIRED", "set at least one condition: everything would be sent again"));
    }
    let selection = selection(&filter, &workspace)?;
    // What is recorded from now on, replays among it, is not part of it. Counting takes long and holds up no writer.
    let until = read.outcome_sequence().await?;
    let tallies = read.deliveries_tallied(&workspace, &selection, until).await?;
    let plan = plan(&mut read, &workspace, &tallies).await?;
    drop(read);
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    if change.tx.operations_running(&workspace).await? >= RUNNING_MAX {
        return Err(Failure::Overloaded("operations of a workspace at once"));
    }
    let sequence = change.tx.outcome_sequences(1).await?;
    let name = format!("{}/operations/{}", asked.parent, Uuid::now_v7());
    let row = OperationRow {
        sequence,
        workspace,
        name: name.clone(),
        kind: OperationKind::Replay,
        state: State::Running as i64,
        message: String::new(),
        filter: filter.encode_to_vec(),
        plan: plan.encode_to_vec(),
        done: 0,
        failed: 0,
        phase: 0,
        position: Place { accept_time: i64::MIN, sequence: 0 },
        until,
        data_plane: String::new(),
        create_time: change.now,
        update_time: change.now,
        end_time: 0,
        moves: 0,
    };
    change.tx.operation_insert(&row).await?;
    let operation = if change.validate_only() { String::new() } else { name };
    let answer = change.finish(shared, ReplayDeliveriesResponse { operation, plan: Some(plan) }).await?;
    shared.tell(Topic::Operations);
    Ok(answer)
}

/// Sums up what can be repeated, and what cannot and why.
async fn plan(tx: &mut Transaction, workspace: &str, tallies: &[Tally]) -> Result<ReplayPlan, Failure> {
    let mut published = Published::of(workspace);
    let (mut plan, mut refused) = (ReplayPlan::default(), [0; 3]);
    let (mut oldest, mut newest) = (i64::MAX, i64::MIN);
    for tally in tallies {
        match refusal(tx, &mut published, &tally.workflow, &tally.step, (tally.state, tally.kept)).await? {
            None => {
                plan.count += tally.count;
                (oldest, newest) = (oldest.min(tally.oldest), newest.max(tally.newest));
            }
            Some(Reason::NotEnded | Reason::Unspecified) => refused[0] += tally.count,
            Some(Reason::RequestGone) => refused[1] += tally.count,
            Some(Reason::StepNotPublished) => refused[2] += tally.count,
        }
    }
    if plan.count > 0 {
        plan.oldest_accept_time = Some(timestamp(oldest));
        plan.newest_accept_time = Some(timestamp(newest));
    }
    let reasons = [Reason::NotEnded, Reason::RequestGone, Reason::StepNotPublished];
    let told = reasons.into_iter().zip(refused).filter(|(_, count)| *count > 0);
    plan.refused = told.map(|(reason, count)| RefusedReplays { reason: reason.into(), count }).collect();
    Ok(plan)
}

/// The steps of workflows in force, as far as they were asked for.
struct Published {
    /// The id of the workspace.
    workspace: String,
    steps: HashMap<String, Vec<String>>,
}

impl Published {
    fn of(workspace: &str) -> Self {
        Self { workspace: workspace.to_owned(), steps: HashMap::new() }
    }

    async fn has(&mut self, tx: &mut Transaction, workflow: &str, step: &str) -> Result<bool, Failure> {
        if !self.steps.contains_key(workflow) {
            let resource = tx.head(&self.workspace, workflow).await?.map(|head| Resource::decode(head.as_slice()));
            let resource = resource.transpose().map_err(|error| Failure::Internal(format!("{workflow}: {error}")))?;
            let mut steps = Vec::new();
            if let Some(Document::Workflow(workflow)) = resource.and_then(|resource| resource.document) {
                steps.extend(workflow.steps.into_iter().map(|step| step.step_id));
            }
            self.steps.insert(workflow.to_owned(), steps);
        }
        Ok(self.steps.get(workflow).is_some_and(|steps| steps.iter().any(|one| one == step)))
    }
}

/// Why a delivery cannot be repeated, if so.
async fn refusal(
    tx: &mut Transaction,
    published: &mut Published,
    workflow: &str,
    step: &str,
    (state, kept): (i64, bool),
) -> Result<Option<Reason>, Failure> {
    Ok(if state == i64::from(i32::from(DeliveryState::Waiting)) {
        Some(Reason::NotEnded)
    } else if !kept {
        Some(Reason::RequestGone)
    } else if !published.has(tx, workflow, step).await? {
        Some(Reason::StepNotPublished)
    } else {
        None
    })
}

/// One step of one operation.
pub(crate) async fn step(shared: &Shared, mut row: OperationRow) -> Result<Stepped, Failure> {
    if row.state == State::Cancelling as i64 {
        return end(shared, &row, State::Cancelled).await;
    }
    let (batch, jobs) = gather(shared, &row).await?;
    let Some(last) = batch.last() else { return end(shared, &row, State::Succeeded).await };
    let (after, total) = (last.place, batch.len());
    let enqueued = if jobs.is_empty() {
        0
    } else {
        let workspace = workspace_name(&row.workspace);
        let chosen = match row.data_plane.as_str() {
            "" => shared.data_planes.serving(&workspace),
            begun => Some(begun.to_owned()),
        };
        let Some(chosen) = chosen else { return wait(shared, row, "no data plane that serves the workspace").await };
        if row.data_plane.is_empty() {
            row.data_plane = chosen;
            if !moved(shared, &mut row).await? {
                return Ok(Stepped::Waits);
            }
        }
        let kind = Kind::Replay(ReplayJobs { workspace, operation: row.name.clone(), jobs });
        match ask(shared, &row.data_plane, &row.name, kind).await {
            Ok(Outcome::Replayed(replayed)) => match enqueued(&replayed.codes) {
                Some(enqueued) => enqueued,
                None => return wait(shared, row, "the data plane has no room").await,
            },
            Ok(
                Outcome::Delivery(_)
                | Outcome::Error(_)
                | Outcome::Capture(_)
                | Outcome::TestedRequest(_)
                | Outcome::TestedConnection(_)
                | Outcome::Taken(_)
                | Outcome::Drained(_),
            ) => {
                return Err(Failure::Internal("a command was answered with something else".to_owned()));
            }
            Err(failure) => {
                let why = format!("data plane `{}` does not do it yet", row.data_plane);
                tracing::info!(operation = row.name, why, "a replay waits: {:?}", failure);
                return wait(shared, row, &why).await;
            }
        }
    };
    row.done += i64::from(enqueued);
    row.failed += i64::try_from(total).unwrap_or(i64::MAX) - i64::from(enqueued);
    (row.position, row.message) = (after, String::new());
    row.data_plane.clear();
    if !moved(shared, &mut row).await? {
        return Ok(Stepped::Waits);
    }
    let repeated = u32::try_from(total).unwrap_or(u32::MAX);
    Ok(Stepped::Moved(Duration::from_secs(1) * repeated / shared.settings.limits.replays_per_second.max(1)))
}

/// How many were enqueued; `None` when some have to be tried again.
fn enqueued(codes: &[i32]) -> Option<u32> {
    let codes = || codes.iter().map(|code| Code::try_from(*code).unwrap_or_default());
    if codes().any(|code| code == Code::Unavailable) {
        return None;
    }
    u32::try_from(codes().filter(|code| *code == Code::Unspecified).count()).ok()
}

/// What led to a delivery, as far as it is kept: a request, an event that was submitted, or a response event. The rest of the job is
/// left empty.
async fn cause(
    tx: &mut Transaction,
    vault: &Vault,
    workspace: &str,
    trigger_id: &str,
) -> Result<Option<ReplayJob>, Failure> {
    let name = format!("{}/incomingRequests/{trigger_id}", workspace_name(workspace));
    if let Some((shown, sealed)) = tx.incoming_request_whole(workspace, &name).await? {
        let shown = IncomingRequest::decode(shown.as_slice()).unwrap_or_default();
        let kept = vault.open(&name, ENVELOPE, 1, sealed)?.to_vec().into();
        let job = ReplayJob { body_bytes: shown.body_bytes, ..ReplayJob::default() };
        return Ok(Some(if shown.event_id.is_empty() {
            ReplayJob { envelope: kept, ..job }
        } else {
            let submitted = Some(Submitted { action: shown.action, id: shown.event_id });
            ReplayJob { event: kept, submitted, ..job }
        }));
    }
    let Some(event) = event(tx, workspace, trigger_id).await? else { return Ok(None) };
    let envelope = EventEnvelope::shown(trigger_id, &event.action, &event.params)
        .map_err(|error| Failure::Internal(format!("stored event {}: {error}", event.name)))?;
    let hops = hops(tx, vault, workspace, event).await?;
    Ok(Some(ReplayJob { event: envelope.to_json().into(), hops, ..ReplayJob::default() }))
}

async fn event(tx: &mut Transaction, workspace: &str, id: &str) -> Result<Option<Event>, Failure> {
    let name = format!("{}/events/{id}", workspace_name(workspace));
    let body = tx.event(workspace, &name).await?;
    let event = body.map(|body| Event::decode(body.as_slice())).transpose();
    event.map_err(|error| Failure::Internal(format!("stored event {name}: {error}")))
}

/// How many calls came before what this event starts (D01): it is followed back, as far as it is kept, to the request at its
/// beginning.
async fn hops(tx: &mut Transaction, vault: &Vault, workspace: &str, mut told: Event) -> Result<u32, Failure> {
    for count in 1..lineage::HOPS_MAX {
        let Some(row) = tx.delivery(workspace, &told.delivery).await? else { return Ok(count) };
        let before = Delivery::decode(row.body.as_slice());
        let before =
            before.map_err(|error| Failure::Internal(format!("stored delivery {}: {error}", told.delivery)))?;
        let name = format!("{}/incomingRequests/{}", workspace_name(workspace), before.trigger_id);
        if let Some((_, sealed)) = tx.incoming_request_whole(workspace, &name).await? {
            let envelope = vault.open(&name, ENVELOPE, 1, sealed)?;
            let first = Envelope::from_json(&envelope).map_or(0, |envelope| lineage::hops(&envelope.headers));
            return Ok(first.saturating_add(count));
        }
        match event(tx, workspace, &before.trigger_id).await? {
            Some(earlier) => told = earlier,
            None => return Ok(count),
        }
    }
    Ok(lineage::HOPS_MAX)
}

/// The deliveries of the next step, and those of them that can be repeated.
async fn gather(shared: &Shared, row: &OperationRow) -> Result<(Vec<Selected>, Vec<ReplayJob>), Failure> {
    let filter = DeliveryFilter::decode(row.filter.as_slice());
    let filter = filter.map_err(|error| Failure::Internal(format!("stored operation {}: {error}", row.name)))?;
    let selection = selection(&filter, &row.workspace)?;
    let mut tx = shared.store.read().await?;
    let Some(workspace) = tx.workspace(&row.workspace).await? else { return Ok((Vec::new(), Vec::new())) };
    let vault = shared.secrets.vault(&workspace)?;
    let mut batch = tx.deliveries_to_repeat(&row.workspace, &selection, row.position, (row.until, STEP_MAX)).await?;
    let (mut jobs, mut bytes, mut published) = (Vec::new(), 0, Published::of(&row.workspace));
    for (index, one) in batch.iter().enumerate() {
        let cause = cause(&mut tx, &vault, &row.workspace, &one.trigger_id).await?;
        let known = (one.state, cause.is_some());
        let refusal = refusal(&mut tx, &mut published, &one.workflow, &one.step, known).await?;
        let (None, Some(cause)) = (refusal, cause) else { continue };
        bytes += cause.envelope.len() + cause.event.len();
        if bytes > STEP_BYTES && !jobs.is_empty() {
            batch.truncate(index);
            break;
        }
        jobs.push(ReplayJob {
            delivery: one.name.clone(),
            workflow: one.workflow.clone(),
            step_id: one.step.clone(),
            trigger_id: one.trigger_id.clone(),
            incoming_integration: one.incoming.clone(),
            ..cause
        });
    }
    Ok((batch, jobs))
}
