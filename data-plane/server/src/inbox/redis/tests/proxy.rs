//! Stands between a plane and its Redis: plays a newer release that has replicas, and loses answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use sluice_core::seal::Secret;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

/// What it does to what passes.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// How many replicas have flushed, when WAITAOF asks.
    pub(super) replicas: AtomicI64,
    /// Whether WAITAOF was asked.
    pub(super) waits: AtomicUsize,
    /// So many answers to scripts are swallowed from now on, and their connection is cut.
    pub(super) lost: AtomicUsize,
}

pub(super) struct Proxy {
    dir: TempDir,
    pub(super) faults: Arc<Faults>,
}

impl Proxy {
    pub(super) fn before(server: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let faults = Arc::new(Faults::default());
        tokio::spawn(serve(listener, server.join("socket"), faults.clone()));
        Self { dir, faults }
    }

    pub(super) fn url(&self) -> Secret {
        Secret::new(format!("unix://{}", self.dir.path().join("socket").display()))
    }
}

async fn serve(listener: UnixListener, server: PathBuf, faults: Arc<Faults>) {
    while let Ok((plane, _)) = listener.accept().await {
        let Ok(redis) = UnixStream::connect(&server).await else { continue };
        let (from_plane, to_plane) = plane.into_split();
        let (from_redis, to_redis) = redis.into_split();
        let waits = Arc::new(AtomicUsize::new(0));
        let asking = tokio::spawn(ask(from_plane, to_redis, waits.clone()));
        let faults = faults.clone();
        tokio::spawn(async move {
            answer(from_redis, to_plane, &faults, &waits).await;
            asking.abort();
        });
    }
}

/// WAITAOF becomes PING, whose answer is replaced.
async fn ask(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, waits: Arc<AtomicUsize>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        let asked = &bytes[..length];
        let is_wait = asked.starts_with(b"*4\r\n$7\r\nWAITAOF\r\n");
        if is_wait {
            waits.fetch_add(1, Ordering::SeqCst);
        }
        if to.write_all(if is_wait { b"*1\r\n$4\r\nPING\r\n" } else { asked }).await.is_err() {
            return;
        }
    }
}

async fn answer(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, faults: &Faults, waits: &AtomicUsize) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        let mut answer = bytes[..length].to_vec();
        if waits.load(Ordering::SeqCst) > 0 && answer == b"+PONG\r\n" {
            waits.fetch_sub(1, Ordering::SeqCst);
            faults.waits.fetch_add(1, Ordering::SeqCst);
            answer = format!("*2\r\n:1\r\n:{}\r\n", faults.replicas.load(Ordering::SeqCst)).into_bytes();
        }
        // What a script of ours answers, and nothing else.
        let is_step = answer.starts_with(b"*7\r\n");
        if is_step && faults.lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |lost| lost.checked_sub(1)).is_ok() {
            return;
        }
        let text = b"redis_version:7.0";
        if let Some(at) = answer.windows(text.len()).position(|part| part == text) {
            answer[at + text.len() - 1] = b'2';
        }
        if to.write_all(&answer).await.is_err() {
            return;
        }
    }
}
