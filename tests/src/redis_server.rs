//! A Redis server of a test's own, on a socket in a folder of its own, to be killed and started again.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use sluice_core::seal::Secret;
use sluice_data_plane::inbox::RedisSettings;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::{Authority, eventually, within};

/// The variable that has every test run on a Redis of its own instead of an embedded inbox: `redis`.
pub const ASKED: &str = "SLUICE_TEST_INBOX";

/// A server that keeps what mode `strict` promises.
#[derive(Debug)]
pub struct RedisServer {
    dir: TempDir,
    options: Vec<String>,
    url: String,
    child: Child,
}

impl RedisServer {
    /// Starts one.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = spawn(dir.path(), &[]).await;
        let url = format!("unix://{}", socket(dir.path()).display());
        Self { dir, options: Vec::new(), url, child }
    }

    /// Starts one that is reached over TLS, with a certificate of this authority.
    pub async fn start_with_tls(authority: &Authority) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = authority.write(dir.path(), &["localhost"]);
        let (certificate, key) = (files.certificate.display().to_string(), files.key.display().to_string());
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port().to_string();
        drop(free);
        let options = [
            ["--tls-port", &port],
            ["--bind", "127.0.0.1"],
            ["--tls-cert-file", &certificate],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &certificate],
            ["--tls-auth-clients", "no"],
        ];
        let options: Vec<String> = options.iter().flatten().map(ToString::to_string).collect();
        let child = spawn(dir.path(), &options).await;
        Self { dir, options, url: format!("rediss://localhost:{port}"), child }
    }

    /// One for this test, if whoever runs the tests asked for it.
    ///
    /// # Panics
    /// If something else was asked for.
    #[expect(clippy::disallowed_methods, reason = "a test has no caller to bring its settings")]
    pub async fn if_asked() -> Option<Self> {
        match std::env::var(ASKED).as_deref() {
            Err(_) | Ok("embedded") => None,
            Ok("redis") => Some(Self::start().await),
            Ok(other) => panic!("{ASKED} is `{other}`; it must be `embedded` or `redis`"),
        }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Where it keeps what it keeps.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// An inbox on it.
    pub fn inbox(&self, plane: &str) -> RedisSettings {
        RedisSettings::new(Secret::new(self.url()), plane)
    }

    /// `kill -9`, and a new one on what it left on disk.
    pub async fn crash(&mut self) {
        self.child.kill().await.unwrap();
        self.start_again().await;
    }

    /// SIGTERM, and a new one on what it left on disk.
    pub async fn restart(&mut self) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").arg("-TERM").arg(id).status().await.unwrap();
        assert!(sent.success());
        within("Redis to end", self.child.wait()).await.unwrap();
        self.start_again().await;
    }

    async fn start_again(&mut self) {
        let _gone = std::fs::remove_file(socket(self.dir.path()));
        self.child = spawn(self.dir.path(), &self.options).await;
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("socket")
}

async fn spawn(dir: &Path, options: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    command.arg("--unixsocket").arg(socket(dir)).arg("--dir").arg(dir).args(options).kill_on_drop(true);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.expect("redis-server is needed: tests/run installs it");
    eventually("Redis to serve", || async {
        let mut stream = UnixStream::connect(socket(dir)).await.ok()?;
        stream.write_all(b"PING\r\n").await.ok()?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await.ok()?;
        // Not while it is loading.
        (&answer == b"+PONG").then_some(())
    })
    .await;
    child
}
