//! The store alone: the rows of a trigger through an inbox, without HTTP. What a trigger can reach at most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use sluice_core::envelope::{Envelope, Headers};
use sluice_data_plane::clock::Clock;
use sluice_data_plane::inbox::{Accept, Accepted, Claim, EmbeddedSettings, Flow, Inbox, InboxSettings, Lane, NewJob};
use sluice_proto::sync::v1::Job;
use sluice_tests::RedisServer;
use tempfile::TempDir;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::process::Watched;
use crate::table::Round;

/// How long a dedup key stays (R144).
const WINDOW: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// An inbox of its own.
pub(crate) struct Rows {
    inbox: Inbox,
    payload: Bytes,
    _folder: TempDir,
}

impl Rows {
    pub(crate) async fn embedded(body: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = InboxSettings::Embedded(EmbeddedSettings::new(folder.path().join("inbox.db")));
        Self::open(settings, body, folder).await
    }

    pub(crate) async fn redis(server: &RedisServer, body: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::open(InboxSettings::Redis(server.inbox("rows")), body, folder).await
    }

    async fn open(settings: InboxSettings, body: &str, folder: TempDir) -> Self {
        let inbox = Inbox::open(settings, Clock::system()).await.expect("an inbox");
        let headers = [("Host", "127.0.0.1:8080"), ("Content-Type", "application/json"), ("Content-Length", "1024")];
        let envelope = Envelope {
            body: serde_json::from_str(body).expect("JSON"),
            business_profile_id: 1,
            endpoint_id: "0123456789abcdef0123456789abcdef".to_owned(),
            event_id: Uuid::now_v7().to_string(),
            headers: headers.into_iter().collect::<Headers>(),
            method: "POST".to_owned(),
            time: 1_800_000_000_000,
        };
        let job = Job {
            workspace: "workspaces/acme".to_owned(),
            workflow: "workspaces/acme/workflows/load".to_owned(),
            step_id: Uuid::now_v7().to_string(),
            trigger_id: envelope.event_id.clone(),
            revision: 1,
            envelope: envelope.to_json().into(),
            ..Job::default()
        };
        Self { inbox, payload: job.encode_to_vec().into(), _folder: folder }
    }

    /// So many callers at once, each with a key of its own each time.
    pub(crate) async fn round(&self, callers: usize, time: Duration) -> Round {
        let (begun, watched) = (Instant::now(), Watched::this());
        let cpu = watched.cpu();
        let flow = Arc::new(Flow {
            workspace: "workspaces/acme".to_owned(),
            destination: "api.example.com".to_owned(),
            owner: "workspaces/acme/workflows/load".to_owned(),
        });
        let mut all = JoinSet::new();
        for _ in 0..callers {
            let (inbox, payload, flow) = (self.inbox.clone(), self.payload.clone(), flow.clone());
            all.spawn(async move {
                let mut latencies = Vec::new();
                while begun.elapsed() < time {
                    let asked = Instant::now();
                    let mut key = [0; 32];
                    key[..16].copy_from_slice(Uuid::new_v4().as_bytes());
                    let job =
                        |payload| NewJob { id: Uuid::now_v7(), lane: Lane::Realtime, flow: flow.clone(), payload };
                    let claim = Some(Claim { key, window: WINDOW });
                    let accept = Accept { request: Uuid::now_v7(), claim, jobs: vec![job(payload.clone())] };
                    assert_eq!(inbox.accept(accept).await, Ok(Accepted::Accepted));
                    latencies.push(asked.elapsed());
                }
                latencies
            });
        }
        let latencies: Vec<Duration> = all.join_all().await.into_iter().flatten().collect();
        Round { count: latencies.len(), time: begun.elapsed(), latencies, cpu: watched.cpu() - cpu, resident: 0.0 }
    }
}
