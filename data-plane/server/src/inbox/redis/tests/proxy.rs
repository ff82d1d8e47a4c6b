//! Stands between a plane and its Redis: plays a newer release that has replicas, and loses answers.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sluice_core::seal::Secret;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// What it does to what passes.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// How many replicas have flushed, when WAITAOF asks.
    pub(super) replicas: AtomicI64,
    /// Whether WAITAOF was asked.
    pub(super) waits: AtomicUsize,
    /// What the question says whose answer is swallowed, and its connection cut. The next one that says it, and no other: a plane also
    /// asks by itself.
    lost: Mutex<Option<Vec<u8>>>,
    /// What scripts answer is not passed on while it is set.
    pub(super) held: watch::Sender<bool>,
}

impl Faults {
    pub(super) fn lose_answer_to(&self, said: &[u8]) {
        *self.lost.lock().unwrap() = Some(said.to_vec());
    }

    /// Whether the answer to this question is to be swallowed.
    fn loses(&self, asked: &[u8]) -> bool {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.take_if(|said| asked.windows(said.len()).any(|part| part == said)).is_some()
    }
}

/// What a connection waits for.
#[derive(Default)]
struct Asked {
    waits: AtomicUsize,
    loses: AtomicBool,
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
        let asked = Arc::new(Asked::default());
        let asking = tokio::spawn(ask(from_plane, to_redis, faults.clone(), asked.clone()));
        let faults = faults.clone();
        tokio::spawn(async move {
            answer(from_redis, to_plane, &faults, &asked).await;
            asking.abort();
        });
    }
}

/// WAITAOF becomes PING, whose answer is replaced.
async fn ask(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, faults: Arc<Faults>, asked: Arc<Asked>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        let question = &bytes[..length];
        let is_wait = question.starts_with(b"*4\r\n$7\r\nWAITAOF\r\n");
        if is_wait {
            asked.waits.fetch_add(1, Ordering::SeqCst);
        }
        if faults.loses(question) {
            asked.loses.store(true, Ordering::SeqCst);
        }
        if to.write_all(if is_wait { b"*1\r\n$4\r\nPING\r\n" } else { question }).await.is_err() {
            return;
        }
    }
}

async fn answer(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, faults: &Faults, asked: &Asked) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        let mut answer = bytes[..length].to_vec();
        if asked.waits.load(Ordering::SeqCst) > 0 && answer == b"+PONG\r\n" {
            asked.waits.fetch_sub(1, Ordering::SeqCst);
            faults.waits.fetch_add(1, Ordering::SeqCst);
            answer = format!("*2\r\n:1\r\n:{}\r\n", faults.replicas.load(Ordering::SeqCst)).into_bytes();
        }
        // What a script of ours answers, maybe behind the news that it published, and nothing else.
        let is_of_script = answer.windows(4).any(|part| part == b"*7\r\n");
        if is_of_script {
            let mut held = faults.held.subscribe();
            let _open = held.wait_for(|held| !held).await;
        }
        if is_of_script && asked.loses.load(Ordering::SeqCst) {
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
