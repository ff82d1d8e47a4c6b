//! A Redis server of a test's own, on a socket in a folder of its own, to be killed and started again.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sluice_core::seal::Secret;
use tempfile::TempDir;

/// A start takes no longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program of every server: `redis-server` unless `SLUICE_TEST_REDIS_SERVER` names another, such as that of Valkey.
#[expect(clippy::disallowed_methods, reason = "a test has no caller to bring its settings")]
pub(super) fn program() -> String {
    std::env::var("SLUICE_TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

pub(in crate::inbox) struct Server {
    dir: TempDir,
    options: Vec<String>,
    /// The largest a file may become, in KiB.
    room: Option<u32>,
    child: Child,
}

impl Server {
    /// One that keeps what mode `strict` promises.
    pub(in crate::inbox) async fn start() -> Self {
        Self::with(&["--appendfsync", "always"]).await
    }

    /// One with these options.
    pub(in crate::inbox) async fn with(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let child = spawn(dir.path(), &options, None).await;
        Self { dir, options, room: None, child }
    }

    /// One with these options whose files become no larger than so many KiB, as if its disk were full.
    pub(in crate::inbox) async fn within(room: u32, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let child = spawn(dir.path(), &options, Some(room)).await;
        Self { dir, options, room: Some(room), child }
    }

    /// From the next start on there is room.
    pub(in crate::inbox) fn unlimited(&mut self) {
        self.room = None;
    }

    /// There is room now.
    pub(in crate::inbox) fn has_room_again(&mut self) {
        self.room = None;
        let freed = Command::new("prlimit").arg("--fsize=unlimited").arg("--pid").arg(self.id().to_string()).status();
        assert!(freed.unwrap().success());
    }

    pub(in crate::inbox) fn url(&self) -> Secret {
        Secret::new(format!("unix://{}", self.dir.path().join("socket").display()))
    }

    pub(in crate::inbox) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(in crate::inbox) fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub(in crate::inbox) fn kill(&mut self) {
        let _already_gone = self.child.kill();
        self.child.wait().unwrap();
        let _gone = std::fs::remove_file(self.dir.path().join("socket"));
    }

    /// Starts it again on what it left on disk.
    pub(in crate::inbox) async fn restart(&mut self) {
        self.child = spawn(self.dir.path(), &self.options, self.room).await;
    }

    /// Whether it knows this command.
    pub(in crate::inbox) fn has(&self, command: &str) -> bool {
        let told: Vec<::redis::Value> =
            ::redis::cmd("COMMAND").arg("INFO").arg(command).query(&mut self.client()).unwrap();
        told != [::redis::Value::Nil]
    }

    /// A connection for the test itself.
    pub(in crate::inbox) fn client(&self) -> ::redis::Connection {
        connect(self.dir.path()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_gone = self.child.wait();
    }
}

fn connect(dir: &Path) -> ::redis::RedisResult<::redis::Connection> {
    let mut connection = ::redis::Client::open(format!("unix://{}", dir.join("socket").display()))?.get_connection()?;
    ::redis::cmd("PING").query::<String>(&mut connection)?;
    Ok(connection)
}

async fn spawn(dir: &Path, options: &[String], room: Option<u32>) -> Child {
    let mut command = match room {
        None => Command::new(program()),
        Some(kib) => {
            let mut command = Command::new("bash");
            // Without the trap, the signal would end it in place of an error of the write.
            command.arg("-c").arg(format!("trap '' XFSZ; ulimit -S -f {kib}; exec \"$@\"")).arg("bash");
            command.arg(program());
            command
        }
    };
    command.args(["--port", "0", "--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction"]);
    command.arg("--unixsocket").arg(dir.join("socket")).arg("--dir").arg(dir).args(options);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.expect("a Redis server is needed: tests/run installs it");
    let deadline = Instant::now() + PATIENCE;
    let refused = |error: &::redis::RedisError| error.code() == Some("NOAUTH");
    while let Some(error) = connect(dir).err().filter(|error| !refused(error)) {
        assert!(Instant::now() < deadline, "the server does not start: {error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    child
}
