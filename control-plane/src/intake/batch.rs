//! Members of an audience on their way to the data planes (R126): read as far as there is room, sent in groups, answered by id.
//!
//! Nothing is kept here. What is under way is bounded in members, bytes and groups, for a stream and for all of them together; a full
//! queue makes the stream wait, and whoever waits reads no further. What has no answer when a stream ends may be sent again: ids make
//! it count once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use prost::Message as _;
use sluice_core::cause::EventEnvelope;
use sluice_core::validate::Violation;
use sluice_core::wire;
use sluice_proto::admin::v1::batch_item_result::State as Answered;
use sluice_proto::admin::v1::{BatchItem, BatchItemResult, SubmitBatchRequest, SubmitBatchResponse, Workflow};
use sluice_proto::sync::v1::taken_event::State;
use sluice_proto::sync::v1::{Resource, SubmitEvents, Submitted, SubmittedEvent, TakenEvent, resource::Document};
use tokio::time::Instant;
use tonic::{Response, Status, Streaming};
use uuid::Uuid;

use super::{keeper, taken};
use crate::error::Failure;
use crate::names::{self, Name, workspace_name};
use crate::resource::Resource as _;
use crate::shared::Shared;
use crate::stored::Stored;
use crate::watching::{Out, Watched, watched};

/// Members of one group.
const GROUP_MEMBERS: usize = 100;
/// Bytes of one group; one member may exceed it alone.
const GROUP_BYTES: usize = 256 * 1024;
/// Groups of one stream that are under way.
const GROUPS_MAX: usize = 4;
/// Members of one stream that wait for a group, beyond those of the last message that was read.
const WAITING_MEMBERS: usize = 1_000;
/// Bytes of them.
const WAITING_BYTES: usize = 1 << 20;
/// Answers that wait for a caller who reads slowly.
const AHEAD: usize = 4;
/// The first wait of a stream while a queue is full, and the longest.
const FULL_WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Begins a stream: its first message says for which workflow the members are.
pub(crate) async fn batch(
    shared: &Arc<Shared>,
    mut members: Streaming<SubmitBatchRequest>,
) -> Result<Response<Watched<SubmitBatchResponse>>, Failure> {
    let first = members.message().await.map_err(|status| broken(&status))?;
    let first = first.ok_or_else(|| Failure::field("name", "REQUIRED", "must be in the first message"))?;
    let name = names::parse(&first.name, Workflow::COLLECTION, "name")?;
    check_audience(shared, &name).await?;
    // One that keeps members may just have connected to another control plane.
    shared.replicas.fresh().await;
    let batch = Batch {
        shared: shared.clone(),
        workspace: workspace_name(&name.workspace),
        workflow: name.full,
        validate_only: first.validate_only,
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        under_way: FuturesUnordered::new(),
        answers: Vec::new(),
        pause: None,
        wait: FULL_WAITS.0,
    };
    watched(shared, AHEAD, |out| batch.run(first, members, out))
}

/// The workflow must be published and have an audience.
async fn check_audience(shared: &Shared, name: &Name) -> Result<(), Failure> {
    let mut tx = shared.store.read().await?;
    let Some(head) = tx.head(&name.workspace, &name.full).await? else {
        Stored::<Workflow>::load(&mut tx, name, "").await?;
        return Err(Failure::NotPublished(name.full.clone()));
    };
    let head = Resource::decode(head.as_slice());
    let head = head.map_err(|error| Failure::Internal(format!("{}: {error}", name.full)))?;
    let has_audience = matches!(&head.document, Some(Document::Workflow(workflow))
        if workflow.triggers.iter().any(|trigger| trigger.audience.is_some()));
    let message = "the published version of this workflow has no trigger `audience`";
    if has_audience { Ok(()) } else { Err(Failure::field("name", "NO_AUDIENCE", message)) }
}

/// What the caller's end of the stream ended with.
fn broken(status: &Status) -> Failure {
    Failure::CallInvalid { code: status.code(), message: status.message().to_owned() }
}

/// One member that is to be taken.
struct Member {
    /// Which data plane keeps it.
    plane: String,
    event: SubmittedEvent,
}

/// A group that is back.
struct Back {
    plane: String,
    members: Vec<SubmittedEvent>,
    taken: Result<Vec<TakenEvent>, Failure>,
}

/// One stream.
struct Batch {
    shared: Arc<Shared>,
    workspace: String,
    workflow: String,
    validate_only: bool,
    /// In the order in which they came.
    waiting: VecDeque<Member>,
    waiting_bytes: usize,
    under_way: FuturesUnordered<BoxFuture<'static, Back>>,
    answers: Vec<BatchItemResult>,
    /// Until when a full queue is left alone.
    pause: Option<Instant>,
    wait: Duration,
}

impl Batch {
    /// Reads, sends and answers at once, until everything is answered or the caller is gone.
    async fn run(
        mut self,
        first: SubmitBatchRequest,
        mut members: Streaming<SubmitBatchRequest>,
        out: Out<SubmitBatchResponse>,
    ) -> Result<(), Failure> {
        let stop = self.shared.stop.clone();
        let (mut more, mut done) = (true, self.read(first));
        loop {
            if !self.answers.is_empty() {
                let results = std::mem::take(&mut self.answers);
                if !out.send(SubmitBatchResponse { results }).await? {
                    return Ok(());
                }
            }
            // What is known is answered before the stream ends.
            done?;
            while let Some(group) = self.next_group() {
                self.under_way.push(group);
            }
            if !more && self.under_way.is_empty() && self.waiting.is_empty() {
                return Ok(());
            }
            let room = self.waiting.len() < WAITING_MEMBERS && self.waiting_bytes < WAITING_BYTES;
            let rest = self.pause.unwrap_or_else(Instant::now);
            done = tokio::select! {
                () = stop.cancelled() => Err(Failure::Stopping),
                () = out.closed() => return Ok(()),
                Some(back) = self.under_way.next() => self.back(back),
                () = tokio::time::sleep_until(rest), if self.pause.is_some() => {
                    self.pause = None;
                    Ok(())
                }
                message = members.message(), if more && room => match message {
                    Ok(Some(message)) => self.read(message),
                    Ok(None) => {
                        more = false;
                        Ok(())
                    }
                    Err(status) => Err(broken(&status)),
                },
            };
        }
    }

    /// Takes the members of a message in; those that break a rule are answered.
    fn read(&mut self, message: SubmitBatchRequest) -> Result<(), Failure> {
        if !message.name.is_empty() && message.name != self.workflow {
            return Err(Failure::field("name", "CHANGED", "must be the same in every message, or empty"));
        }
        let now = self.shared.settings.clock.now();
        for item in message.items {
            let trigger_id = Uuid::now_v7().to_string();
            let event = match wire::audience_member(&item, &trigger_id, now) {
                Ok(event) => EventEnvelope::from(event).to_json(),
                Err(found) => {
                    self.answers.push(refused(item.id, found));
                    continue;
                }
            };
            if self.validate_only {
                self.answers.push(BatchItemResult { id: item.id, state: Answered::Valid.into(), ..Default::default() });
                continue;
            }
            let plane = keeper(&self.shared, &self.workspace, &item.id)?;
            self.waiting_bytes += event.len();
            self.waiting.push_back(Member { plane, event: submitted(item, trigger_id, event) });
        }
        Ok(())
    }

    /// The next group, if there is one to send now: a whole one, or what there is when nothing is under way.
    fn next_group(&mut self) -> Option<BoxFuture<'static, Back>> {
        let whole = self.waiting.len() >= GROUP_MEMBERS || self.waiting_bytes >= GROUP_BYTES;
        if self.pause.is_some() || self.under_way.len() >= GROUPS_MAX || !(whole || self.under_way.is_empty()) {
            return None;
        }
        let plane = self.waiting.front()?.plane.clone();
        let (mut members, mut bytes, mut passed) = (Vec::new(), 0, Vec::new());
        while let Some(member) = self.waiting.pop_front() {
            let size = member.event.event.len();
            if member.plane != plane {
                passed.push(member);
            } else if members.is_empty() || (members.len() < GROUP_MEMBERS && bytes + size <= GROUP_BYTES) {
                bytes += size;
                members.push(member.event);
            } else {
                self.waiting.push_front(member);
                break;
            }
        }
        passed.into_iter().rev().for_each(|member| self.waiting.push_front(member));
        self.waiting_bytes -= bytes;
        let shared = self.shared.clone();
        let (workspace, workflow) = (self.workspace.clone(), self.workflow.clone());
        Some(Box::pin(async move {
            let events = SubmitEvents { workspace, workflow, events: members.clone() };
            // A closed semaphore would mean that the server is gone.
            let _turn = shared.batch_groups.acquire().await;
            let taken = taken(&shared, &plane, events).await;
            Back { plane, members, taken }
        }))
    }

    /// Answers what a data plane has taken. What there is no room for waits; what nothing is known of ends the stream.
    fn back(&mut self, back: Back) -> Result<(), Failure> {
        let Back { plane, members, taken } = back;
        let (mut full, mut unknown) = (Vec::new(), false);
        for (event, taken) in members.into_iter().zip(taken?) {
            let state = match taken.state() {
                State::Accepted if taken.workflows == 0 => Answered::FilteredOut,
                State::Accepted => Answered::Accepted,
                State::Duplicate => Answered::Duplicate,
                State::Full => {
                    full.push(event);
                    continue;
                }
                State::Unavailable | State::Unspecified => {
                    unknown = true;
                    continue;
                }
            };
            let id = event.submitted.unwrap_or_default().id;
            let deliveries = taken.deliveries;
            self.answers.push(BatchItemResult { id, state: state.into(), deliveries, ..Default::default() });
        }
        if full.is_empty() {
            self.wait = FULL_WAITS.0;
        } else {
            self.pause = Some(Instant::now() + self.wait);
            self.wait = (self.wait * 2).min(FULL_WAITS.1);
        }
        for event in full.into_iter().rev() {
            self.waiting_bytes += event.event.len();
            self.waiting.push_front(Member { plane: plane.clone(), event });
        }
        if unknown { Err(Failure::DataPlaneAway(plane)) } else { Ok(()) }
    }
}

fn submitted(item: BatchItem, trigger_id: String, event: Vec<u8>) -> SubmittedEvent {
    SubmittedEvent {
        body_bytes: i64::try_from(item.params.len() + item.customer.len()).unwrap_or(i64::MAX),
        submitted: Some(Submitted { action: String::new(), id: item.id }),
        trigger_id,
        event: event.into(),
    }
}

/// The first broken rule is told.
fn refused(id: String, found: Vec<Violation>) -> BatchItemResult {
    let Some(Violation { field, reason, message, .. }) = found.into_iter().next() else {
        return BatchItemResult { id, state: Answered::Refused.into(), ..BatchItemResult::default() };
    };
    BatchItemResult { id, state: Answered::Refused.into(), reason: reason.to_owned(), field, message, deliveries: 0 }
}
