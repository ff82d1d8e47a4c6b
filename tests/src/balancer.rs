//! A plain TCP balancer, as operators put one before planes that are several.
//!
//! Each connection goes to the next server in turn that accepts it, and to one whose `/readyz` does not say yes only when there is no other
//! (HAProxy asks with `option httpchk` on another port). Connections that are there are not touched: whoever holds one is to be told by
//! the server itself that it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How often each server is asked whether it is ready.
const CHECKED_EVERY: Duration = Duration::from_millis(100);
/// How long it may take to say so.
const CHECKED_WITHIN: Duration = Duration::from_secs(1);

/// A server behind it.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Where it takes connections.
    pub address: SocketAddr,
    /// Where it says whether it is ready; `None`: it is not asked.
    pub health: Option<SocketAddr>,
}

/// Runs until it is dropped, and its connections with it.
#[derive(Debug)]
pub struct Balancer {
    /// Where it takes connections.
    pub address: SocketAddr,
    _running: JoinSet<()>,
}

impl Balancer {
    /// Starts one before these servers.
    ///
    /// # Panics
    /// No port is free.
    pub async fn start(servers: Vec<Server>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut running = JoinSet::new();
        let mut known = Vec::new();
        for Server { address, health } in servers {
            let (tell, is_ready) = watch::channel(true);
            if let Some(health) = health {
                tell.send_replace(says_ready(health).await);
                running.spawn(async move {
                    loop {
                        tokio::time::sleep(CHECKED_EVERY).await;
                        tell.send_replace(says_ready(health).await);
                    }
                });
            }
            known.push((address, is_ready));
        }
        running.spawn(balance(listener, known.into()));
        Self { address, _running: running }
    }
}

async fn balance(listener: TcpListener, servers: Arc<[(SocketAddr, watch::Receiver<bool>)]>) {
    let mut carried = JoinSet::new();
    for turn in 0.. {
        let Ok((from, _)) = listener.accept().await else { continue };
        let mut in_turn: Vec<_> = servers.to_vec();
        in_turn.rotate_left(turn % servers.len());
        in_turn.sort_by_key(|(_, is_ready)| !*is_ready.borrow());
        carried.spawn(carry(from, in_turn.into_iter().map(|(server, _)| server).collect()));
        while carried.try_join_next().is_some() {}
    }
}

#[expect(clippy::disallowed_methods, reason = "it stands for a balancer of the operator's")]
async fn carry(mut from: TcpStream, servers: Vec<SocketAddr>) {
    for server in servers {
        if let Ok(mut to) = TcpStream::connect(server).await {
            let _small_packets_wait = to.set_nodelay(true);
            // Whichever end is closed.
            let _ended = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            return;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it stands for a balancer of the operator's")]
async fn says_ready(health: SocketAddr) -> bool {
    let asked = async {
        let mut server = TcpStream::connect(health).await?;
        server.write_all(b"GET /readyz HTTP/1.1\r\nhost: balancer\r\nconnection: close\r\n\r\n").await?;
        let mut status = [0; 12];
        server.read_exact(&mut status).await?;
        std::io::Result::Ok(&status == b"HTTP/1.1 200")
    };
    tokio::time::timeout(CHECKED_WITHIN, asked).await.is_ok_and(|ready| ready.is_ok_and(|ready| ready))
}
