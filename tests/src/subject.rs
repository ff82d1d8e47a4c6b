//! Both planes in a process of their own, to be killed, listened to and measured.
//!
//! The process is `subject/main.rs`: it starts what `sluice dev` starts, with what a test wants to decide. It says
//! [`READY`] when it serves, and stops properly at SIGTERM and when its standard input ends, so that none is left behind by a
//! test that died.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// What the process prints when it serves.
pub const READY: &str = "ready";
/// How long a start or a proper stop may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a test decides about the process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The data folder.
    pub folder: PathBuf,
    /// The PostgreSQL database in place of the control plane's file in that folder.
    pub database: Option<String>,
    /// The control plane's gRPC.
    pub grpc: SocketAddr,
    /// The data plane's triggers.
    pub ingress: SocketAddr,
    /// The data plane's health and numbers.
    pub health: SocketAddr,
    /// The CA to trust besides the public ones.
    pub ca_pem: String,
    /// Names answered without a resolver; loopback may be called.
    pub static_addresses: HashMap<String, Vec<SocketAddr>>,
    /// Sent with every delivery, so that a destination can tell one life of the process from the next.
    pub user_agent: String,
    /// The data plane's id.
    pub id: String,
    /// A control plane that runs already: only a data plane is started.
    pub joins: Option<Joined>,
    /// Only a control plane is started, with its health at `health`.
    pub control_plane_alone: bool,
    /// How long the data plane still takes triggers when it is to stop.
    pub lame_duck: Duration,
    /// The URL of the Redis that keeps the inbox; none: a file in the folder does.
    pub redis: Option<String>,
    /// How long a lease of a job lasts.
    pub lease: Duration,
    /// Redis may lose what it has not flushed yet: mode `fast` in place of `strict`.
    pub fast: bool,
    /// A command that becomes the process when it has set what the process is to live with, for example
    /// `["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"]`; empty: none.
    pub under: Vec<String>,
    /// How many deliveries are in work at once, of each lane; none: as many as the product does.
    pub workers: Option<[usize; 2]>,
    /// How many events each workspace may submit; none: as many as the product allows.
    pub events_per_second: Option<u32>,
    /// A bug to have. Only in builds with the feature `fault-injection`.
    pub fault: Option<Fault>,
    /// Where the control plane ends the process. Only in builds with the feature `fault-injection`.
    pub crash: Option<Crash>,
    /// What is logged to standard error, for example `sluice=trace`; empty: nothing.
    pub log: String,
}

/// Another's control plane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Joined {
    /// Its URL.
    pub url: String,
    /// Its data folder, with the key for data planes and the master keys.
    pub folder: PathBuf,
}

/// A bug to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The dedup key is durable before the jobs.
    KeyBeforeJobs,
    /// Requests are answered before they are durable.
    AnswerBeforeCommit,
    /// None: the process ends at this moment.
    EndAt(PlaneMoment),
}

/// A moment of the data plane: see its `Moment`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlaneMoment {
    /// A request is read; nothing of it is kept.
    Received,
    /// It is being kept.
    Keeping,
    /// It is kept; nobody was answered.
    Kept,
    /// A job is leased.
    Leased,
    /// An attempt is recorded as begun; no byte was sent.
    Begun,
    /// The destination has answered.
    Heard,
    /// The outcome is being recorded.
    Recording,
    /// It is recorded; the control plane was not told.
    Recorded,
    /// A revision is compiled; nothing of it is served.
    Applying,
}

/// Where the control plane ends the process: see its `Moment`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    /// The moment's name.
    pub at: Moment,
    /// What the gRPC path of the call ends with; reports have none.
    pub method: String,
}

/// A moment of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moment {
    /// Before the commit of a change.
    ChangeWritten,
    /// After it.
    ChangeCommitted,
    /// Before the commit of the audit entry of a refusal.
    RefusalWritten,
    /// Before the commit of a report.
    ReportWritten,
    /// After it.
    ReportCommitted,
}

impl Setup {
    /// Free ports on loopback, a folder, and nobody to send to.
    pub fn on(folder: &Path) -> Self {
        let [grpc, ingress, health] = free_ports();
        Self {
            folder: folder.to_owned(),
            database: None,
            grpc,
            ingress,
            health,
            ca_pem: String::new(),
            static_addresses: HashMap::new(),
            user_agent: "subject".to_owned(),
            id: "subject".to_owned(),
            joins: None,
            control_plane_alone: false,
            lame_duck: Duration::ZERO,
            redis: None,
            // What was begun and not sent, as the store was away, is not waited for long; a store that dies is back sooner.
            lease: Duration::from_secs(15),
            fast: false,
            under: Vec::new(),
            workers: None,
            events_per_second: None,
            fault: None,
            crash: None,
            log: String::new(),
        }
    }
}

/// Sends a process that was started here a signal, and waits until it has stopped if that is what it says: on a busy machine its
/// other threads go on until one of them has heard of it.
pub(crate) fn signal(name: &str, process: Option<u32>) {
    let id = process.expect("it runs").to_string();
    let sent = std::process::Command::new("kill").args([name, &id]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill {name}");
    let begun = Instant::now();
    while name == "-STOP" && !has_stopped(&id) {
        assert!(begun.elapsed() < PATIENCE, "it does not stop");
        std::thread::yield_now();
    }
}

/// Whether all its threads stand still. Where the system does not say, they are believed to.
fn has_stopped(process: &str) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // One that has ended meanwhile says nothing.
        stat.rsplit(')')
            .next()
            .and_then(|rest| rest.trim_start().chars().next())
            .is_none_or(|state| "TZX".contains(state))
    })
}

/// Three ports that are free now and stay so while the process is down: below those that outgoing connections take, and no two processes
/// of one test get the same.
fn free_ports() -> [SocketAddr; 3] {
    const PORTS: std::ops::Range<u16> = 10_000..32_000;
    static NEXT: LazyLock<Mutex<u16>> = LazyLock::new(|| {
        let mut seed = [0; 2];
        getrandom::fill(&mut seed).expect("randomness");
        Mutex::new(PORTS.start + u16::from_le_bytes(seed) % (PORTS.end - PORTS.start))
    });
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    let free = PORTS.filter_map(|_| {
        let address = SocketAddr::from(([127, 0, 0, 1], *next));
        *next = if *next + 1 < PORTS.end { *next + 1 } else { PORTS.start };
        std::net::TcpListener::bind(address).is_ok().then_some(address)
    });
    let ports: Vec<SocketAddr> = free.take(3).collect();
    ports.try_into().expect("three free ports")
}

/// A running process.
#[derive(Debug)]
pub struct Subject {
    child: Child,
}

impl Subject {
    /// Starts `program` (the path of the binary `subject`) and waits until it serves. What it logs goes to `log`.
    ///
    /// # Errors
    /// It does not start, ends early, or is not ready in time.
    pub async fn start(program: &str, setup: &Setup, log: Stdio) -> io::Result<Self> {
        let mut words = setup.under.clone();
        words.extend([program.to_owned(), serde_json::to_string(setup)?]);
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?;
        let mut lines = BufReader::new(stdout).lines();
        let said = tokio::time::timeout(PATIENCE, lines.next_line()).await??;
        match said {
            Some(line) if line == READY => Ok(Self { child }),
            other => Err(io::Error::other(format!("it said {other:?} instead of being ready"))),
        }
    }

    /// The process id.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends it a signal, for example `-STOP`.
    ///
    /// # Panics
    /// It is not there.
    pub fn signal(&self, name: &str) {
        signal(name, self.id());
    }

    /// Sends it SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn terminate(&mut self) -> io::Result<ExitStatus> {
        self.signal("-TERM");
        // Held open until then: to wait closes it.
        let _input = self.child.stdin.take();
        tokio::time::timeout(PATIENCE, self.child.wait()).await?
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// The process had ended already by itself.
    pub async fn kill(mut self) -> io::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            return Err(io::Error::other(format!("it had ended by itself: {status}")));
        }
        self.child.kill().await
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn ended(mut self) -> io::Result<ExitStatus> {
        // Held open until then: whose input ends stops properly, and to wait closes it.
        let _input = self.child.stdin.take();
        tokio::time::timeout(PATIENCE, self.child.wait()).await?
    }

    /// Asks it to stop properly, and does not wait for it.
    pub fn ask_to_stop(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Lets it stop properly.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn stop(mut self) -> io::Result<ExitStatus> {
        drop(self.child.stdin.take());
        tokio::time::timeout(PATIENCE, self.child.wait()).await?
    }
}
