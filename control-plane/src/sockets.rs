//! The connections of callers, as the gRPC server takes them, and what is known of who is at their other end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use sluice_tls::{Acceptor, Certificates, Event, Observer, Tls};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::clock::Clock;
use crate::error::Error;
use crate::settings::Settings;

/// Who is at the other end of a connection; an extension of every request.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    address: SocketAddr,
}

impl Peer {
    /// Where it calls from.
    pub(crate) fn ip(&self) -> IpAddr {
        self.address.ip()
    }
}

/// One connection.
pub(crate) struct Socket(sluice_tls::Accepted);

/// How connections are encrypted, as the settings say.
///
/// # Errors
/// The certificate cannot be used.
pub(crate) async fn encryption(settings: &Settings, stop: &CancellationToken) -> Result<Option<Tls>, Error> {
    let Some(files) = &settings.tls else { return Ok(None) };
    // What happens is in the log.
    let observer = Observer::new(|_: Event| ());
    let certificates = Certificates::follow(files.clone(), observer.clone(), stop.clone()).await?;
    Ok(Some(Tls::new(certificates, settings.limits.handshakes, observer, time(&settings.clock))?))
}

/// The connections that come in at `listener`, until it is dropped.
pub(crate) fn incoming(listener: TcpListener, tls: Option<Tls>) -> impl Stream<Item = io::Result<Socket>> {
    futures::stream::unfold(Acceptor::new(listener, tls), |mut acceptor| async move {
        let socket = Socket(acceptor.accept().await);
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
        Peer { address: self.0.peer }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.stream.is_write_vectored()
    }
}
