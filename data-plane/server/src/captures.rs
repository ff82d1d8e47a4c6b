//! Waiting for one request to an endpoint while an integration is built (D23): which captures are open here, and what came.
//!
//! Level-triggered: a sample stays until the control plane has closed its capture, and is told again on every new stream. Captures
//! end by themselves when their time is over, so that nothing has to be told to a data plane that was away.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message as _;
use sluice_core::envelope::{Envelope, Headers};
use sluice_core::redact::{MASK, is_sender_secret};
use sluice_proto::admin::v1::Problem;
use sluice_proto::sync::v1::{CaptureSample, OpenCapture, SyncRequest, sync_request};
use tokio::sync::{mpsc, watch};

use crate::plane::Plane;
use crate::runtime::{self, Endpoint, Of, Receiver, Runtime};

/// Captures that may be open at once; each may hold one body.
const OPEN_MAX: usize = 256;

/// How long what came is kept when nobody closes its capture, in milliseconds.
const KEPT_MILLIS: i64 = 600_000;

/// The captures of a data plane.
pub struct Captures {
    open: Mutex<HashMap<String, Open>>,
    /// Whether any is open: what every trigger asks, without waiting for the others.
    any: AtomicBool,
    /// Moves when a sample came.
    came: watch::Sender<()>,
}

/// One open capture, by the id of its endpoint.
struct Open {
    id: String,
    /// In milliseconds since 1970.
    expires: i64,
    draft: Draft,
    sample: Option<CaptureSample>,
}

/// A draft's endpoint.
pub struct Draft {
    /// Its rules.
    pub incoming: Arc<Receiver>,
    /// `workspaces/{workspace}`.
    pub workspace: String,
    /// The number templates see.
    pub business_profile_id: u64,
}

/// Why a capture is not opened.
#[derive(Debug)]
pub enum NotOpened {
    /// [`OPEN_MAX`] are open.
    TooMany,
    /// The draft cannot be used here.
    Draft(Vec<Problem>),
}

impl Default for Captures {
    fn default() -> Self {
        Self { open: Mutex::default(), any: AtomicBool::default(), came: watch::Sender::new(()) }
    }
}

impl fmt::Debug for Captures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Captures").field("open", &self.lock().len()).finish_non_exhaustive()
    }
}

/// Opens a capture; one of the same endpoint is closed. One that is open already keeps what came.
///
/// # Errors
/// Why not.
pub fn open(plane: &Plane, asked: &OpenCapture) -> Result<(), NotOpened> {
    let keys = plane.ring.keys_for(asked.data_key.as_ref().map_or("", |key| key.key_id.as_str()));
    let draft = runtime::draft(asked, &keys).map_err(NotOpened::Draft)?;
    let now = plane.clock.now();
    let remaining = asked.remaining.and_then(|remaining| std::time::Duration::try_from(remaining).ok());
    let remaining = i64::try_from(remaining.unwrap_or_default().as_millis()).unwrap_or_default();
    let mut open = plane.captures.lock();
    open.retain(|_, capture| capture.is_kept(now));
    let endpoint = draft.incoming.endpoint_id.to_string();
    if open.get(&endpoint).is_some_and(|capture| capture.id == asked.capture_id) {
        return Ok(());
    }
    if open.len() >= OPEN_MAX && !open.contains_key(&endpoint) {
        return Err(NotOpened::TooMany);
    }
    let expires = now.saturating_add(remaining);
    open.insert(endpoint, Open { id: asked.capture_id.clone(), expires, draft, sample: None });
    plane.captures.any.store(true, Ordering::Release);
    Ok(())
}

impl Captures {
    /// Closes a capture and forgets what came.
    pub fn close(&self, id: &str) {
        let mut open = self.lock();
        open.retain(|_, capture| capture.id != id);
        self.any.store(!open.is_empty(), Ordering::Release);
    }

    /// The endpoint of a draft, while a capture waits for a request to it.
    pub fn draft(&self, endpoint_id: &str, runtime: &Runtime, now: i64) -> Option<Endpoint> {
        let open = self.lock();
        let capture = open.get(endpoint_id).filter(|capture| capture.waits(now))?;
        let Draft { incoming, workspace, business_profile_id } = &capture.draft;
        let login = runtime.workspace(workspace).map(|workspace| workspace.login.clone());
        let of = Of {
            workspace: workspace.clone(),
            business_profile_id: *business_profile_id,
            revision: 0,
            login: login.unwrap_or_default(),
            is_draft: true,
        };
        Some(Endpoint::new(incoming.clone(), Arc::new(of)))
    }

    /// Gives a request to the capture that waits for one to its endpoint. Whether it was the one.
    pub fn offer(&self, envelope: &Envelope, now: i64) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let mut open = self.lock();
        let Some(capture) = open.get_mut(&envelope.endpoint_id).filter(|capture| capture.waits(now)) else {
            return false;
        };
        capture.sample = Some(CaptureSample {
            capture_id: capture.id.clone(),
            workspace: capture.draft.workspace.clone(),
            envelope: masked(envelope).to_json().into(),
        });
        self.came.send_replace(());
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        // Nothing panics while it is held; if something did, what is in it is still whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn is_kept(&self, now: i64) -> bool {
        let longer = if self.sample.is_some() { KEPT_MILLIS } else { 0 };
        now < self.expires.saturating_add(longer)
    }

    fn waits(&self, now: i64) -> bool {
        self.sample.is_none() && now < self.expires
    }
}

/// A request without the secrets of its sender.
fn masked(envelope: &Envelope) -> Envelope {
    let shown = |(name, value)| (name, if is_sender_secret(name) { MASK } else { value });
    Envelope { headers: Headers::from_iter(envelope.headers.iter().map(shown)), ..envelope.clone() }
}

/// Tells a new stream of every sample that is held, then of each that comes.
///
/// # Errors
/// The stream is gone.
pub async fn tell(plane: &Plane, answers: mpsc::Sender<SyncRequest>) -> Result<(), String> {
    let mut came = plane.captures.came.subscribe();
    let mut told: HashSet<String> = HashSet::new();
    loop {
        came.mark_unchanged();
        let samples: Vec<CaptureSample> = {
            let open = plane.captures.lock();
            told.retain(|id| open.values().any(|capture| capture.id == *id));
            let untold = open.values().filter_map(|capture| capture.sample.as_ref());
            untold.filter(|sample| !told.contains(&sample.capture_id)).cloned().collect()
        };
        for sample in samples {
            tracing::info!(capture = sample.capture_id, bytes = sample.encoded_len(), "a request was captured");
            told.insert(sample.capture_id.clone());
            let kind = Some(sync_request::Kind::Sample(sample));
            answers.send(SyncRequest { kind }).await.map_err(|_closed| "closed".to_owned())?;
        }
        came.changed().await.map_err(|_closed| "closed".to_owned())?;
    }
}
