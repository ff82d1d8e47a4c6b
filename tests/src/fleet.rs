//! Many data planes without insides, to see what a control plane bears: each has a stream, takes what comes, and acknowledges it by its
//! cursor without opening it. One that is turned away comes back later, as a real one does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_data_plane::link::Backoff;
use sluice_proto::sync::v1::sync_request::Kind as Say;
use sluice_proto::sync::v1::sync_response::Kind as Hear;
use sluice_proto::sync::v1::sync_service_client::SyncServiceClient;
use sluice_proto::sync::v1::{Ack, Cursor, Hello, SyncRequest, SyncResponse};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// Streams on one connection: below what the control plane lets one have.
const STREAMS_PER_CONNECTION: usize = 100;

/// The data planes `lean-0`, `lean-1` and so on; dropping it ends them.
#[derive(Debug)]
pub struct Fleet {
    planes: Vec<watch::Receiver<Plane>>,
    counts: Arc<Counts>,
    _running: JoinSet<()>,
}

/// What all of them have seen together.
#[derive(Debug, Default)]
pub struct Counts {
    /// Streams that began.
    pub streams: AtomicU64,
    /// Streams that were refused or broke.
    pub broken: AtomicU64,
    /// Deltas and snapshots, whole or in parts.
    pub changes: AtomicU64,
    /// Bytes of their bodies.
    pub bytes: AtomicU64,
}

/// What one holds.
#[derive(Clone, Debug, Default)]
struct Plane {
    epoch: String,
    /// By workspace.
    held: BTreeMap<String, Cursor>,
    /// Everything has come on the stream that lives now.
    synced: bool,
}

impl Fleet {
    /// So many data planes that call `url` with the key of data planes. They are connected one after the other or not at all: wait for it.
    pub fn start(url: &str, key: &str, count: usize) -> Self {
        let counts = Arc::<Counts>::default();
        let key = AsciiMetadataValue::try_from(format!("Bearer {}", key.trim())).expect("a key");
        let (mut planes, mut running) = (Vec::new(), JoinSet::new());
        let mut channels = Vec::new();
        for number in 0..count {
            if number % STREAMS_PER_CONNECTION == 0 {
                channels.push(Channel::from_shared(url.to_owned()).expect("a URL").connect_lazy());
            }
            let (tell, told) = watch::channel(Plane::default());
            let lean = Lean { id: format!("lean-{number}"), key: key.clone(), tell, counts: counts.clone() };
            running.spawn(lean.run(channels.last().expect("one was made").clone()));
            planes.push(told);
        }
        Self { planes, counts, _running: running }
    }

    /// What they have seen so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Waits until all are connected and have everything.
    pub async fn synced(&self) {
        self.all(|plane| plane.synced).await;
    }

    /// Waits until all serve this revision of a workspace.
    pub async fn serve(&self, workspace: &str, revision: i64) {
        self.all(|plane| plane.held.get(workspace).is_some_and(|held| held.revision >= revision)).await;
    }

    async fn all(&self, is: impl Fn(&Plane) -> bool) {
        for plane in &self.planes {
            plane.clone().wait_for(&is).await.expect("it lives as long as the fleet");
        }
    }
}

/// One data plane.
struct Lean {
    id: String,
    key: AsciiMetadataValue,
    tell: watch::Sender<Plane>,
    counts: Arc<Counts>,
}

impl Lean {
    async fn run(self, channel: Channel) {
        let mut backoff = Backoff::default();
        loop {
            // Why it ended is the control plane's to tell.
            let ended = self.stream(channel.clone(), &mut backoff).await;
            self.tell.send_modify(|plane| plane.synced = false);
            if ended.is_err() {
                self.counts.broken.fetch_add(1, Ordering::Relaxed);
            }
            // Capped, so that a test need not wait for the longest.
            tokio::time::sleep(backoff.failed().min(Duration::from_secs(1))).await;
        }
    }

    async fn stream(&self, channel: Channel, backoff: &mut Backoff) -> Result<(), Status> {
        let (say, said) = mpsc::channel(16);
        let held = self.tell.borrow().clone();
        let hello = Hello {
            data_plane_id: self.id.clone(),
            build: "lean".to_owned(),
            store_epoch: held.epoch,
            cursors: held.held.into_values().collect(),
            ..Hello::default()
        };
        let send =
            async |kind| say.send(SyncRequest { kind: Some(kind) }).await.map_err(|_| Status::unavailable("closed"));
        send(Say::Hello(hello)).await?;
        let mut request = Request::new(ReceiverStream::new(said));
        request.metadata_mut().insert("authorization", self.key.clone());
        let mut hear: Streaming<SyncResponse> = SyncServiceClient::new(channel).sync(request).await?.into_inner();
        self.counts.streams.fetch_add(1, Ordering::Relaxed);
        while let Some(heard) = hear.message().await? {
            backoff.reset();
            if let Some(serving) = self.take(heard) {
                send(Say::Ack(Ack { serving: Some(serving), apply_micros: 1, ..Ack::default() })).await?;
            }
        }
        Ok(())
    }

    /// Takes what was heard over; the cursor to acknowledge.
    fn take(&self, heard: SyncResponse) -> Option<Cursor> {
        let (cursor, bytes, is_whole) = match heard.kind? {
            Hear::Welcome(welcome) => {
                self.tell.send_modify(|plane| plane.epoch = welcome.store_epoch);
                return None;
            }
            Hear::Synced(_) => {
                self.tell.send_modify(|plane| plane.synced = true);
                return None;
            }
            Hear::Drop(drop) => {
                self.tell.send_modify(|plane| drop_held(plane, &drop.workspace));
                return None;
            }
            Hear::Command(_) | Hear::Fleet(_) | Hear::BeatHeard(_) => return None,
            Hear::Delta(delta) => (delta.cursor?, delta.body.len(), true),
            Hear::Snapshot(part) => (part.cursor?, part.body.len(), part.index + 1 == part.count),
        };
        self.counts.changes.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if !is_whole {
            return None;
        }
        self.tell.send_modify(|plane| drop(plane.held.insert(cursor.workspace.clone(), cursor.clone())));
        Some(cursor)
    }
}

fn drop_held(plane: &mut Plane, workspace: &str) {
    plane.held.remove(workspace);
}
