//! A Redis server that others reach over TCP: a node of a cluster, a primary, a replica.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ::redis::{Connection, FromRedisValue, cmd};

use super::server::program;

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Node {
    pub(super) dir: tempfile::TempDir,
    pub(super) port: u16,
    /// Of the cluster, where it is one's.
    pub(super) bus: u16,
    options: &'static [&'static str],
    child: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_gone = self.child.wait();
    }
}

impl Node {
    /// Takes other ports if somebody else was faster.
    pub(super) async fn start(options: &'static [&'static str]) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (dir, port, bus) = (tempfile::tempdir().unwrap(), free(), free());
            let child = spawn(dir.path(), port, bus, options);
            let mut node = Self { dir, port, bus, options, child };
            if node.answers(deadline).await {
                return node;
            }
        }
    }

    /// Whether it serves, or has ended.
    async fn answers(&mut self, deadline: Instant) -> bool {
        while self.child.try_wait().unwrap().is_none() {
            if self.connect().is_ok_and(|mut connection| cmd("PING").query::<String>(&mut connection).is_ok()) {
                return true;
            }
            assert!(Instant::now() < deadline, "a node does not start");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    pub(super) fn connect(&self) -> ::redis::RedisResult<Connection> {
        ::redis::Client::open(self.url())?.get_connection()
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(super) fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        command.query(&mut self.connect().unwrap()).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub(super) fn id(&self) -> String {
        self.ask(&["CLUSTER", "MYID"])
    }

    pub(super) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(name).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success());
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on what it left on disk.
    pub(super) async fn restart(&mut self) {
        self.child = spawn(self.dir.path(), self.port, self.bus, self.options);
        assert!(self.answers(Instant::now() + PATIENCE).await, "its port is taken");
    }
}

fn spawn(dir: &Path, port: u16, bus: u16, options: &[&str]) -> Child {
    let mut command = Command::new(program());
    command.args(["--port", &port.to_string(), "--cluster-port", &bus.to_string(), "--bind", "127.0.0.1"]);
    command.args(["--save", "", "--repl-diskless-sync-delay", "0", "--appendonly", "yes", "--appendfsync", "always"]);
    command.arg("--dir").arg(dir).args(options);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.expect("a Redis server is needed: tests/run installs it")
}

pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "gave up waiting: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
