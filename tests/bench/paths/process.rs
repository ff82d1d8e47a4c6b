//! Processes that are measured: their processor time and memory, and this program itself in another part.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A process that is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Watched(u32);

impl Watched {
    pub(crate) fn new(pid: Option<u32>) -> Self {
        Self(pid.expect("it runs"))
    }

    pub(crate) fn this() -> Self {
        Self(std::process::id())
    }

    fn told(self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.0)).unwrap_or_default()
    }

    /// User and system time of all its threads, in hundredths of a second; nothing where there is no `/proc`.
    pub(crate) fn cpu(self) -> Duration {
        let stat = self.told("stat");
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks = |field: usize| after_name.split_whitespace().nth(field).and_then(|ticks| ticks.parse().ok());
        Duration::from_millis(10 * (ticks(11).unwrap_or(0_u64) + ticks(12).unwrap_or(0_u64)))
    }

    /// Resident, in MB; 0 where there is no `/proc`.
    pub(crate) fn resident(self) -> f64 {
        self.megabytes("VmRSS:")
    }

    /// The most that was ever resident, in MB.
    pub(crate) fn most(self) -> f64 {
        self.megabytes("VmHWM:")
    }

    fn megabytes(self, field: &str) -> f64 {
        let status = self.told("status");
        let said = status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB"));
        said.and_then(|kilobytes| kilobytes.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    }
}

/// This program in another part, in a process of its own.
pub(crate) struct Part {
    child: Child,
    /// What it says first.
    pub(crate) said: String,
}

impl Part {
    pub(crate) async fn start(part: &str, argument: &str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["--part", part, argument])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a process");
        let stdout = child.stdout.take().expect("its output");
        let said = BufReader::new(stdout).lines().next_line().await.expect("it says something").unwrap_or_default();
        Self { child, said }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.said.parse().unwrap_or_else(|_| panic!("it said {:?} instead of an address", self.said))
    }

    pub(crate) fn watched(&self) -> Watched {
        Watched::new(self.child.id())
    }
}

/// The part and its argument that this process is to play.
pub(crate) fn asked() -> Option<(String, String)> {
    let mut arguments = std::env::args().skip(1).skip_while(|argument| argument != "--part");
    arguments.next()?;
    Some((arguments.next()?, arguments.next().unwrap_or_default()))
}

/// A part plays until whoever started it is gone.
pub(crate) async fn until_alone() {
    let mut ignored = [0; 64];
    while matches!(tokio::io::stdin().read(&mut ignored).await, Ok(1..)) {}
}
