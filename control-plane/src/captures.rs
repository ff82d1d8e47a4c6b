//! Captures: one request to an endpoint, retrieved while its integration is built (R165 to R169, D23). Hides how data planes are told
//! and how what came gets here.
//!
//! The store says which captures are open. Whoever is connected is told when one begins and when it is over; who connects later is told
//! of all that are open. A data plane keeps what came until it is told that the capture is over, so nothing is lost in between. The
//! first sample that is stored wins.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use prost::Message as _;
use sluice_core::envelope::Envelope;
use sluice_core::flatten::{Leaf, flatten};
use sluice_core::sample::kind;
use sluice_proto::admin::v1::{
    CancelCaptureRequest, CancelCaptureResponse, Capture, CaptureState, CapturedParameter, CapturedRequest,
    ConfirmCaptureRequest, IncomingIntegration, Sample, SampleParameter, StartCaptureRequest, WatchCaptureRequest,
    WatchCaptureResponse,
};
use sluice_proto::sync::v1::command::Kind;
use sluice_proto::sync::v1::{self as sync, CaptureSample, CloseCapture, OpenCapture};
use tonic::Response;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::call::{Begun, Call};
use crate::clock::{UnixMillis, timestamp};
use crate::commands::{able, ask};
use crate::enrolment::Scope;
use crate::error::Failure;
use crate::lifecycle::{answer, lock};
use crate::names::{self, Name, workspace_name};
use crate::publish::frame;
use crate::resource::{Resource as _, Rules};
use crate::shared::Shared;
use crate::store::{CaptureRow, Transaction, WorkspaceRow};
use crate::stored::{Stored, drop_icon};
use crate::wakes::Topic;
use crate::watching::{Out, Watched, watched};

/// How long a capture waits (R165).
const WAIT_MILLIS: i64 = 90_000;
/// How long what came is kept.
pub(crate) const KEPT_MILLIS: i64 = 24 * 3600 * 1000;
/// Longest value that is shown of a parameter, in characters.
const VALUE_CHARS_MAX: usize = 256;
/// Largest list of parameters that is stored with a draft: their paths, in bytes.
const SAMPLE_BYTES_MAX: usize = 256 * 1024;
/// How often a watcher looks when nothing wakes it.
const EVERY: Duration = Duration::from_secs(1);
/// Under which a sample is sealed.
pub(crate) const SAMPLE: &str = "sample";

/// Reads `{incoming integration}/capture`.
fn parse(name: &str) -> Result<Name, Failure> {
    let integration = name.strip_suffix("/capture").and_then(|of| names::parse(of, COLLECTION, "name").ok());
    integration.ok_or_else(|| {
        let message = "must be `workspaces/{workspace}/incomingIntegrations/{id}/capture`";
        Failure::field("name", "NAME_INVALID", message)
    })
}

const COLLECTION: &str = IncomingIntegration::COLLECTION;

/// Begins a capture and returns when every connected data plane waits for the request.
pub(crate) async fn start(shared: &Arc<Shared>, call: Call, asked: StartCaptureRequest) -> Result<Capture, Failure> {
    let name = names::parse(&asked.parent, COLLECTION, "parent")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let workspace = lock(&mut change, &name.workspace, &name.full).await?;
    let stored = Stored::<IncomingIntegration>::load(&mut change.tx, &name, "").await?;
    let parent = workspace_name(&name.workspace);
    if able(shared, &parent).await.is_empty() {
        return Err(Failure::NoDataPlane("no data plane is connected that could wait for the request".to_owned()));
    }
    let uid = Uuid::new_v4().to_string();
    let row = CaptureRow {
        integration: name.full.clone(),
        workspace: name.workspace.clone(),
        start_time: change.now,
        expire_time: change.now + WAIT_MILLIS,
        opening: opening(&workspace, &stored, &uid).encode_to_vec(),
        uid,
        data_plane: String::new(),
        sample: Vec::new(),
    };
    change.tx.capture_put(&row).await?;
    let (now, only_tried) = (change.now, change.validate_only());
    let capture = change.finish(shared, present(&row, now, None)).await?;
    if only_tried {
        return Ok(Capture { uid: String::new(), ..capture });
    }
    shared.tell(Topic::Captures);
    let command = command(&row, now)?;
    // One that connects from now on is told as it does.
    shared.replicas.fresh().await;
    let planes = shared.data_planes.taking_commands(Some(&parent));
    let opened = planes.iter().map(|plane| ask(shared, plane, &name.full, Kind::OpenCapture(command.clone())));
    let opened = join_all(opened).await;
    // One that was not reached is told when it connects; with none at all nobody waits.
    if opened.iter().all(Result::is_err)
        && let Some(Err(failure)) = opened.into_iter().next()
    {
        return Err(failure);
    }
    tracing::info!(name = name.full, uid = capture.uid, "a capture was started");
    Ok(capture)
}

/// What data planes are told, but for the time that is left.
fn opening(workspace: &WorkspaceRow, stored: &Stored<IncomingIntegration>, uid: &str) -> OpenCapture {
    let frame = frame(workspace);
    let mut document = stored.draft.clone();
    drop_icon(&mut document);
    document.name.clone_from(&stored.row.name);
    // The list of an earlier sample is not needed, and the rules that choose from it are not applied.
    document.deduplication = None;
    document.sample = None;
    let draft = sync::Resource {
        name: stored.row.name.clone(),
        version: 0,
        document: Some(document.into_document()),
        secrets: stored.secrets.clone(),
    };
    OpenCapture {
        capture_id: uid.to_owned(),
        workspace: workspace_name(&workspace.id),
        remaining: None,
        draft: Some(draft),
        data_key: frame.data_key,
        business_profile_id: frame.business_profile_id,
    }
}

fn command(row: &CaptureRow, now: UnixMillis) -> Result<OpenCapture, Failure> {
    let opening = OpenCapture::decode(row.opening.as_slice());
    let opening = opening.map_err(|error| Failure::Internal(format!("a stored capture: {error}")))?;
    let left = Duration::from_millis((row.expire_time - now).max(0).unsigned_abs());
    Ok(OpenCapture { remaining: left.try_into().ok(), ..opening })
}

/// What a data plane that has just connected is told.
pub(crate) async fn open(shared: &Shared, scope: &Scope) -> Result<Vec<Kind>, Failure> {
    let now = shared.settings.clock.now();
    let rows = shared.store.read().await?.captures_open(now - WAIT_MILLIS, now).await?;
    let seen = rows.iter().filter(|row| scope.sees(&workspace_name(&row.workspace)));
    seen.map(|row| Ok(Kind::OpenCapture(command(row, now)?))).collect()
}

/// Stores what came to a data plane, if its capture still waits, and ends the capture everywhere.
pub(crate) async fn take(shared: &Arc<Shared>, data_plane: &str, sample: CaptureSample) -> Result<(), Failure> {
    let mut tx = shared.store.write().await?;
    let row = tx.capture_by_uid(&sample.capture_id).await?;
    let waiting = row.filter(|row| row.data_plane.is_empty() && workspace_name(&row.workspace) == sample.workspace);
    if let Some(mut row) = waiting
        && let Some(workspace) = tx.workspace(&row.workspace).await?
    {
        row.data_plane = format!("dataPlanes/{data_plane}");
        row.sample = shared.secrets.vault(&workspace)?.seal(&row.uid, SAMPLE, 1, &sample.envelope)?;
        tx.capture_put(&row).await?;
        tx.commit().await?;
        tracing::info!(name = row.integration, uid = row.uid, data_plane, "a request was captured");
    } else {
        drop(tx);
    }
    close(shared, &sample.capture_id);
    Ok(())
}

/// Wakes watchers and tells every connected data plane that a capture is over, in its own time.
pub(crate) fn close(shared: &Arc<Shared>, uid: &str) {
    shared.tell(Topic::Captures);
    let (shared, command) = (shared.clone(), CloseCapture { capture_id: uid.to_owned() });
    let work = async move {
        let planes = shared.data_planes.taking_commands(None);
        let closed = planes.iter().map(|plane| ask(&shared, plane, "", Kind::CloseCapture(command.clone())));
        // Who was not reached closes it by itself when its time is over.
        join_all(closed).await;
    };
    tokio::spawn(work.in_current_span());
}

/// The request that was captured last for the incoming integration `name`, which was named in `field`.
pub(crate) async fn sample(
    shared: &Shared,
    tx: &mut Transaction,
    workspace: &WorkspaceRow,
    name: &str,
    field: &str,
) -> Result<Envelope, Failure> {
    let parsed = names::parse(name, COLLECTION, field)?;
    if parsed.workspace != workspace.id {
        return Err(Failure::NotFound(name.to_owned()));
    }
    Stored::<IncomingIntegration>::load(tx, &parsed, "").await?;
    let row = tx.capture(&parsed.full).await?;
    let sample = row.map(|row| unsealed(shared, workspace, &row)).transpose()?.flatten();
    sample.ok_or_else(|| Failure::NotCaptured(parsed.full))
}

/// The last capture of an incoming integration.
pub(crate) async fn get(shared: &Shared, name: &str) -> Result<Capture, Failure> {
    let integration = parse(name)?;
    let mut tx = shared.store.read().await?;
    read(shared, &mut tx, &integration).await?.ok_or_else(|| Failure::NotFound(name.to_owned()))
}

async fn read(shared: &Shared, tx: &mut Transaction, name: &Name) -> Result<Option<Capture>, Failure> {
    let gone = || Failure::NotFound(name.full.clone());
    let workspace = tx.workspace(&name.workspace).await?.ok_or_else(gone)?;
    let Some(row) = tx.capture(&name.full).await?.filter(|row| row.workspace == name.workspace) else {
        return Ok(None);
    };
    let sample = unsealed(shared, &workspace, &row)?;
    Ok(Some(present(&row, shared.settings.clock.now(), sample.as_ref())))
}

fn unsealed(shared: &Shared, workspace: &WorkspaceRow, row: &CaptureRow) -> Result<Option<Envelope>, Failure> {
    if row.sample.is_empty() {
        return Ok(None);
    }
    let opened = shared.secrets.vault(workspace)?.open(&row.uid, SAMPLE, 1, row.sample.clone())?;
    let envelope = Envelope::from_json(&opened);
    envelope.map(Some).map_err(|error| Failure::Internal(format!("a stored sample: {error}")))
}

fn present(row: &CaptureRow, now: UnixMillis, sample: Option<&Envelope>) -> Capture {
    let state = match sample {
        Some(_) => CaptureState::Taken,
        None if now < row.expire_time => CaptureState::Waiting,
        None => CaptureState::Empty,
    };
    Capture {
        name: format!("{}/capture", row.integration),
        uid: row.uid.clone(),
        state: state.into(),
        start_time: Some(timestamp(row.start_time)),
        expire_time: Some(timestamp(row.expire_time)),
        request: sample.map(|envelope| CapturedRequest {
            receive_time: Some(timestamp(envelope.time)),
            data_plane: row.data_plane.clone(),
            raw_json: envelope.body.text().to_owned(),
            parameters: flatten(envelope).iter().map(|(path, leaf)| parameter(path, leaf)).collect(),
        }),
    }
}

fn parameter(path: &str, leaf: &Leaf<'_>) -> CapturedParameter {
    let text = match leaf {
        Leaf::Text(text) => (*text).to_owned(),
        other => other.to_string(),
    };
    CapturedParameter {
        path: path.to_owned(),
        kind: kind(leaf).into(),
        value: text.chars().take(VALUE_CHARS_MAX).collect(),
    }
}

/// Sends a capture as it is, and again when it has ended.
pub(crate) async fn watch(
    shared: &Arc<Shared>,
    asked: WatchCaptureRequest,
) -> Result<Response<Watched<WatchCaptureResponse>>, Failure> {
    let integration = parse(&asked.name)?;
    let wake = shared.wakes.captures();
    let first = read(shared, &mut shared.store.read().await?, &integration).await?;
    let first = first.ok_or_else(|| Failure::NotFound(asked.name.clone()))?;
    let work_of = shared.clone();
    watched(shared, 2, async move |out| follow(&work_of, &integration, &asked.uid, first, wake, out).await)
}

async fn follow(
    shared: &Shared,
    integration: &Name,
    wanted: &str,
    first: Capture,
    mut wake: tokio::sync::watch::Receiver<()>,
    out: Out<WatchCaptureResponse>,
) -> Result<(), Failure> {
    let wanted = if wanted.is_empty() { first.uid.clone() } else { wanted.to_owned() };
    let mut capture = first.clone();
    let mut told = false;
    loop {
        if capture.uid != wanted {
            let state = CaptureState::Replaced.into();
            capture = Capture { name: first.name.clone(), uid: wanted.clone(), state, ..Capture::default() };
        }
        let waits = capture.state() == CaptureState::Waiting;
        if !told || !waits {
            told = true;
            if !out.send(WatchCaptureResponse { capture: Some(capture) }).await? || !waits {
                return Ok(());
            }
        }
        tokio::select! {
            () = shared.stop.cancelled() => return Err(Failure::Stopping),
            () = out.closed() => return Ok(()),
            _ = wake.changed() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
        capture = read(shared, &mut shared.store.read().await?, integration).await?.unwrap_or_default();
    }
}

/// Stops waiting and forgets what came.
pub(crate) async fn cancel(
    shared: &Arc<Shared>,
    call: Call,
    asked: CancelCaptureRequest,
) -> Result<CancelCaptureResponse, Failure> {
    let name = parse(&asked.name)?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    lock(&mut change, &name.workspace, &name.full).await?;
    let row = change.tx.capture(&name.full).await?.filter(|row| row.workspace == name.workspace);
    let row = row.ok_or_else(|| Failure::NotFound(asked.name.clone()))?;
    change.tx.capture_delete(&name.full).await?;
    let only_tried = change.validate_only();
    let answer = change.finish(shared, CancelCaptureResponse {}).await?;
    if !only_tried {
        close(shared, &row.uid);
    }
    Ok(answer)
}

/// Stores the list of parameters with the draft (R169).
pub(crate) async fn confirm(
    shared: &Shared,
    call: Call,
    asked: ConfirmCaptureRequest,
) -> Result<IncomingIntegration, Failure> {
    let name = parse(&asked.name)?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let workspace = lock(&mut change, &name.workspace, &name.full).await?;
    let mut stored = Stored::<IncomingIntegration>::load(&mut change.tx, &name, &asked.etag).await?;
    let row = change.tx.capture(&name.full).await?.filter(|row| row.uid == asked.uid);
    let envelope = row.map(|row| unsealed(shared, &workspace, &row)).transpose()?.flatten();
    let envelope = envelope.ok_or_else(|| Failure::NotCaptured(name.full.clone()))?;
    let sample = listed(&envelope)?;
    let mut draft = stored.draft.clone();
    if draft.sample.as_ref() != Some(&sample) {
        draft.sample = Some(sample);
        change.found.extend(draft.violations(&Rules::without_snippets(&shared.settings.urls)));
        change.refuse_broken()?;
        let secrets = stored.secrets.clone();
        stored.save(draft, secrets, change.now);
        change.tx.document_put(&stored.row).await?;
    }
    answer(shared, change, &stored).await
}

fn listed(envelope: &Envelope) -> Result<Sample, Failure> {
    let parameters: Vec<SampleParameter> =
        flatten(envelope).into_iter().map(|(path, leaf)| SampleParameter { path, kind: kind(&leaf).into() }).collect();
    let bytes: usize = parameters.iter().map(|parameter| parameter.path.len()).sum();
    if bytes > SAMPLE_BYTES_MAX {
        let message = format!("the paths of its parameters have {bytes} bytes; the limit is {SAMPLE_BYTES_MAX}");
        return Err(Failure::field("name", "TOO_LONG", message));
    }
    Ok(Sample { capture_time: Some(timestamp(envelope.time)), parameters })
}
