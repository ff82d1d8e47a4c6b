//! A TLS server that speaks HTTP/1.1 byte by byte, so that it can also misbehave: each request takes one `Play`.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sluice_egress::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What happens after one request was read.
#[derive(Debug)]
pub(super) enum Play {
    /// These bytes, then the next request.
    Answer(String),
    /// These bytes, then nothing, with the connection open.
    Hold(String),
    /// These bytes, then the end of the connection.
    Close(String),
    /// These bytes, and then these again and again until the client is gone.
    Endless(String, String),
    /// Same as [`Play::Answer`], for what is no text.
    Bytes(Vec<u8>),
    /// These bytes, and the connection is gone without the end of TLS.
    Drop(String),
    /// These bytes, and the connection is reset.
    Reset(String),
    /// These bytes, and then one after the other at this pace.
    Trickle(String, Duration),
}

/// What is wrong with the server's TLS.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Tls {
    Sound,
    /// The certificate ended yesterday, so to speak: in 2001.
    Expired,
    /// The certificate has no authority but itself.
    SelfSigned,
    /// It wants a certificate from the client.
    DemandsCertificate,
}

/// What was seen; shared with the connections.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) connections: usize,
    pub(super) handshakes: usize,
    pub(super) names: Vec<Option<String>>,
    pub(super) requests: Vec<String>,
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) ca_pem: String,
    seen: Arc<Mutex<Seen>>,
    left: Arc<Notify>,
}

impl Server {
    /// A server with a certificate for `certified`, playing `plays` in order over all its connections.
    pub(super) async fn start(certified: &str, plays: Vec<Play>) -> Self {
        Self::with_tls(Tls::Sound, certified, plays).await
    }

    pub(super) async fn with_tls(tls: Tls, certified: &str, plays: Vec<Play>) -> Self {
        let (ca_pem, config) = certificate(&[certified], tls);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let plays = Arc::new(Mutex::new(VecDeque::from(plays)));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let left = Arc::new(Notify::new());
        let (shared, leaving) = (Arc::clone(&seen), Arc::clone(&left));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                shared.lock().unwrap().connections += 1;
                let (plays, seen, left) = (Arc::clone(&plays), Arc::clone(&shared), Arc::clone(&leaving));
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    serve(socket, acceptor, plays, seen).await;
                    left.notify_one();
                });
            }
        });
        Self { address, ca_pem, seen, left }
    }

    /// Settings with which `name` leads here and our CA is trusted; loopback allowed.
    pub(super) fn settings(&self, name: &str) -> Settings {
        Settings {
            extra_networks: vec!["127.0.0.0/8".parse().unwrap()],
            static_addresses: HashMap::from([(name.to_owned(), vec![self.address])]),
            extra_ca_pem: vec![self.ca_pem.clone().into_bytes()],
            ..Settings::default()
        }
    }

    /// Waits for the end of a connection, on both sides.
    pub(super) async fn left(&self) {
        self.left.notified().await;
    }

    pub(super) fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap())
    }
}

/// A CA of its own and a certificate for these names.
pub(super) fn certificate(names: &[&str], tls: Tls) -> (String, ServerConfig) {
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    if tls == Tls::Expired {
        leaf.not_after = date_time_ymd(2001, 1, 1);
    }
    let leaf = if tls == Tls::SelfSigned { leaf.self_signed(&key) } else { leaf.signed_by(&key, &ca) }.unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = if tls == Tls::DemandsCertificate {
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    (ca.pem(), builder.with_single_cert(vec![leaf.der().clone()], key).unwrap())
}

async fn serve(
    socket: TcpStream,
    acceptor: TlsAcceptor,
    plays: Arc<Mutex<VecDeque<Play>>>,
    seen: Arc<Mutex<Seen>>,
) -> Option<()> {
    let mut stream = acceptor.accept(socket).await.ok()?;
    {
        let mut seen = seen.lock().unwrap();
        seen.handshakes += 1;
        seen.names.push(stream.get_ref().1.server_name().map(str::to_owned));
    }
    loop {
        let request = read_request(&mut stream).await?;
        seen.lock().unwrap().requests.push(request);
        let play = plays.lock().unwrap().pop_front()?;
        match play {
            Play::Answer(bytes) => write(&mut stream, &bytes).await?,
            Play::Hold(bytes) => {
                write(&mut stream, &bytes).await?;
                let _ = stream.read(&mut [0; 1]).await;
                return None;
            }
            Play::Close(bytes) => {
                write(&mut stream, &bytes).await?;
                stream.shutdown().await.ok()?;
                // Until the client has noticed.
                while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
                return None;
            }
            Play::Bytes(bytes) => stream.write_all(&bytes).await.and(stream.flush().await).ok()?,
            Play::Drop(bytes) => return write(&mut stream, &bytes).await,
            Play::Reset(bytes) => {
                write(&mut stream, &bytes).await?;
                return stream.get_ref().0.set_zero_linger().ok();
            }
            Play::Trickle(start, pace) => {
                write(&mut stream, &start).await?;
                loop {
                    tokio::time::sleep(pace).await;
                    write(&mut stream, "x").await?;
                }
            }
            Play::Endless(start, again) => {
                write(&mut stream, &start).await?;
                loop {
                    write(&mut stream, &again).await?;
                }
            }
        }
    }
}

async fn write(stream: &mut TlsStream<TcpStream>, bytes: &str) -> Option<()> {
    stream.write_all(bytes.as_bytes()).await.ok()?;
    stream.flush().await.ok()
}

async fn read_request(stream: &mut TlsStream<TcpStream>) -> Option<String> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
            let length: usize = length.trim().parse().unwrap();
            if read.len() >= end + 4 + length {
                return Some(String::from_utf8_lossy(&read).into_owned());
            }
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}
