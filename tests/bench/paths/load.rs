//! Load from a thread of its own, so that it does not stand in the queue of what it measures: in a closed loop for how much there can be,
//! and at a constant rate for how long it takes. At a constant rate the time of a request begins when it was due, not when a connection
//! was free: waiting is not hidden (coordinated omission). Timers are a millisecond coarse, and that is in it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use sluice_tests::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::process::Watched;
use crate::table::Round;

/// What stands in a body where each request has a number of its own.
pub(crate) const NUMBER: &str = "000000000000";
/// The secret of the Meta endpoints.
pub(crate) const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";
const SIGNATURE: &str = "X-Hub-Signature-256";

/// Every number is used once, also over restarts of what is measured.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// A request, and what of it is different each time.
#[derive(Clone)]
pub(crate) struct Shot {
    bytes: Vec<u8>,
    /// Where the number goes, of a request that has one of its own.
    number: Option<usize>,
    /// Where the signature of the body goes, and where the body begins.
    signature: Option<(usize, usize)>,
    /// Where the number of an endpoint goes, how many digits it has, and how many endpoints there are.
    endpoint: Option<(usize, usize, u64)>,
}

impl Shot {
    /// The same each time.
    pub(crate) fn same(path: &str, body: &str, headers: &[(&str, &str)]) -> Self {
        let request =
            headers.iter().fold(Request::post(path, body), |request, (name, value)| request.header(name, value));
        Self { bytes: request.bytes(), number: None, signature: None, endpoint: None }
    }

    /// With a number of its own each time.
    pub(crate) fn numbered(path: &str, body: &str, headers: &[(&str, &str)]) -> Self {
        let same = Self::same(path, body, headers);
        let body = at(&same.bytes, b"\r\n\r\n");
        let number = Some(body + at(&same.bytes[body..], NUMBER.as_bytes()));
        Self { number, ..same }
    }

    /// Signed as Meta does.
    pub(crate) fn signed(path: &str, body: &str) -> Self {
        let signature = format!("sha256={}", "0".repeat(64));
        let numbered = Self::numbered(path, body, &[(SIGNATURE, &signature)]);
        let place = at(&numbered.bytes, signature.as_bytes()) + "sha256=".len();
        let body = at(&numbered.bytes, b"\r\n\r\n") + 4;
        Self { signature: Some((place, body)), ..numbered }
    }

    /// To any of so many endpoints, whose number stands where these digits are.
    pub(crate) fn spread_over(self, digits: &str, count: usize) -> Self {
        let place = at(&self.bytes, digits.as_bytes());
        Self { endpoint: Some((place, digits.len(), count as u64)), ..self }
    }

    fn next(&mut self) -> &[u8] {
        if let Some((at, digits, count)) = self.endpoint {
            // Far from the one before.
            let number = NUMBERS.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15) % count;
            self.bytes[at..at + digits].copy_from_slice(format!("{number:0digits$}").as_bytes());
        }
        if let Some(at) = self.number {
            let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
            self.bytes[at..at + NUMBER.len()].copy_from_slice(format!("{number:012}").as_bytes());
        }
        if let Some((at, body)) = self.signature {
            let mut mac = Hmac::<Sha256>::new_from_slice(APP_SECRET.as_bytes()).expect("any key will do");
            mac.update(&self.bytes[body..]);
            let mut digits = [0; 64];
            hex::encode_to_slice(mac.finalize().into_bytes(), &mut digits).expect("as long as it is");
            self.bytes[at..at + 64].copy_from_slice(&digits);
        }
        &self.bytes
    }
}

fn at(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).expect("it is in the request")
}

/// What is sent, where, by how many connections, and what is answered.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    /// Taken in turn by the connections.
    pub(crate) shots: Vec<Shot>,
    pub(crate) connections: usize,
    pub(crate) status: u16,
}

impl Load {
    /// As much as there can be, for some time.
    pub(crate) async fn closed(&self, time: Duration, watched: Watched) -> Round {
        let load = self.clone();
        apart(watched, async move || {
            load.all(
                async move |begun: Instant, sender: &mut Sender, shot: &mut Shot, latencies: &mut Vec<Duration>| {
                    while begun.elapsed() < time {
                        let asked = Instant::now();
                        sender.exchange(shot.next()).await?;
                        latencies.push(asked.elapsed());
                    }
                    Ok(())
                },
            )
            .await
        })
        .await
    }

    /// So many a second, for some time.
    pub(crate) async fn constant(&self, per_second: u32, time: Duration, watched: Watched) -> Round {
        let load = self.clone();
        apart(watched, async move || {
            let next = Arc::new(AtomicU64::new(0));
            load.all(
                async move |begun: Instant, sender: &mut Sender, shot: &mut Shot, latencies: &mut Vec<Duration>| {
                    loop {
                        let due = Duration::from_secs_f64(
                            next.fetch_add(1, Ordering::Relaxed) as f64 / f64::from(per_second),
                        );
                        if due >= time {
                            return Ok(());
                        }
                        tokio::time::sleep_until((begun + due).into()).await;
                        sender.exchange(shot.next()).await?;
                        latencies.push(begun.elapsed() - due);
                    }
                },
            )
            .await
        })
        .await
    }

    async fn all(
        self,
        each: impl AsyncFn(Instant, &mut Sender, &mut Shot, &mut Vec<Duration>) -> io::Result<()> + Clone + 'static,
    ) -> (Instant, Vec<Duration>) {
        let mut senders = Vec::new();
        for connection in 0..self.connections {
            let sender = Sender::open(self.address, self.status).await.expect("a connection");
            senders.push((sender, self.shots[connection % self.shots.len()].clone()));
        }
        // Connecting does not count.
        let begun = Instant::now();
        let local = tokio::task::LocalSet::new();
        let mut all = JoinSet::new();
        for (mut sender, mut shot) in senders {
            let each = each.clone();
            all.spawn_local_on(
                async move {
                    let mut latencies = Vec::new();
                    each(begun, &mut sender, &mut shot, &mut latencies).await.expect("an answer");
                    latencies
                },
                &local,
            );
        }
        let latencies = local.run_until(async { all.join_all().await.into_iter().flatten().collect() }).await;
        (begun, latencies)
    }
}

/// Runs a load in a thread of its own, and looks at the process that it goes to.
async fn apart<L>(watched: Watched, load: impl FnOnce() -> L + Send + 'static) -> Round
where
    L: Future<Output = (Instant, Vec<Duration>)>,
{
    let generate = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let cpu = watched.cpu();
        let (begun, latencies) = runtime.block_on(load());
        let (time, cpu) = (begun.elapsed(), watched.cpu() - cpu);
        Round { count: latencies.len(), time, latencies, cpu, resident: watched.resident() }
    };
    tokio::task::spawn_blocking(generate).await.expect("the load")
}

/// A connection that knows the one answer it wants, so that it costs little of the cores.
pub(crate) struct Sender {
    stream: TcpStream,
    received: Vec<u8>,
    begin: String,
    end: &'static [u8],
}

impl Sender {
    #[expect(clippy::disallowed_methods, reason = "the sender is outside of the building")]
    pub(crate) async fn open(address: SocketAddr, status: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let end: &[u8] = if status == 200 { b"\r\n\r\nOK" } else { b"\r\n\r\n" };
        Ok(Self { stream, received: Vec::with_capacity(1024), begin: format!("HTTP/1.1 {status}"), end })
    }

    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await?;
        self.received.clear();
        while !self.received.ends_with(self.end) {
            if self.stream.read_buf(&mut self.received).await? == 0 || !self.received.starts_with(self.begin.as_bytes())
            {
                return Err(io::Error::other(String::from_utf8_lossy(&self.received).into_owned()));
            }
        }
        Ok(())
    }
}
