//! Configuration from the control plane: one stream, each workspace applied whole or refused whole.
//!
//! [`follow`] dials, says what is held, and takes what differs; a broken stream is dialled again. The control plane being
//! away changes nothing that is served (I5). Commands for an operator come on the same stream; each is done beside it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use prost::Message as _;
use sluice_core::snapshot::EncodedBody;
use sluice_proto::admin::v1::Problem;
use sluice_proto::sync::v1::{
    Ack, Command, Cursor, Delta, Nack, SnapshotChunk, SyncRequest, SyncResponse, sync_request, sync_response,
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::applying::Attempt;
use crate::beat::{Beats, ack, cursor, hello};
use crate::captures;
use crate::commands;
use crate::compiling::{Otherwise, compile, problem};
use crate::crash::Moment;
use crate::credentials;
use crate::key_uses;
use crate::link::{Backoff, Link};
use crate::objection;
use crate::plane::Plane;
use crate::runtime::{DATA_KEY_UNREADABLE, Position, Source, Workspace};

/// Acks, nacks and results on their way: one per workspace and command at most, so this is only a bound.
const ANSWERS_MAX: usize = 1024;
/// Commands that are done at once.
const COMMANDS_MAX: usize = 64;
/// How long requests wait at the start for a control plane that does not answer; they stand in the line of the socket.
const ASK_MAX: Duration = Duration::from_secs(2);
/// The largest workspace, encoded: what a plane would need several times over while it compiles.
const WORKSPACE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Whether the control plane has been asked once for what has changed while this process did not run, and has told everything or was
/// away. Requests that come earlier would meet a revision that nobody expects any more: an endpoint without its workflow takes them and
/// starts nothing.
#[derive(Debug, Default)]
pub struct Asked(watch::Sender<bool>);

impl Asked {
    /// It has been asked.
    fn set(&self) {
        self.0.send_replace(true);
    }

    /// Waits for it, but not long: the last good configuration serves without the control plane (I5).
    pub(crate) async fn once(&self) {
        let mut asked = self.0.subscribe();
        let _late = tokio::time::timeout(ASK_MAX, asked.wait_for(|asked| *asked)).await;
    }
}

/// Follows the control plane until `shutdown`.
pub async fn follow(plane: Plane, link: Link, shutdown: CancellationToken) {
    let mut backoff = Backoff::default();
    loop {
        let ended = tokio::select! {
            () = shutdown.cancelled() => return,
            ended = session(&plane, &link, &mut backoff) => ended,
        };
        plane.metrics.connected(false);
        plane.asked.set();
        let wait = backoff.failed();
        if let Err(reason) = ended {
            tracing::info!(reason, wait_ms = wait.as_millis(), "the control plane is away; what is served stays");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// One stream from hello to its end.
async fn session(plane: &Plane, link: &Link, backoff: &mut Backoff) -> Result<(), String> {
    let mut client = link.connect().await.map_err(|error| chain(&error))?;
    let (answers, outgoing) = mpsc::channel(ANSWERS_MAX);
    answers.send(hello(plane)).await.map_err(|_closed| "closed".to_owned())?;
    let mut incoming = client.sync(ReceiverStream::new(outgoing)).await.map_err(|status| said(&status))?.into_inner();
    let telling = credentials::tell(plane, answers.clone());
    let sampling = captures::tell(plane, answers.clone());
    let using = key_uses::tell(plane, answers.clone());
    let listening = listen(plane, &mut incoming, &answers, backoff);
    tokio::select! {
        ended = listening => ended,
        ended = telling => ended,
        ended = sampling => ended,
        ended = using => ended,
    }
}

/// Takes what comes, and says what there is to say of it.
async fn listen(
    plane: &Plane,
    incoming: &mut Streaming<SyncResponse>,
    answers: &mpsc::Sender<SyncRequest>,
    backoff: &mut Backoff,
) -> Result<(), String> {
    let mut session = Session::new(plane);
    let mut beats = Beats::new(plane);
    let room = Arc::new(Semaphore::new(COMMANDS_MAX));
    let mut again = tokio::time::interval(plane.settings.keys_read_every);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // A beat goes out between two messages: what it says is what was acknowledged before it.
        let said = tokio::select! {
            message = incoming.message() => {
                let Some(message) = message.map_err(|status| said(&status))? else { return Ok(()) };
                plane.metrics.connected(true);
                backoff.reset();
                match message.kind {
                    Some(sync_response::Kind::Fleet(fleet)) => {
                        plane.metrics.message("fleet");
                        plane.fleet.told(fleet.data_planes).await;
                        None
                    }
                    Some(sync_response::Kind::Command(command)) => {
                        take_command(plane, command, &room, answers);
                        None
                    }
                    Some(sync_response::Kind::BeatHeard(heard)) => beats.heard(&heard),
                    kind => session.take(kind).await?,
                }
            }
            () = beats.due(), if session.takes_beats => Some(beats.beat()),
            _ = again.tick(), if !session.unreadable.is_empty() => {
                for answer in session.again().await {
                    say(answers, answer).await?;
                }
                None
            }
        };
        if let Some(kind) = said {
            say(answers, kind).await?;
        }
    }
}

async fn say(answers: &mpsc::Sender<SyncRequest>, kind: sync_request::Kind) -> Result<(), String> {
    answers.send(SyncRequest { kind: Some(kind) }).await.map_err(|_closed| "closed".to_owned())
}

/// Has a command done beside the stream; its result goes where acks go.
fn take_command(plane: &Plane, command: Command, room: &Arc<Semaphore>, answers: &mpsc::Sender<SyncRequest>) {
    plane.metrics.message("command");
    let (plane, answers, place) = (plane.clone(), answers.clone(), room.clone().try_acquire_owned());
    tokio::spawn(async move {
        let result = match place {
            Ok(_place) => commands::run(&plane, command).await,
            Err(_full) => commands::busy(&command),
        };
        // A stream that is gone is noticed by whoever asked.
        let _ = answers.send(SyncRequest { kind: Some(sync_request::Kind::Result(result)) }).await;
    });
}

/// What one stream has said so far.
struct Session<'a> {
    plane: &'a Plane,
    epoch: String,
    takes_beats: bool,
    chunks: HashMap<String, Parts>,
    /// What was refused because no master key opens its data key, by workspace: the key may come into the ring.
    unreadable: HashMap<String, (Cursor, Arc<Source>)>,
}

/// A revision as it came.
struct Came {
    cursor: Cursor,
    source: Arc<Source>,
    /// It may take most of the workspace away.
    allow_mass_delete: bool,
    received: Instant,
}

/// A snapshot that comes in parts.
struct Parts {
    cursor: Cursor,
    /// The number of the part that comes next.
    next: u32,
    /// `None`: it is too large. The rest of it is let pass, so that the stream goes on with what comes after it.
    collected: Option<BytesMut>,
}

impl Parts {
    fn new(cursor: &Cursor) -> Self {
        Self { cursor: cursor.clone(), next: 0, collected: Some(BytesMut::new()) }
    }

    /// The part with this number continues it.
    fn are_of(&self, cursor: &Cursor, index: u32) -> bool {
        self.cursor == *cursor && self.next == index
    }

    /// Adds a part; `true` when it was the last. All but the last are of one size: what the first announces to be too large is not
    /// collected at all.
    fn take(&mut self, chunk: &SnapshotChunk) -> bool {
        self.next = chunk.index.saturating_add(1);
        let left = usize::try_from(chunk.count.saturating_sub(self.next)).unwrap_or(usize::MAX);
        let announced = chunk.body.len().saturating_mul(left.max(1));
        self.collected =
            self.collected.take().filter(|held| held.len().saturating_add(announced) <= WORKSPACE_BYTES_MAX);
        if let Some(held) = &mut self.collected {
            held.extend_from_slice(&chunk.body);
        }
        self.next >= chunk.count
    }
}

impl<'a> Session<'a> {
    fn new(plane: &'a Plane) -> Self {
        Self { plane, epoch: String::new(), takes_beats: false, chunks: HashMap::new(), unreadable: HashMap::new() }
    }

    async fn take(&mut self, kind: Option<sync_response::Kind>) -> Result<Option<sync_request::Kind>, String> {
        use sync_response::Kind;
        let received = Instant::now();
        match kind {
            Some(Kind::Welcome(welcome)) => {
                self.plane.metrics.message("welcome");
                self.epoch = welcome.store_epoch;
                self.takes_beats = welcome.takes_beats;
                Ok(None)
            }
            Some(Kind::Delta(delta)) => {
                self.plane.metrics.message("delta");
                Ok(self.delta(delta, received).await)
            }
            Some(Kind::Snapshot(chunk)) => {
                self.plane.metrics.message("snapshot");
                self.chunk(chunk, received).await
            }
            Some(Kind::Drop(drop)) => {
                self.plane.metrics.message("drop");
                self.drop_workspace(&drop.workspace).await;
                Ok(None)
            }
            Some(Kind::Synced(_)) => {
                self.plane.metrics.message("synced");
                self.plane.served.set_complete();
                self.plane.asked.set();
                Ok(None)
            }
            Some(Kind::Command(_) | Kind::Fleet(_) | Kind::BeatHeard(_)) => {
                Err("something else came where configuration was expected".to_owned())
            }
            None => Err("the control plane sent a message this build does not know".to_owned()),
        }
    }

    async fn delta(&mut self, delta: Delta, received: Instant) -> Option<sync_request::Kind> {
        let cursor = delta.cursor?;
        let runtime = self.plane.served.load();
        let held = runtime.workspace(&cursor.workspace);
        let base = held.filter(|held| held.revision == delta.base_revision && held.store_epoch == self.epoch);
        // What is not on the disk is not in memory either.
        let base = match base {
            Some(base) => self.kept(base.position()).await,
            None => None,
        };
        let Some(base) = base else {
            return Some(self.nack(&cursor, Vec::new(), true));
        };
        match EncodedBody::decode(delta.body).and_then(|body| base.changed(body)) {
            Ok(source) => {
                let source = Arc::new(source);
                Some(self.apply(Came { cursor, source, allow_mass_delete: delta.allow_mass_delete, received }).await)
            }
            Err(error) => Some(self.undecodable(&cursor, &error)),
        }
    }

    /// What was compiled to what is served there.
    async fn kept(&self, at: Position) -> Option<Source> {
        let plane = self.plane.clone();
        tokio::task::spawn_blocking(move || plane.last_good.at(&at, &plane.ring)).await.ok().flatten()
    }

    async fn chunk(&mut self, chunk: SnapshotChunk, received: Instant) -> Result<Option<sync_request::Kind>, String> {
        let Some(cursor) = chunk.cursor.clone() else { return Ok(None) };
        if chunk.index == 0 {
            self.chunks.insert(cursor.workspace.clone(), Parts::new(&cursor));
        }
        let parts = self.chunks.get_mut(&cursor.workspace).filter(|parts| parts.are_of(&cursor, chunk.index));
        let Some(parts) = parts else { return Err("the parts of a snapshot came out of order".to_owned()) };
        let was_refused = parts.collected.is_none();
        let is_last = parts.take(&chunk);
        if parts.collected.is_none() {
            if is_last {
                self.chunks.remove(&cursor.workspace);
            }
            let message = format!("the workspace is larger than {WORKSPACE_BYTES_MAX} bytes");
            let too_large = || self.nack(&cursor, vec![problem(&cursor.workspace, "TOO_LARGE", message)], false);
            return Ok((!was_refused).then(too_large));
        }
        if !is_last {
            return Ok(None);
        }
        let allow_mass_delete = chunk.allow_mass_delete;
        let whole = self.chunks.remove(&cursor.workspace).and_then(|parts| parts.collected).unwrap_or_default();
        match EncodedBody::decode(whole.freeze()).and_then(Source::from_snapshot) {
            Ok(source) => {
                let source = Arc::new(source);
                Ok(Some(self.apply(Came { cursor, source, allow_mass_delete, received }).await))
            }
            Err(error) => Ok(Some(self.undecodable(&cursor, &error))),
        }
    }

    /// Compiles off the request path, keeps the last good file, swaps, and says so (I4).
    async fn apply(&mut self, came: Came) -> sync_request::Kind {
        let Came { cursor, source, allow_mass_delete, received } = came;
        self.unreadable.remove(&cursor.workspace);
        let position = self.position(&cursor);
        let held = self.plane.served.load().workspace(&cursor.workspace).cloned();
        if let Some(problem) = held.and_then(|held| objection::to(&position, &source, &held, allow_mass_delete)) {
            let (workspace, revision) = (&cursor.workspace, cursor.revision);
            tracing::error!(workspace, revision, reason = problem.reason, "refused a revision: {}", problem.message);
            return self.nack(&cursor, vec![problem], false);
        }
        match compile(self.plane, &position, source.clone(), Otherwise::LeaveOut).await {
            Ok(compiled) => {
                self.plane.settings.inbox.reached(Moment::Applying);
                self.serve(compiled, source, received).await
            }
            Err(problems) => {
                let first = problems.first().map(|problem| problem.message.as_str()).unwrap_or_default();
                tracing::warn!(workspace = cursor.workspace, revision = cursor.revision, first, "refused a revision");
                if problems.iter().any(|problem| problem.reason == DATA_KEY_UNREADABLE) {
                    self.unreadable.insert(cursor.workspace.clone(), (cursor.clone(), source));
                }
                self.nack(&cursor, problems, false)
            }
        }
    }

    /// Tries once more what no master key opened. What is refused again was said before, and waits on.
    async fn again(&mut self) -> Vec<sync_request::Kind> {
        let mut answers = Vec::new();
        for (name, (cursor, source)) in std::mem::take(&mut self.unreadable) {
            match compile(self.plane, &self.position(&cursor), source.clone(), Otherwise::LeaveOut).await {
                Ok(compiled) => answers.push(self.serve(compiled, source, Instant::now()).await),
                Err(problems) if problems.iter().any(|problem| problem.reason == DATA_KEY_UNREADABLE) => {
                    self.unreadable.insert(name, (cursor, source));
                }
                Err(problems) => answers.push(self.nack(&cursor, problems, false)),
            }
        }
        answers
    }

    fn position(&self, cursor: &Cursor) -> Position {
        Position {
            workspace: cursor.workspace.clone(),
            store_epoch: self.epoch.clone(),
            revision: cursor.revision,
            digest: cursor.digest.to_vec(),
        }
    }

    async fn serve(
        &self,
        (workspace, attempt): (Workspace, Attempt),
        source: Arc<Source>,
        received: Instant,
    ) -> sync_request::Kind {
        self.keep(workspace.position(), source).await;
        let serving = cursor(&workspace);
        let ack = ack(&workspace);
        if let Some(problem) = ack.quarantined.first() {
            let (workspace, revision, first) = (&serving.workspace, serving.revision, &problem.message);
            tracing::error!(
                workspace,
                revision,
                resource = problem.resource,
                first,
                "not all of a revision can be served"
            );
        }
        self.plane.served.put(Arc::new(workspace));
        drop(attempt);
        self.plane.tokens.served();
        self.plane.metrics.revision_served();
        let apply_micros = i64::try_from(received.elapsed().as_micros()).unwrap_or(i64::MAX);
        tracing::info!(workspace = serving.workspace, revision = serving.revision, apply_micros, "serving");
        sync_request::Kind::Ack(Ack { apply_micros, ..ack })
    }

    async fn keep(&self, at: Position, source: Arc<Source>) {
        let plane = self.plane.clone();
        let write = move || {
            plane.applying.passed(&at);
            plane.last_good.write(&at, &source, &plane.ring)
        };
        let written = tokio::task::spawn_blocking(write).await.map_err(std::io::Error::other).flatten();
        if let Err(error) = written {
            self.plane.metrics.last_good_failed();
            tracing::error!(%error, "the last good configuration cannot be written");
        }
    }

    async fn drop_workspace(&mut self, name: &str) {
        self.unreadable.remove(name);
        self.plane.served.drop_workspace(name);
        self.plane.tokens.served();
        let (store, name) = (self.plane.last_good.clone(), name.to_owned());
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || store.remove(&name)).await {
            tracing::warn!(%error, "a last good file cannot be removed");
        }
    }

    fn undecodable(&self, cursor: &Cursor, error: &prost::DecodeError) -> sync_request::Kind {
        let message = format!("the revision cannot be read: {error}");
        self.nack(cursor, vec![problem(&cursor.workspace, "UNDECODABLE", message)], false)
    }

    fn nack(&self, refused: &Cursor, problems: Vec<Problem>, needs_snapshot: bool) -> sync_request::Kind {
        if !needs_snapshot {
            self.plane.served.refuse(&refused.workspace);
            self.plane.metrics.revision_refused(objection::label(&problems));
        }
        let runtime = self.plane.served.load();
        let serving = runtime.workspace(&refused.workspace).map(|held| cursor(held)).unwrap_or_default();
        sync_request::Kind::Nack(Nack {
            workspace: refused.workspace.clone(),
            revision: refused.revision,
            serving: Some(serving),
            problems,
            needs_snapshot,
        })
    }
}

fn said(status: &Status) -> String {
    format!("{}: {}", status.code(), status.message())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
