//! Connections as they come in. With TLS their handshakes run beside each other, so that a slow one holds up nobody; each has a
//! deadline, and only so many run at once.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::authority::Authority;
use crate::verifier::Graceful;
use crate::{Certificates, Error, Event, Observer, PROTOCOLS, Time, provider};

/// The pause after a connection that could not be accepted, which may mean that there is no file descriptor left.
const PAUSE: Duration = Duration::from_millis(50);

/// Limits of the handshakes at a door.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeLimits {
    /// Handshakes under way at once: 256 by default. Further connections wait to be taken.
    pub at_once: usize,
    /// How long one may take: 10 s by default. Its connection is closed then.
    pub time: Duration,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        Self { at_once: 256, time: Duration::from_secs(10) }
    }
}

/// A connection that is ready to be read.
#[derive(Debug)]
pub struct Accepted {
    /// What goes over it.
    pub stream: Stream,
    /// Where it comes from.
    pub peer: SocketAddr,
}

/// What goes over a connection.
#[derive(Debug)]
pub enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The certificate that the peer has shown, and has proved to have the key of.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.peer_certificates()?.first(),
        }
    }
}

/// Takes connections from a listener.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    tls: Option<Tls>,
    handshakes: JoinSet<Option<Accepted>>,
}

/// How connections are encrypted.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    limits: HandshakeLimits,
    observer: Observer,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Tls {
    /// Shows these certificates and asks for none.
    ///
    /// # Errors
    /// The parts do not fit together.
    pub fn new(
        certificates: Arc<Certificates>,
        limits: HandshakeLimits,
        observer: Observer,
        time: Time,
    ) -> Result<Self, Error> {
        let config = ServerConfig::builder_with_details(provider(), Arc::new(time));
        let config = config.with_safe_default_protocol_versions()?.with_no_client_auth();
        Ok(Self::of(config.with_cert_resolver(certificates), limits, observer))
    }

    /// Shows these certificates and takes those that the authority vouches for, also for the `grace` after their end; who has none
    /// comes in without.
    ///
    /// # Errors
    /// The parts do not fit together.
    pub fn asking(
        certificates: Arc<Certificates>,
        (authority, grace): (&Authority, Duration),
        limits: HandshakeLimits,
        observer: Observer,
        time: Time,
    ) -> Result<Self, Error> {
        let verifier = Arc::new(Graceful::new(authority, grace)?);
        let config = ServerConfig::builder_with_details(provider(), Arc::new(time));
        let config = config.with_safe_default_protocol_versions()?.with_client_cert_verifier(verifier);
        let mut config = config.with_cert_resolver(certificates);
        // A certificate is looked at anew with every connection.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self::of(config, limits, observer))
    }

    fn of(mut config: ServerConfig, limits: HandshakeLimits, observer: Observer) -> Self {
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), limits, observer }
    }

    async fn handshake(self, stream: TcpStream, peer: SocketAddr) -> Option<Accepted> {
        match tokio::time::timeout(self.limits.time, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Some(Accepted { stream: Stream::Tls(Box::new(stream)), peer }),
            Ok(Err(error)) => {
                self.observer.tell(Event::HandshakeFailed);
                tracing::debug!(%peer, %error, "a TLS handshake failed");
                None
            }
            Err(_elapsed) => {
                self.observer.tell(Event::HandshakeTimedOut);
                tracing::debug!(%peer, "a TLS handshake took too long");
                None
            }
        }
    }
}

impl Acceptor {
    /// Takes connections from `listener`; without `tls` as they are.
    pub fn new(listener: TcpListener, tls: Option<Tls>) -> Self {
        Self { listener, tls, handshakes: JoinSet::new() }
    }

    /// The next connection. May be dropped while it waits: nothing is lost.
    pub async fn accept(&mut self) -> Accepted {
        loop {
            let room = self.tls.as_ref().is_none_or(|tls| self.handshakes.len() < tls.limits.at_once);
            let accepted = tokio::select! {
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Some(accepted)) => return accepted,
                    Ok(None) => continue,
                    Err(error) => {
                        tracing::error!(%error, "a TLS handshake ended unexpectedly");
                        continue;
                    }
                },
                accepted = self.listener.accept(), if room => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, or the peer is gone already: neither ends the service.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            // A small answer must not wait for the acknowledgement of the one before.
            stream.set_nodelay(true).unwrap_or_else(|error| tracing::debug!(%error, "no TCP_NODELAY"));
            match &self.tls {
                None => return Accepted { stream: Stream::Plain(stream), peer },
                Some(tls) => drop(self.handshakes.spawn(tls.clone().handshake(stream, peer))),
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
