//! A Redis server of a test's own, on a socket in a folder of its own, to be killed and started again.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use sluice_core::seal::Secret;
use sluice_data_plane::inbox::RedisSettings;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::subject::signal;
use crate::{Authority, eventually, within};

/// The variable that names the program of every server, such as Valkey's; `redis-server` otherwise.
const PROGRAM: &str = "SLUICE_TEST_REDIS_SERVER";

/// The variable that has every test run on a Redis of its own instead of an embedded inbox: `redis`.
pub const ASKED: &str = "SLUICE_TEST_INBOX";

/// A server that keeps what mode `strict` promises.
#[derive(Debug)]
pub struct RedisServer {
    dir: TempDir,
    options: Vec<String>,
    under: Vec<String>,
    url: String,
    child: Child,
}

impl RedisServer {
    /// Starts one.
    pub async fn start() -> Self {
        Self::start_with(&[], &[]).await
    }

    /// Starts one that others may follow.
    pub async fn start_primary() -> Self {
        Self::start_with(&["--port", &free_port(), "--bind", "127.0.0.1"], &[]).await
    }

    /// Starts one that follows this primary.
    pub async fn start_replica(primary: &Self) -> Self {
        let port = primary.options.get(1).unwrap();
        Self::start_with(&["--replicaof", "127.0.0.1", port], &[]).await
    }

    /// Starts one with these options besides; of two that say the same the later counts. It is started by `under`, as a
    /// [`Setup`](crate::subject::Setup) says.
    pub async fn start_with(options: &[&str], under: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        let under: Vec<String> = under.iter().map(ToString::to_string).collect();
        let child = spawn(dir.path(), &options, &under).await;
        let url = format!("unix://{}", socket(dir.path()).display());
        Self { dir, options, under, url, child }
    }

    /// Starts one that is reached over TLS, with a certificate of this authority.
    pub async fn start_with_tls(authority: &Authority) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = authority.write(dir.path(), &["localhost"]);
        let (certificate, key) = (files.certificate.display().to_string(), files.key.display().to_string());
        let port = free_port();
        let options = [
            ["--tls-port", &port],
            ["--bind", "127.0.0.1"],
            ["--tls-cert-file", &certificate],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &certificate],
            ["--tls-auth-clients", "no"],
        ];
        let options: Vec<String> = options.iter().flatten().map(ToString::to_string).collect();
        let child = spawn(dir.path(), &options, &[]).await;
        Self { dir, options, under: Vec::new(), url: format!("rediss://localhost:{port}"), child }
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

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        socket(self.dir.path())
    }

    /// How many commands it was sent: questions for numbers, and what scripts do inside of it, do not count.
    pub async fn commands(&self) -> u64 {
        let mut stream = UnixStream::connect(socket(self.dir.path())).await.unwrap();
        stream.write_all(b"INFO commandstats\r\nPING\r\n").await.unwrap();
        let mut told = String::new();
        let mut part = [0; 4096];
        loop {
            let length = stream.read(&mut part).await.unwrap();
            assert!(length > 0, "Redis does not tell");
            told.push_str(&String::from_utf8_lossy(&part[..length]));
            if told.ends_with("+PONG\r\n") {
                break;
            }
        }
        let sent = told.lines().filter_map(|line| {
            let (command, numbers) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let is_sent = ["fcall", "eval", "xread"].iter().any(|name| command.starts_with(name));
            let is_sent = is_sent || ["script|load", "function|load"].contains(&command);
            is_sent.then(|| numbers.split(',').next().unwrap().parse::<u64>().unwrap())
        });
        sent.sum()
    }

    /// `kill -9`, and a new one on what it left on disk.
    pub async fn crash(&mut self) {
        self.kill().await;
        self.revive().await;
    }

    /// SIGTERM, and a new one on what it left on disk.
    pub async fn restart(&mut self) {
        self.signal("-TERM");
        within("Redis to end", self.child.wait()).await.unwrap();
        let _gone = std::fs::remove_file(self.socket());
        self.revive().await;
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
        let _gone = std::fs::remove_file(self.socket());
    }

    /// A new one on what the one before left on disk, or what stands there now.
    pub async fn revive(&mut self) {
        self.child = spawn(self.dir.path(), &self.options, &self.under).await;
    }

    /// Sends it a signal, for example `-STOP`.
    pub fn signal(&self, name: &str) {
        signal(name, self.child.id());
    }

    /// How many scripts it was asked to run.
    pub async fn scripts_run(&self) -> u64 {
        let told = self.tell("INFO commandstats").await;
        let calls = told.split("cmdstat_fcall:calls=").nth(1).and_then(|rest| rest.split(',').next());
        calls.map_or(0, |calls| calls.parse().unwrap())
    }

    /// A connection for the test itself.
    pub async fn console(&self) -> Console {
        console(&self.socket()).await
    }

    /// Says a command on a connection of its own.
    pub async fn tell(&self, command: &str) -> String {
        tell(&self.socket(), command).await
    }
}

/// A connection on which commands are said as they are typed.
#[derive(Debug)]
pub struct Console(BufReader<UnixStream>);

impl Console {
    /// Says a command. Answers the line that was answered, or the text that it announces.
    pub async fn tell(&mut self, command: &str) -> String {
        within("Redis to answer", async {
            self.0.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
            let mut line = String::new();
            self.0.read_line(&mut line).await.unwrap();
            let Some(length) = line.strip_prefix('$').and_then(|length| length.trim().parse().ok()) else {
                return line.trim().to_owned();
            };
            // Its end of line belongs to it.
            let mut text = vec![0; length + 2];
            self.0.read_exact(&mut text).await.unwrap();
            String::from_utf8_lossy(&text[..length]).into_owned()
        })
        .await
    }
}

async fn console(socket: &Path) -> Console {
    let stream = within("Redis to listen", UnixStream::connect(socket)).await.unwrap();
    Console(BufReader::new(stream))
}

/// Says a command to whoever listens on this socket, on a connection of its own.
pub async fn tell(socket: &Path, command: &str) -> String {
    console(socket).await.tell(command).await
}

fn free_port() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port().to_string()
}

#[expect(clippy::disallowed_methods, reason = "a test has no caller to bring its settings")]
fn program() -> String {
    std::env::var(PROGRAM).unwrap_or_else(|_| "redis-server".to_owned())
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("socket")
}

async fn spawn(dir: &Path, options: &[String], under: &[String]) -> Child {
    let mut words = under.to_vec();
    words.push(program());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command.args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    command.arg("--unixsocket").arg(socket(dir)).arg("--dir").arg(dir).args(options).kill_on_drop(true);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.expect("a Redis server is needed: tests/run installs it");
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
