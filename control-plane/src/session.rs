//! One data plane's stream: what it holds, what it refused, and what to send it next. Level-triggered: nothing is queued for
//! it but the names of workspaces to look at; whatever is sent is made from the newest revision.

mod beats;
mod held;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluice_proto::sync::v1 as sync;
use sluice_proto::sync::v1::sync_request::Kind as Said;
use sluice_proto::sync::v1::sync_response::Kind as Answer;
use sluice_proto::sync::v1::{Command, Cursor, Delta, Hello, SnapshotChunk, SyncRequest, SyncResponse, command_result};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use crate::captures;
use crate::commands::{Order, WAITING_MAX};
use crate::data_planes::Registration;
use crate::enrolment::Rights;
use crate::error::{CertificateProblem, Failure};
use crate::levels;
use crate::login_keys;
use crate::members::Members;
use crate::metrics::StreamEnd;
use crate::names::workspace_id;
use crate::secrets::random;
use crate::shared::Shared;
use crate::snapshots::{Body, Head, Heads, MESSAGE_BYTES_MAX as PART_BYTES_MAX};

use self::beats::Beats;
use self::held::{Held, Refused, Sent, Step};

/// Why a stream ends when the store has another name.
const NEW_EPOCH: &str = "the configuration store begins a new epoch";
/// Why a stream ends by itself.
const OLD: &str = "the stream is as old as it may get";
/// How much older a stream may get while commands are under way.
const BUSY_MAX: Duration = Duration::from_secs(60);
/// Longest id and longest version of a data plane, in bytes.
const ID_BYTES_MAX: usize = 128;

/// What is sent, or why the stream ends. Boxed: room for many of them is kept for every stream.
pub(crate) type Boxed = Box<Result<SyncResponse, Status>>;

/// A running session.
pub(crate) struct Session {
    shared: Arc<Shared>,
    registration: Registration,
    /// The name of the store when it was welcomed.
    epoch: String,
    heads: watch::Receiver<Arc<Heads>>,
    held: BTreeMap<String, Held>,
    /// Workspaces to look at.
    pending: BTreeSet<String>,
    /// Parts of the workspace that is being sent.
    parts: VecDeque<Answer>,
    synced: bool,
    /// Commands to send; they go before everything else.
    commands: VecDeque<Command>,
    /// Who waits for the result of which command.
    asked: HashMap<u64, oneshot::Sender<command_result::Outcome>>,
    last_command: u64,
    /// Who shares limits; nothing for a release that does not.
    members: Option<watch::Receiver<Members>>,
    /// How many it was told of.
    told_members: u32,
    beats: Beats,
}

/// Serves one stream until it ends, the server stops, or another stream of the same data plane takes over.
pub(crate) async fn run(
    shared: Arc<Shared>,
    rights: Rights,
    mut inbound: Streaming<SyncRequest>,
    out: mpsc::Sender<Boxed>,
) -> Result<(), Status> {
    let stop = shared.stop.clone();
    let hello = tokio::select! {
        hello = first(&mut inbound) => hello?,
        () = stop.cancelled() => return Err(Failure::Stopping.into()),
    };
    // What was published before a data plane says hello is part of what it gets before `synced`.
    shared.snapshots.fresh().await;
    rights.check_id(&hello.data_plane_id)?;
    let number = Box::pin(shared.replicas.session_number(&shared.store)).await.map_err(Failure::from)?;
    let registration = shared.data_planes.register(&hello, &rights.scope, number, shared.settings.clock.now())?;
    // Every control plane knows of it from here on, and ends an older stream of it.
    shared.replicas.fresh().await;
    // One that was let go between the door and here was not in the registry to be forgotten.
    Box::pin(rights.check(&shared)).await?;
    let (replaced, revoked) = (registration.replaced.clone(), registration.revoked.clone());
    tracing::info!(data_plane = hello.data_plane_id, build = hello.build, "a data plane is connected");
    let captures = Box::pin(captures::open(&shared, &rights.scope)).await?;
    let metrics = shared.metrics.clone();
    let mut session = Session::new(shared.clone(), registration, &hello);
    Box::pin(session.note_ahead()).await?;
    if hello.takes_commands {
        for kind in captures {
            if levels::of_command(&kind).map_err(Failure::from)? <= session.registration.config_level {
                session.say(kind);
            }
        }
    }
    tokio::select! {
        ended = session.serve(inbound, &out) => ended,
        () = stop.cancelled() => Err(Failure::Stopping.into()),
        () = replaced.cancelled() => {
            metrics.stream_ended(StreamEnd::Replaced);
            Err(Failure::Replaced.into())
        }
        () = revoked.cancelled() => Err(Failure::CertificateInvalid(CertificateProblem::Revoked).into()),
        failure = until_lost(&shared, &rights) => Err(failure.into()),
    }
}

/// Ends when the data plane may no longer be here: its certificate has expired, or it was deleted elsewhere.
async fn until_lost(shared: &Shared, rights: &Rights) -> Failure {
    loop {
        tokio::time::sleep(shared.settings.rights_checked_every).await;
        // A store that is away for a moment takes no rights.
        if let Err(failure @ Failure::CertificateInvalid(_)) = Box::pin(rights.check(shared)).await {
            return failure;
        }
    }
}

/// How old one stream gets, for a roll of the dice in `0.0..1.0`: not all begin again at once.
fn age(mean: Duration, dice: f64) -> Duration {
    mean.mul_f64(0.8 + 0.4 * dice)
}

/// Uniform in `0.0..1.0`. Without randomness (which does not happen) the middle is as good as any.
fn dice() -> f64 {
    random::<4>().map_or(0.5, |random| f64::from(u32::from_ne_bytes(random)) / (f64::from(u32::MAX) + 1.0))
}

/// When nothing was taken for so long; never while nothing waits.
async fn until(stalled: Option<Instant>, patience: Duration) {
    match stalled {
        Some(since) => tokio::time::sleep_until(since + patience).await,
        None => std::future::pending().await,
    }
}

/// When somebody else shares limits than before.
async fn changed(members: &mut Option<watch::Receiver<Members>>) -> Members {
    if let Some(members) = members
        && members.changed().await.is_ok()
    {
        return members.borrow_and_update().clone();
    }
    std::future::pending().await
}

async fn first(inbound: &mut Streaming<SyncRequest>) -> Result<Hello, Status> {
    let Some(SyncRequest { kind: Some(Said::Hello(hello)) }) = inbound.message().await? else {
        return Err(Failure::field("hello", "REQUIRED", "must be the first message").into());
    };
    let id = &hello.data_plane_id;
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if id.is_empty() || id.len() > ID_BYTES_MAX || !plain {
        let message = format!("must be 1 to {ID_BYTES_MAX} letters, digits, `-`, `_` and `.`");
        return Err(Failure::field("hello.data_plane_id", "ID_INVALID", message).into());
    }
    if hello.build.len() > ID_BYTES_MAX {
        let message = format!("is longer than {ID_BYTES_MAX} bytes");
        return Err(Failure::field("hello.build", "TOO_LONG", message).into());
    }
    Ok(hello)
}

impl Session {
    fn new(shared: Arc<Shared>, registration: Registration, hello: &Hello) -> Self {
        let heads = shared.snapshots.subscribe();
        let epoch = heads.borrow().epoch.clone();
        let foreign = hello.store_epoch != epoch;
        let held = |cursor: Cursor| Held { serving: Some(cursor), foreign, ..Held::default() };
        // What it should not even have is neither compared nor sent.
        let (seen, beyond): (Vec<_>, Vec<_>) =
            hello.cursors.iter().cloned().partition(|cursor| registration.scope.sees(&cursor.workspace));
        let held = seen.into_iter().map(|cursor| (cursor.workspace.clone(), held(cursor))).collect();
        let members = hello.shares_limits.then(|| shared.members.clone());
        let welcome = Answer::Welcome(sync::Welcome { store_epoch: epoch.clone(), takes_beats: true });
        let mut session = Self {
            shared,
            registration,
            epoch,
            heads,
            held,
            pending: BTreeSet::new(),
            parts: VecDeque::from([welcome]),
            synced: false,
            commands: VecDeque::new(),
            asked: HashMap::new(),
            last_command: 0,
            members,
            told_members: 0,
            beats: Beats::beside(beyond),
        };
        session.look_at_all();
        // It may have come a moment ago.
        session.tell_members(&session.shared.data_planes.members());
        session
    }

    /// Sends and listens at once: a data plane that waits for us to read its answers would not read ours. One that takes nothing of
    /// what there is for it is ended; what it missed comes as one change when it returns (A17). What waits for the store is boxed: its
    /// room is not kept for every stream while nothing happens.
    async fn serve(mut self, mut inbound: Streaming<SyncRequest>, out: &mpsc::Sender<Boxed>) -> Result<(), Status> {
        let patience = self.shared.settings.limits.watcher_patience;
        let end = Instant::now() + age(self.shared.settings.limits.stream_age, dice());
        let mut stalled: Option<Instant> = None;
        loop {
            let work = self.has_work();
            let waits = work && out.capacity() == 0;
            stalled = waits.then(|| stalled.unwrap_or_else(Instant::now));
            // Nobody's command is cut off, unless one is always under way.
            let is_busy = work || self.asked.values().any(|reply| !reply.is_closed());
            let end = if is_busy { end + BUSY_MAX } else { end };
            tokio::select! {
                () = tokio::time::sleep_until(end) => return Err(self.renewed(OLD).into()),
                () = until(stalled, patience) => {
                    self.shared.metrics.stream_ended(StreamEnd::TooSlow);
                    return Err(Failure::DataPlaneTooSlow(patience).into());
                }
                said = inbound.message() => match said? {
                    // A sample that cannot be stored ends the stream, and comes again with the next.
                    Some(SyncRequest { kind: Some(Said::Sample(sample)) }) => {
                        self.check_scope(&sample.workspace)?;
                        Box::pin(captures::take(&self.shared, self.registration.id(), sample)).await?;
                    }
                    Some(SyncRequest { kind: Some(Said::KeyUses(used)) }) => {
                        Box::pin(login_keys::used(&self.shared, &self.registration.scope, used)).await?;
                    }
                    Some(SyncRequest { kind: Some(Said::Holding(holding)) }) => Box::pin(self.compare(holding)).await?,
                    Some(SyncRequest { kind }) => self.listen(kind)?,
                    None => return Ok(()),
                },
                changed = self.heads.changed() => match changed {
                    Ok(()) if self.heads.borrow().epoch != self.epoch => return Err(self.renewed(NEW_EPOCH).into()),
                    Ok(()) => self.look_at_all(),
                    Err(_) => return Err(Failure::Stopping.into()),
                },
                members = changed(&mut self.members) => self.tell_members(&members),
                Some(order) = self.registration.orders.recv(), if self.asked.len() < WAITING_MAX => self.command(order),
                place = out.reserve(), if work => match place {
                    Ok(place) => if let Some(answer) = self.next_answer().await? {
                        place.send(Box::new(Ok(SyncResponse { kind: Some(answer) })));
                    },
                    Err(_) => return Ok(()),
                },
            }
        }
    }

    /// Something is to be sent, or may be.
    fn has_work(&self) -> bool {
        let waits = !self.parts.is_empty() || !self.pending.is_empty() || !self.commands.is_empty();
        waits || !self.synced || self.beats.has_answer()
    }

    /// Says how many share limits, if that is news (D10).
    fn tell_members(&mut self, members: &Members) {
        let data_planes = members.beside(&self.registration.scope);
        let is_news = std::mem::replace(&mut self.told_members, data_planes) != data_planes;
        if is_news && self.members.is_some() {
            self.parts.push_back(Answer::Fleet(sync::Fleet { data_planes }));
        }
    }

    /// The data plane is to connect again.
    fn renewed(&self, why: &'static str) -> Failure {
        self.shared.metrics.stream_ended(StreamEnd::Renewed);
        Failure::Renewed(why)
    }

    /// Refuses to hear of a workspace that the data plane does not see (A15).
    fn check_scope(&self, workspace: &str) -> Result<(), Failure> {
        let sees = self.registration.scope.sees(workspace);
        if sees { Ok(()) } else { Err(Failure::CertificateInvalid(CertificateProblem::OtherWorkspace)) }
    }

    /// Puts a command in line whose answer nobody waits for.
    fn say(&mut self, kind: sync::command::Kind) {
        self.last_command += 1;
        self.commands.push_back(Command { id: self.last_command, kind: Some(kind) });
    }

    /// Puts a command in line and forgets those nobody waits for any more.
    fn command(&mut self, order: Order) {
        self.asked.retain(|_, reply| !reply.is_closed());
        self.say(*order.kind);
        self.asked.insert(self.last_command, order.reply);
    }

    /// Remembers, and says aloud, of which workspaces the data plane serves what this store cannot have made. Their next revision would have
    /// a number that was used: none is published until somebody has decided.
    async fn note_ahead(&self) -> Result<(), Failure> {
        let heads = self.heads.borrow().clone();
        let is_ahead = |(name, held): &(&String, &Held)| {
            heads.workspaces.get(*name).is_some_and(|head| held.is_ahead_of(&head.cursor))
        };
        for (name, held) in self.held.iter().filter(is_ahead) {
            let Some(serving) = &held.serving else { continue };
            let mut write = self.shared.store.write().await?;
            let is_so = write.seen_ahead(&workspace_id(name, "workspace")?, serving.revision, &serving.digest).await?;
            write.commit().await?;
            if is_so {
                let (workspace, served, data_plane) = (name, serving.revision, self.registration.id());
                tracing::error!(
                    workspace,
                    served,
                    data_plane,
                    "the configuration store was set back: a data plane serves what it cannot have made; nothing more is published"
                );
            }
        }
        Ok(())
    }

    /// Marks every workspace that differs.
    fn look_at_all(&mut self) {
        // Whether they are news is not settled here: a new epoch must not pass unnoticed.
        let heads = self.heads.borrow().clone();
        for (name, head) in heads.workspaces.iter().filter(|(name, _)| self.registration.scope.sees(name)) {
            let known = self.held.get(name);
            if known.is_none_or(|held| held.next(&head.cursor, head.deletes_confirmed) != Step::Nothing) {
                self.pending.insert(name.clone());
            }
        }
        let gone = self.held.iter().filter(|(name, held)| {
            let is_news = !held.left_alone || heads.tombstones.contains(*name);
            is_news && !heads.workspaces.contains_key(*name)
        });
        self.pending.extend(gone.map(|(name, _)| name.clone()));
    }

    /// The next message, made from the truth as it is now; `None` when the workspace looked at needs none.
    async fn next_answer(&mut self) -> Result<Option<Answer>, Failure> {
        // Commands and beats pass everything but the welcome, without which the data plane would not know whom it hears.
        let welcomed = !matches!(self.parts.front(), Some(Answer::Welcome(_)));
        if let Some(command) = welcomed.then(|| self.commands.pop_front()).flatten() {
            return Ok(Some(Answer::Command(command)));
        }
        if let Some(heard) = welcomed.then(|| self.beats.answer()).flatten() {
            return Ok(Some(Answer::BeatHeard(heard)));
        }
        if let Some(part) = self.parts.pop_front() {
            return Ok(Some(part));
        }
        let Some(workspace) = self.pending.pop_first() else {
            let first = !std::mem::replace(&mut self.synced, true);
            return Ok(first.then_some(Answer::Synced(sync::Synced {})));
        };
        let heads = self.heads.borrow().clone();
        let Some(head) = heads.workspaces.get(&workspace) else {
            return Ok(self.drop_workspace(&heads, workspace));
        };
        Box::pin(self.prepare(&workspace, head)).await?;
        Ok(self.parts.pop_front())
    }

    /// A workspace that is not there is dropped only by its tombstone; one that is merely unknown stays (I5).
    fn drop_workspace(&mut self, heads: &Heads, workspace: String) -> Option<Answer> {
        if heads.tombstones.contains(&workspace) {
            self.held.remove(&workspace);
            self.registration.dropped(&workspace);
            return Some(Answer::Drop(sync::WorkspaceDrop { workspace }));
        }
        self.held.entry(workspace.clone()).or_default().left_alone = true;
        tracing::warn!(workspace, "a data plane serves a workspace that this store has never had; it is left alone");
        None
    }

    /// Puts the parts that lead to `head` in line.
    async fn prepare(&mut self, workspace: &str, head: &Arc<Head>) -> Result<(), Failure> {
        let since = self.synced.then_some(head.seen);
        let level = self.registration.config_level;
        let held = self.held.entry(workspace.to_owned()).or_default();
        let store = &self.shared.store;
        let confirmed = head.deletes_confirmed;
        let delta = match held.next(&head.cursor, confirmed) {
            Step::Nothing => return Ok(()),
            Step::Delta { .. } | Step::Snapshot if head.config_level > level => {
                return self.withhold(head, head.cursor.clone()).await;
            }
            Step::Delta { base } => head.change_from(store, base).await?.map(|change| {
                let allowed = confirmed || change.decided;
                (base, head.cursor.clone(), change.bytes, allowed)
            }),
            Step::Renumber { base } => {
                head.empty(store).await?.map(|Body { cursor, bytes, .. }| (base, cursor, bytes, confirmed))
            }
            Step::Snapshot => None,
        };
        if let Some((base_revision, cursor, body, allow_mass_delete)) = delta {
            held.sent = Some(Sent { cursor: cursor.clone(), whole: false, confirmed, since });
            self.parts.push_back(Answer::Delta(Delta { cursor: Some(cursor), base_revision, body, allow_mass_delete }));
        } else if let Some(body) = head.snapshot(store).await? {
            if body.config_level > level {
                return self.withhold(head, body.cursor).await;
            }
            // It may be newer than what was confirmed.
            let confirmed = confirmed && body.cursor.revision == head.cursor.revision;
            held.sent = Some(Sent { cursor: body.cursor.clone(), whole: true, confirmed, since });
            self.parts.extend(chunks(&body, confirmed));
        }
        Ok(())
    }

    /// Keeps a revision from a data plane that does not understand all of it: it goes on with what it serves, and that is shown. Nothing is
    /// ever cut down to what it understands.
    async fn withhold(&mut self, head: &Head, cursor: Cursor) -> Result<(), Failure> {
        let Cursor { workspace, revision, .. } = cursor.clone();
        let problems = {
            let mut tx = self.shared.store.read().await?;
            levels::problems(&mut tx, &head.id, self.registration.config_level).await?
        };
        let held = self.held.entry(workspace.clone()).or_default();
        held.refused = Some(Refused { revision, confirmed: head.deletes_confirmed });
        let serving = held.serving.clone();
        if serving.is_none() {
            // It must not deny what it does not have: it refuses this by its digest, and knows then that there is something.
            let nothing = Body { cursor, bytes: Bytes::new(), config_level: levels::FIRST };
            self.parts.extend(chunks(&nothing, false));
        }
        let data_plane = self.registration.id();
        tracing::warn!(workspace, revision, data_plane, "a data plane is too old for what is in force");
        let refusal = sync::Nack { workspace, revision, serving, problems, ..sync::Nack::default() };
        self.registration.refused(&refusal, self.shared.settings.clock.now());
        Ok(())
    }

    fn listen(&mut self, said: Option<Said>) -> Result<(), Failure> {
        match said {
            Some(Said::Ack(ack)) => {
                let Some(serving) = ack.serving.clone() else {
                    return Err(Failure::field("ack.serving", "REQUIRED", "is required"));
                };
                self.acknowledged(serving, &ack);
                Ok(())
            }
            Some(Said::Nack(nack)) => {
                self.refused(&nack);
                Ok(())
            }
            Some(Said::TokenChanges(told)) => {
                self.registration.tokens_changed(told);
                Ok(())
            }
            Some(Said::Result(result)) => {
                if let (Some(reply), Some(outcome)) = (self.asked.remove(&result.id), result.outcome) {
                    // Who gave up waiting says so to his caller.
                    let _ = reply.send(outcome);
                }
                Ok(())
            }
            Some(Said::Beat(beat)) => {
                self.heard(&beat);
                Ok(())
            }
            Some(Said::Hello(_)) => Err(Failure::field("hello", "REPEATED", "is sent once")),
            // Samples, uses of keys and what is held wait for the store, and are taken before anything else is listened to.
            Some(Said::Sample(_) | Said::KeyUses(_) | Said::Holding(_)) | None => {
                let message =
                    "one of hello, ack, nack, token_changes, result, sample, key_uses, beat, holding is required";
                Err(Failure::field("kind", "REQUIRED", message))
            }
        }
    }

    fn acknowledged(&mut self, serving: Cursor, ack: &sync::Ack) {
        // Only what we know of is kept: the memory of a session is bounded by the store, not by the caller.
        let Some(held) = self.held.get_mut(&serving.workspace) else { return };
        self.registration.served(ack);
        let sent = held.sent.take_if(|sent| sent.cursor.revision == serving.revision);
        if let Some(sent) = sent {
            if let Some(since) = sent.since {
                self.shared.metrics.acknowledged(since.elapsed());
            }
            held.foreign = false;
            held.wants_snapshot = false;
            held.refused = None;
            if sent.cursor.digest != serving.digest {
                let (workspace, revision) = (&serving.workspace, serving.revision);
                tracing::error!(
                    workspace,
                    revision,
                    "a data plane serves something else than was sent under this revision"
                );
                // Sending it again would end the same way: wait for the next one, and send that whole.
                held.refused = Some(Refused { revision, confirmed: sent.confirmed });
                held.wants_snapshot = true;
            }
        }
        self.pending.insert(serving.workspace.clone());
        held.serving = Some(serving.clone());
        self.repaired(&serving.workspace);
    }

    fn refused(&mut self, nack: &sync::Nack) {
        let Some(held) = self.held.get_mut(&nack.workspace) else { return };
        if held.sent.is_none() && held.refused.is_some_and(|refused| refused.revision == nack.revision) {
            return; // It was not sent what it refuses: why is known.
        }
        let reasons: Vec<_> = nack.problems.iter().take(5).map(|problem| problem.reason.as_str()).collect();
        let (workspace, revision) = (&nack.workspace, nack.revision);
        tracing::warn!(workspace, revision, ?reasons, needs_snapshot = nack.needs_snapshot, "a revision was refused");
        let sent = held.sent.take_if(|sent| sent.cursor.revision == nack.revision);
        held.serving = nack.serving.clone().filter(|serving| serving.revision > 0);
        let confirmed = sent.as_ref().is_some_and(|sent| sent.confirmed);
        if nack.needs_snapshot && sent.is_some_and(|sent| !sent.whole) {
            held.wants_snapshot = true;
        } else {
            held.refused = Some(Refused { revision: nack.revision, confirmed });
            self.registration.refused(nack, self.shared.settings.clock.now());
        }
        self.pending.insert(nack.workspace.clone());
    }
}

/// A snapshot in parts.
fn chunks(body: &Body, allow_mass_delete: bool) -> impl Iterator<Item = Answer> + use<> {
    let Body { cursor, bytes, .. } = body.clone();
    let count = bytes.len().div_ceil(PART_BYTES_MAX).max(1);
    (0..count).map(move |index| {
        let part: Bytes = bytes.slice(index * PART_BYTES_MAX..bytes.len().min((index + 1) * PART_BYTES_MAX));
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Answer::Snapshot(SnapshotChunk {
            cursor: Some(cursor.clone()),
            index: number(index),
            count: number(count),
            body: part,
            allow_mass_delete,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a18_streams_that_began_together_end_apart() {
        let mean = Duration::from_secs(1000);
        for (dice, seconds) in [(0.0, 800), (0.5, 1000), (1.0, 1200)] {
            assert_eq!(age(mean, dice).as_secs_f64().round(), f64::from(seconds));
        }
        assert!((0..1000).map(|_| dice()).all(|dice| (0.0..1.0).contains(&dice)));
    }

    #[test]
    fn a_snapshot_is_cut_into_parts_that_make_it_whole() {
        for (size, count) in [(0, 1), (1, 1), (PART_BYTES_MAX, 1), (PART_BYTES_MAX + 1, 2), (3 * PART_BYTES_MAX, 3)] {
            let bytes: Bytes = (0..size).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
            let mut whole = Vec::new();
            let body = Body { cursor: Cursor::default(), bytes: bytes.clone(), config_level: 1 };
            for (index, part) in chunks(&body, false).enumerate() {
                let Answer::Snapshot(part) = part else { panic!("not a part") };
                assert_eq!((part.index as usize, part.count), (index, count));
                assert!(part.body.len() <= PART_BYTES_MAX);
                whole.extend_from_slice(&part.body);
            }
            assert_eq!(whole, bytes);
        }
    }
}
