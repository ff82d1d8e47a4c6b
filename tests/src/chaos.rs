//! A line between two that misbehaves as told: slow, torn, silent, deaf or cut. Whoever is called may be exchanged.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// How a line behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As a line should.
    Well,
    /// Each piece comes so much later.
    Slow(Duration),
    /// Of so many pieces that pass, one passes by half and ends the connection.
    Torn(u64),
    /// Nothing passes, and nobody is told; what was held passes when it is over.
    Silent,
    /// What is asked passes, what is answered does not.
    Deaf,
    /// All connections end, and new ones with them.
    Cut,
}

/// Who is called at the other end.
#[derive(Clone, Debug)]
pub enum Callee {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over a socket of this machine.
    Unix(PathBuf),
}

#[derive(Debug)]
struct Told {
    mood: watch::Sender<Mood>,
    callee: watch::Sender<Callee>,
}

/// A line. It serves until the test ends.
#[derive(Clone, Debug)]
pub struct Line {
    /// Where it is called.
    pub address: SocketAddr,
    told: Arc<Told>,
}

impl Line {
    /// A line to this one, in order.
    pub async fn to(callee: Callee) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let told = Arc::new(Told { mood: watch::Sender::new(Mood::Well), callee: watch::Sender::new(callee) });
        tokio::spawn(serve(listener, told.clone()));
        Self { address, told }
    }

    /// From now on it behaves like this.
    pub fn be(&self, mood: Mood) {
        self.told.mood.send_replace(mood);
    }

    /// From now on another one is called.
    pub fn leads_to(&self, callee: Callee) {
        self.told.callee.send_replace(callee);
    }
}

async fn serve(listener: TcpListener, told: Arc<Told>) {
    while let Ok((near, _)) = listener.accept().await {
        let told = told.clone();
        tokio::spawn(async move {
            if *told.mood.borrow() == Mood::Cut {
                return;
            }
            let callee = told.callee.borrow().clone();
            match callee {
                Callee::Tcp(address) => {
                    #[allow(clippy::disallowed_methods, reason = "a test's own line inside of this machine")]
                    let far = TcpStream::connect(address).await;
                    connect(near, far.ok(), &told).await;
                }
                Callee::Unix(path) => connect(near, UnixStream::connect(path).await.ok(), &told).await,
            }
        });
    }
}

async fn connect<S: AsyncRead + AsyncWrite>(near: TcpStream, far: Option<S>, told: &Told) {
    let Some(far) = far else { return };
    let _at_once = near.set_nodelay(true);
    let (near_from, near_to) = tokio::io::split(near);
    let (far_from, far_to) = tokio::io::split(far);
    // Whichever way ends first ends the connection, as a reset does.
    tokio::select! {
        () = pass(near_from, far_to, told.mood.subscribe(), false) => {}
        () = pass(far_from, near_to, told.mood.subscribe(), true) => {}
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut mood: watch::Receiver<Mood>,
    is_answer: bool,
) {
    let mut piece = vec![0; 1 << 14];
    let mut passed = 0u64;
    loop {
        let cut = async { drop(mood.wait_for(|mood| *mood == Mood::Cut).await) };
        let read = tokio::select! {
            read = from.read(&mut piece) => read,
            () = cut => return,
        };
        let Ok(length @ 1..) = read else { return };
        let holds = |mood: &Mood| *mood == Mood::Silent || (*mood == Mood::Deaf && is_answer);
        let now = mood.wait_for(|mood| !holds(mood)).await.map(|now| *now);
        let Ok(now) = now else { return };
        passed += 1;
        let length = match now {
            Mood::Cut => return,
            Mood::Torn(one_in) if passed.is_multiple_of(one_in) => {
                let _torn = to.write_all(&piece[..length / 2]).await;
                return;
            }
            Mood::Slow(by) => {
                tokio::time::sleep(by).await;
                length
            }
            Mood::Well | Mood::Torn(_) | Mood::Silent | Mood::Deaf => length,
        };
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
