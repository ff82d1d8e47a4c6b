//! The connections of callers, as the gRPC server takes them, and what is known of who is at their other end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use sluice_tls::authority::Authority;
use sluice_tls::identity::{CertificateDer, Identity};
use sluice_tls::{Accepted, Acceptor, Certificates, Event, Observer, Tls};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::clock::Clock;
use crate::enrolment::GRACE;
use crate::error::Error;
use crate::settings::{Certificate, Settings};

/// Who is at the other end of a connection; an extension of every request.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    address: SocketAddr,
    certificate: Option<Arc<Shown>>,
}

/// What a certificate that the authority vouches for is of.
#[derive(Debug)]
pub(crate) enum Shown {
    /// A data plane.
    DataPlane(Identity),
    /// Something else.
    Foreign,
}

impl Peer {
    /// Where it calls from.
    pub(crate) fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// The certificate that it has shown.
    pub(crate) fn certificate(&self) -> Option<&Shown> {
        self.certificate.as_deref()
    }
}

/// One connection.
pub(crate) struct Socket {
    stream: sluice_tls::Stream,
    peer: Peer,
}

impl Socket {
    fn new(Accepted { stream, peer: address }: Accepted) -> Self {
        let shown = |certificate: &CertificateDer<'_>| match Identity::of(certificate) {
            Some(identity) => Shown::DataPlane(identity),
            None => Shown::Foreign,
        };
        let certificate = stream.certificate().map(shown).map(Arc::new);
        Self { stream, peer: Peer { address, certificate } }
    }
}

/// How connections are encrypted, as the settings say; `authority` vouches for those who come with a certificate.
///
/// # Errors
/// The certificate cannot be used.
pub(crate) async fn encryption(
    settings: &Settings,
    authority: Option<&Arc<Authority>>,
    stop: &CancellationToken,
) -> Result<Option<Tls>, Error> {
    let (Some(shown), Some(authority)) = (&settings.tls, authority) else { return Ok(None) };
    // What happens is in the log.
    let observer = Observer::new(|_: Event| ());
    let (certificates, names) = match shown {
        Certificate::Own(names) => (Arc::default(), names.clone()),
        Certificate::Files(files) => {
            (Certificates::follow(files.clone(), observer.clone(), stop.clone()).await?, Vec::new())
        }
    };
    certificates.vouch(authority.clone(), names, time(&settings.clock), stop.clone())?;
    let (limits, time) = (settings.limits.handshakes, time(&settings.clock));
    Ok(Some(Tls::asking(certificates, (authority, GRACE), limits, observer, time)?))
}

/// The connections that come in at `listener`, until it is dropped.
pub(crate) fn incoming(listener: TcpListener, tls: Option<Tls>) -> impl Stream<Item = io::Result<Socket>> {
    futures::stream::unfold(Acceptor::new(listener, tls), |mut acceptor| async move {
        let socket = Socket::new(acceptor.accept().await);
        Some((Ok(socket), acceptor))
    })
}

/// The time that certificates are checked with.
fn time(clock: &Clock) -> sluice_tls::Time {
    let clock = clock.clone();
    sluice_tls::Time::new(move || clock.now())
}

impl Connected for Socket {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
