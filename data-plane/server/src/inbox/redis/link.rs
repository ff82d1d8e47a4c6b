//! A connection to the node that keeps a shard, which is asked for by nobody else: found, checked, with its scripts loaded and its news
//! subscribed to.
//!
//! A cluster is followed when connecting: a node that says that a shard lives elsewhere names where. When a shard moves or
//! its node fails, the connection is given up and the shard is looked for anew.
//!
//! While the keys of a shard move, no script is run: each needs several of them, and a cluster shows a script either those that have moved
//! or those that have not. It names one key that never exists, so that the node refuses it as a whole (ASK) from the first moment on. When
//! all keys have moved, the other node is asked (ASKING) until it owns the shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion,
    PushInfo, PushKind, RedisError, ServerErrorKind, TlsCertificates, Value, cmd,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::arguments::Arguments;
use super::check::{Unfit, check};
use super::scripts::{self, Script, Scripts, Sources};
use super::value;
use super::{Durability, RedisSettings};

/// For a connection to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// For an answer, and for a shard that moves. Who asked is told that it is unavailable after it.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
/// How often it is looked whether it has moved.
const MOVE_LOOK: Duration = Duration::from_millis(20);
/// For replicas to have flushed what was written.
const REPLICA_DEADLINE: Duration = Duration::from_secs(1);
/// How often a node may send us on to another.
const REDIRECTS_MAX: usize = 5;
/// News that wait to be heard; when there are more, all flows are read anew.
const NEWS_MAX: usize = 256;

/// Why a step was not done, or why it is not known whether it was.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Refused before anything was written; the connection is well.
    Refused(String),
    /// Refused for want of memory, before anything was written.
    NoMemory,
    /// It is not the store it was, or an older state of it.
    StoreChanged,
    /// The plane was opened by another process.
    Superseded,
    /// This is not its place any more, or soon will not be: refused before anything was written.
    Moved(String),
    /// Whether it was done is unknown, or this is not the place any more.
    Lost(String),
}

impl Trouble {
    pub(super) fn of(error: &RedisError) -> Self {
        match error.code() {
            Some("STORECHANGED") => return Self::StoreChanged,
            Some("SUPERSEDED") => return Self::Superseded,
            Some("OOM") => return Self::NoMemory,
            Some("MOVED" | "ASK" | "TRYAGAIN") => return Self::Moved(error.to_string()),
            Some("READONLY" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "NOREPLICAS") => {
                return Self::Lost(error.to_string());
            }
            Some(_) | None => {}
        }
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => Self::Refused(error.to_string()),
            _ => Self::Lost(error.to_string()),
        }
    }
}

/// An answer that is not there yet.
pub(super) type Coming = BoxFuture<'static, Result<Value, RedisError>>;

/// What comes by itself over a connection.
#[derive(Debug)]
pub(super) enum Push {
    News(Vec<u8>),
    Disconnected,
}

/// A connection.
pub(super) struct Link {
    connection: MultiplexedConnection,
    base: String,
    /// The node does not own the shard yet: it has to be told that we know.
    asking: bool,
    scripts: Scripts,
    pub(super) pushes: mpsc::Receiver<Push>,
    missed: Arc<AtomicBool>,
    sources: Sources,
}

/// The addresses of servers, from their URLs, at least one. What is wrong with them is said without quoting: they may hold a password.
pub(super) fn parse(settings: &RedisSettings) -> Result<Vec<ConnectionInfo>, RedisError> {
    let urls = settings.url.expose().lines().map(str::trim).filter(|url| !url.is_empty());
    let parse = |url: &str| -> Result<ConnectionInfo, RedisError> {
        let info = url.into_connection_info()?;
        let protocol = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        Ok(info.set_redis_settings(protocol))
    };
    let seeds: Vec<ConnectionInfo> = urls.map(parse).collect::<Result<_, RedisError>>()?;
    if seeds.is_empty() { Err((ErrorKind::InvalidClientConfig, "no URL").into()) } else { Ok(seeds) }
}

/// Where they are, without who we say we are.
pub(super) fn place(seeds: &[ConnectionInfo]) -> String {
    seeds.iter().map(|info| info.addr().to_string()).collect::<Vec<String>>().join(", ")
}

fn at(info: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let addr = match info.addr() {
        ConnectionAddr::Tcp(seed, _) => ConnectionAddr::Tcp(if host.is_empty() { seed } else { host }.to_owned(), port),
        ConnectionAddr::TcpTls { host: seed, insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host: if host.is_empty() { seed } else { host }.to_owned(),
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        other => other.clone(),
    };
    info.clone().set_addr(addr)
}

/// Why a shard cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error(transparent)]
    Unreachable(#[from] RedisError),
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("its keys are being moved to another node of the cluster")]
    Moving,
}

impl Link {
    /// Connects to the node that keeps the keys under `base`, and checks it; waits for a moment while they are moving.
    pub(super) async fn connect(settings: &RedisSettings, base: &str) -> Result<Self, LinkError> {
        let began = Instant::now();
        loop {
            match Self::find(settings, base).await {
                Err(LinkError::Moving) if began.elapsed() < ANSWER_DEADLINE => tokio::time::sleep(MOVE_LOOK).await,
                done => return done,
            }
        }
    }

    /// Asks one server after the other.
    async fn find(settings: &RedisSettings, base: &str) -> Result<Self, LinkError> {
        let mut trouble = LinkError::from(Unfit::Redirects);
        for seed in parse(settings)? {
            match Self::follow(settings, &seed, base).await {
                // One of the others may be there, or have taken over.
                Err(error @ (LinkError::Unreachable(_) | LinkError::Unfit(Unfit::Replica))) => trouble = error,
                done => return done,
            }
        }
        Err(trouble)
    }

    async fn follow(settings: &RedisSettings, seed: &ConnectionInfo, base: &str) -> Result<Self, LinkError> {
        let (mut info, mut asking) = (seed.clone(), false);
        for _ in 0..REDIRECTS_MAX {
            let mut link = Self { asking, ..Self::dial(settings, &info, base).await? };
            match link.look().await {
                Ok(()) => {
                    check(&mut link.connection, settings.durability).await?;
                    link.scripts = link.sources.load(&mut link.connection).await?;
                    link.sources.clear_away(&mut link.connection).await?;
                    link.connection.subscribe(format!("{base}news")).await?;
                    return Ok(link);
                }
                Err(error) => {
                    asking = match error.kind() {
                        ErrorKind::Server(ServerErrorKind::Moved) => false,
                        ErrorKind::Server(ServerErrorKind::Ask) => true,
                        _ => return Err(error.into()),
                    };
                    // Host and port; the host is missing when the node does not know its own.
                    let Some((node, slot)) = error.redirect_node() else { return Err(error.into()) };
                    let Some((host, Ok(port))) = node.rsplit_once(':').map(|(host, port)| (host, port.parse())) else {
                        return Err(error.into());
                    };
                    if asking && link.keys_in(slot).await? > 0 {
                        return Err(LinkError::Moving);
                    }
                    info = at(seed, host, port);
                }
            }
        }
        Err(Unfit::Redirects.into())
    }

    async fn dial(settings: &RedisSettings, info: &ConnectionInfo, base: &str) -> Result<Self, RedisError> {
        let client = match &settings.ca_pem {
            None => Client::open(info.clone())?,
            Some(pem) => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
                Client::build_with_tls(info.clone(), certificates)?
            }
        };
        let (told, pushes) = mpsc::channel(NEWS_MAX);
        let missed = Arc::new(AtomicBool::new(false));
        let overflow = missed.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_DEADLINE))
            .set_response_timeout(Some(ANSWER_DEADLINE))
            .set_push_sender(move |info: PushInfo| {
                if let Some(push) = push(info)
                    && told.try_send(push).is_err()
                {
                    overflow.store(true, Ordering::SeqCst);
                }
                Ok::<(), std::convert::Infallible>(())
            });
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Self {
            connection,
            base: base.to_owned(),
            asking: false,
            scripts: Scripts::default(),
            pushes,
            missed,
            sources: Sources::new(settings),
        })
    }

    /// Whether scripts are run here: they name the same key.
    async fn look(&mut self) -> Result<(), RedisError> {
        self.ask_first().await?;
        cmd("EXISTS").arg(&self.base).query_async::<i64>(&mut self.connection).await.map(drop)
    }

    async fn ask_first(&mut self) -> Result<(), RedisError> {
        if self.asking { cmd("ASKING").query_async(&mut self.connection).await } else { Ok(()) }
    }

    async fn keys_in(&mut self, slot: u16) -> Result<i64, RedisError> {
        cmd("CLUSTER").arg("COUNTKEYSINSLOT").arg(slot).query_async(&mut self.connection).await
    }

    /// Whether the keys of the shard are on their way to this node.
    pub(super) fn is_moving(&self) -> bool {
        self.asking
    }

    /// Whether news were lost since this was asked last.
    pub(super) fn has_missed(&self) -> bool {
        self.missed.swap(false, Ordering::SeqCst)
    }

    /// Runs a script, loading it again if the server has forgotten it.
    pub(super) async fn run(&mut self, script: Script, write: impl Fn(&mut Arguments)) -> Result<Value, RedisError> {
        let answer = self.call(script, &write).await;
        match answer {
            Err(error) if scripts::is_forgotten(&error) => {
                self.scripts = self.sources.load(&mut self.connection).await?;
                self.call(script, &write).await
            }
            answer => answer,
        }
    }

    async fn call(&mut self, script: Script, write: &impl Fn(&mut Arguments)) -> Result<Value, RedisError> {
        self.ask_first().await?;
        self.command(script, write).query_async(&mut self.connection).await
    }

    /// Runs a script beside others, one after the other in the order that their answers are asked for first; not while its keys are on
    /// their way ([`Self::is_moving`]).
    pub(super) fn send(&self, script: Script, write: impl Fn(&mut Arguments)) -> Coming {
        let (command, mut connection) = (self.command(script, &write), self.connection.clone());
        async move { command.query_async(&mut connection).await }.boxed()
    }

    fn command(&self, script: Script, write: &impl Fn(&mut Arguments)) -> Cmd {
        let mut command = self.scripts.call(script);
        command.arg(1).arg(&self.base);
        let mut arguments = Arguments::new();
        write(&mut arguments);
        arguments.say(command)
    }

    /// Waits until what was written over this connection is as durable as promised. A reply under `Strict` says so itself, as the
    /// server flushes before it replies.
    pub(super) async fn flushed(&mut self, durability: Durability) -> Result<(), Trouble> {
        let Durability::Replicated { replicas } = durability else { return Ok(()) };
        let mut wait = cmd("WAITAOF");
        wait.arg(1).arg(replicas).arg(REPLICA_DEADLINE.as_millis().to_string());
        let flushed: Result<Value, RedisError> = wait.query_async(&mut self.connection).await;
        let flushed = flushed.map_err(|error| Trouble::of(&error))?;
        match value::ints(flushed).as_deref() {
            Some([local, remote]) if *local >= 1 && *remote >= i64::from(replicas) => Ok(()),
            Some(_) => Err(Trouble::Refused(format!("fewer than {replicas} replicas have flushed what was written"))),
            None => Err(Trouble::Refused("WAITAOF answered something else than two numbers".to_owned())),
        }
    }
}

fn push(info: PushInfo) -> Option<Push> {
    match info.kind {
        PushKind::Message => match info.data.into_iter().nth(1) {
            Some(Value::BulkString(message)) => Some(Push::News(message)),
            _ => None,
        },
        PushKind::Disconnection => Some(Push::Disconnected),
        _ => None,
    }
}
