//! From a name to a checked, encrypted connection. The only place in the workspace that connects.
//!
//! Hides the address policy, the order of dialling, and TLS. What it promises (S26): a name is resolved once per
//! connection, every answer is checked before the first packet is sent, one forbidden answer refuses them all, and
//! exactly the checked addresses are dialled, so that nothing can change between the check and the use. This machine's
//! own addresses are refused too. Operator-given answers pass the same check. The certificate is checked for the *name*,
//! whatever the address.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sluice_core::address::{DeniedIp, IpPolicy, check_ip};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

use crate::client::limits::DIALLED_ADDRESSES;
use crate::error::{Phase, RequestError, SendError, SettingsError};
use crate::proxy::Proxy;
use crate::resolver::Resolver;

/// What the guard needs to know; the part of [`Settings`](crate::Settings) that concerns connections.
pub(crate) struct GuardSettings {
    pub(crate) connect_timeout: Duration,
    pub(crate) ip_policy: IpPolicy,
    pub(crate) static_addresses: HashMap<String, Vec<SocketAddr>>,
    pub(crate) nameservers: Vec<SocketAddr>,
    pub(crate) extra_ca_pem: Vec<Vec<u8>>,
    pub(crate) proxy: Option<Proxy>,
}

/// The connector below the connection pool.
#[derive(Clone)]
pub(crate) struct Guard(Arc<Inner>);

struct Inner {
    connect_timeout: Duration,
    ip_policy: IpPolicy,
    static_addresses: HashMap<String, Vec<SocketAddr>>,
    proxy: Option<Proxy>,
    resolver: Resolver,
    /// Whether an address is this machine's own. Tests stand for a machine that has others.
    is_own: fn(IpAddr) -> bool,
    tls: TlsConnector,
}

impl Guard {
    pub(crate) fn new(settings: GuardSettings) -> Result<Self, SettingsError> {
        let GuardSettings { connect_timeout, ip_policy, static_addresses, nameservers, extra_ca_pem, proxy } = settings;
        let static_addresses = static_addresses
            .into_iter()
            .map(|(name, answers)| match answers.is_empty() {
                true => Err(SettingsError::StaticAnswerEmpty(name)),
                false => Ok((canonical(&name), answers)),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Inner {
            connect_timeout,
            ip_policy,
            static_addresses,
            proxy,
            resolver: Resolver::new(&nameservers)?,
            is_own,
            tls: TlsConnector::from(Arc::new(tls_config(&extra_ca_pem)?)),
        })))
    }
}

/// The public roots, and the operator's own; HTTP/2 preferred. There is no way to switch verification off.
fn tls_config(extra_ca_pem: &[Vec<u8>]) -> Result<ClientConfig, SettingsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for (index, pem) in extra_ca_pem.iter().enumerate() {
        let mut found = false;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| SettingsError::ExtraCa(index))?;
            roots.add(certificate).map_err(|_| SettingsError::ExtraCa(index))?;
            found = true;
        }
        if !found {
            return Err(SettingsError::ExtraCa(index));
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| SettingsError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

impl Inner {
    async fn connect(&self, destination: &Uri) -> Result<Secured, SendError> {
        let target = SendError::BadRequest(RequestError::Target);
        if destination.scheme_str() != Some("https") {
            return Err(target);
        }
        let host = canonical(destination.host().ok_or(target.clone())?);
        if is_ip_literal(&host) {
            return Err(SendError::AddressDenied);
        }
        let server = ServerName::try_from(host.clone()).map_err(|_| target)?;
        let port = destination.port_u16().unwrap_or(443);
        let addresses = match &self.proxy {
            None => self.checked_addresses(&host, port).await?,
            // Where the operator's own proxy is, is the operator's to say.
            Some(proxy) => match proxy.host.parse() {
                Ok(ip) => vec![SocketAddr::new(ip, proxy.port)],
                Err(_) => self.look_up(&proxy.host, proxy.port).await?,
            },
        };
        timeout(self.connect_timeout, async {
            let mut socket = self.dial(&addresses).await?;
            // A request is one small write, answered at once: waiting to fill a packet only adds latency.
            socket.set_nodelay(true).map_err(|_| SendError::Connect)?;
            if let Some(proxy) = &self.proxy {
                proxy.open_tunnel(&mut socket, &host, port).await?;
            }
            let stream = self.tls.connect(server, socket).await.map_err(|error| SendError::from_handshake(&error))?;
            Ok(Secured { io: TokioIo::new(stream), since: Instant::now() })
        })
        .await
        .unwrap_or(Err(SendError::Timeout { phase: Phase::Connect }))
    }

    /// Every address of the name, all of them allowed; or none.
    async fn checked_addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, SendError> {
        let mut addresses = match self.static_addresses.get(host) {
            Some(answers) => answers.iter().map(|answer| with_port(*answer, port)).collect(),
            None => self.look_up(host, port).await?,
        };
        if addresses.is_empty() {
            return Err(SendError::Dns);
        }
        for address in &addresses {
            if let Err(denied) = self.check(address.ip()) {
                // The address is for the operator only: a tenant must not learn what a name means in here.
                tracing::warn!(host, address = %address.ip(), rule = denied.rule, "destination address refused");
                return Err(SendError::AddressDenied);
            }
        }
        addresses.truncate(DIALLED_ADDRESSES);
        Ok(addresses)
    }

    fn check(&self, ip: IpAddr) -> Result<(), DeniedIp> {
        check_ip(ip, &self.ip_policy)?;
        match !self.ip_policy.is_extra(ip) && (self.is_own)(ip.to_canonical()) {
            true => Err(DeniedIp { ip, rule: "this machine" }),
            false => Ok(()),
        }
    }

    async fn look_up(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, SendError> {
        let addresses = self.resolver.addresses(name).await?;
        Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    /// Tries the addresses in order. Each gets an equal share of the time, so that one that is silent cannot use up
    /// the time of those behind it.
    async fn dial(&self, addresses: &[SocketAddr]) -> Result<TcpStream, SendError> {
        let share = self.connect_timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let mut outcome = SendError::Connect;
        for address in addresses {
            tracing::debug!(%address, "dialling");
            #[allow(clippy::disallowed_methods, reason = "this is the one place that opens connections (I6)")]
            match timeout(share, TcpStream::connect(*address)).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => {
                    tracing::debug!(%address, kind = ?error.kind(), "destination address did not connect");
                    outcome = SendError::Connect;
                }
                Err(_) => outcome = SendError::Timeout { phase: Phase::Connect },
            }
        }
        Err(outcome)
    }
}

/// Whether an address is this machine's own, whichever interface has it: to such an address, and to no other, the system
/// would send from that very address. A UDP socket can ask without sending anything.
fn is_own(ip: IpAddr) -> bool {
    /// Any port will do.
    const DISCARD: u16 = 9;
    let from: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let sender = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((from, 0))?;
        #[allow(clippy::disallowed_methods, reason = "this asks for a route; nothing is sent")]
        socket.connect((ip, DISCARD))?;
        Ok(socket.local_addr()?.ip())
    };
    sender().is_ok_and(|sender| sender == ip)
}

/// A static answer with port 0 leaves the port to the URL; with another port it redirects the name to it.
fn with_port(answer: SocketAddr, port: u16) -> SocketAddr {
    match answer.port() {
        0 => SocketAddr::new(answer.ip(), port),
        _ => answer,
    }
}

/// One spelling per name: lower case, without the final dot.
fn canonical(host: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.to_ascii_lowercase()
}

/// Whether a host is an address in any spelling that some resolver would take as one: brackets, dotted numbers, or
/// a last label that is a number (`2130706433`, `0x7f.1`, `0177.0.0.1`). No real name ends in a number.
fn is_ip_literal(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    host.starts_with('[')
        || host.parse::<IpAddr>().is_ok()
        || last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl Service<Uri> for Guard {
    type Response = Secured;
    type Error = SendError;
    type Future = Pin<Box<dyn Future<Output = Result<Secured, SendError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.connect(&destination).await })
    }
}

/// One checked connection. The pool learns from it which protocol was agreed on.
pub(crate) struct Secured {
    io: TokioIo<TlsStream<TcpStream>>,
    since: Instant,
}

/// When a connection was made, so that it can be retired by age.
#[derive(Clone, Copy)]
pub(crate) struct Since(pub(crate) Instant);

impl Connection for Secured {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(Since(self.since));
        match self.io.inner().get_ref().1.alpn_protocol() {
            Some(b"h2") => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

impl Read for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Secured {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(extra_networks: &[&str], answers: &[(&str, &[&str])]) -> Guard {
        Guard::new(GuardSettings {
            connect_timeout: Duration::from_secs(5),
            ip_policy: IpPolicy { extra_networks: extra_networks.iter().map(|net| net.parse().unwrap()).collect() },
            static_addresses: answers
                .iter()
                .map(|(name, list)| ((*name).into(), list.iter().map(|ip| ip.parse().unwrap()).collect()))
                .collect(),
            nameservers: vec![],
            extra_ca_pem: vec![],
            proxy: None,
        })
        .unwrap()
    }

    #[tokio::test]
    async fn this_machines_own_addresses_are_refused_unless_the_operator_allows_them() {
        let answers: &[(&str, &[&str])] =
            &[("own.example", &["93.184.215.14:0"]), ("mapped.example", &["[::ffff:93.184.215.14]:0"])];
        let machine_with = |extra_networks: &[&str], is_own: fn(IpAddr) -> bool| {
            let mut inner = Arc::into_inner(guard(extra_networks, answers).0).unwrap();
            inner.is_own = is_own;
            inner
        };
        for name in ["own.example", "mapped.example"] {
            let check = async |inner: Inner| inner.checked_addresses(name, 443).await.map(|list| list.len());
            assert_eq!(
                check(machine_with(&[], |ip| ip.to_string() == "93.184.215.14")).await,
                Err(SendError::AddressDenied)
            );
            assert_eq!(check(machine_with(&[], |_| false)).await, Ok(1));
            assert_eq!(check(machine_with(&["93.184.215.0/24"], |_| true)).await, Ok(1));
        }
        assert!(std::ptr::fn_addr_eq(guard(&[], &[]).0.is_own, is_own as fn(IpAddr) -> bool));
    }

    #[test]
    fn the_system_knows_its_own_addresses() {
        assert!(is_own(Ipv4Addr::LOCALHOST.into()));
        // Where there is a network, the address it is entered by.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        #[allow(clippy::disallowed_methods, reason = "nothing is sent")]
        if socket.connect("192.0.2.1:9").is_ok() {
            assert!(is_own(socket.local_addr().unwrap().ip()));
        }
        // Nobody has these: they are for documentation.
        for other in ["192.0.2.1", "198.51.100.7", "2001:db8::1", "0.0.0.0", "::"] {
            assert!(!is_own(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn literals_in_every_spelling() {
        for literal in
            ["127.0.0.1", "[::1]", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "8.8.8.8", "a.1", "0x"]
        {
            assert!(is_ip_literal(literal), "{literal}");
        }
        for name in ["a.example", "1.example", "0x7f.example", "127.0.0.1.nip.io", "0xzz"] {
            assert!(!is_ip_literal(name), "{name}");
        }
    }

    #[tokio::test]
    async fn the_connector_refuses_literals_and_plain_http_by_itself() {
        let guard = guard(&["127.0.0.0/8"], &[]);
        for url in ["https://127.0.0.1:1/", "https://[::1]:1/", "https://2130706433:1/", "https://127.0.0.1.:1/"] {
            let refused = guard.0.connect(&url.parse().unwrap()).await.err();
            assert_eq!(refused, Some(SendError::AddressDenied), "{url}");
        }
        let refused = guard.0.connect(&"http://a.example/".parse().unwrap()).await.err();
        assert_eq!(refused, Some(SendError::BadRequest(RequestError::Target)));
    }

    #[tokio::test]
    async fn one_forbidden_answer_refuses_all() {
        let guard = guard(
            &["127.0.0.0/8"],
            &[
                ("good.example", &["93.184.215.14:0", "127.0.0.1:8443"]),
                ("mixed.example", &["93.184.215.14:0", "10.0.0.1:0"]),
                ("six.example", &["93.184.215.14:0", "[fd00::1]:0"]),
                ("mapped.example", &["93.184.215.14:0", "[::ffff:10.0.0.1]:0"]),
                ("nat64.example", &["[64:ff9b::7f00:1]:0"]),
                ("open.example", &["[::ffff:127.0.0.1]:0", "[::ffff:8.8.8.8]:0"]),
                ("Upper.Example.", &["[2606:4700:4700::1111]:0"]),
            ],
        );
        let check = async |host: &str| guard.0.checked_addresses(host, 443).await;
        let good = ["93.184.215.14:443", "127.0.0.1:8443"].map(|address| address.parse().unwrap());
        assert_eq!(check("good.example").await, Ok(good.to_vec()));
        assert_eq!(check("mixed.example").await, Err(SendError::AddressDenied));
        assert_eq!(check("six.example").await, Err(SendError::AddressDenied));
        // An IPv4 address inside an IPv6 one is judged as what is dialled in the end.
        assert_eq!(check("mapped.example").await, Err(SendError::AddressDenied));
        assert_eq!(check("nat64.example").await, Err(SendError::AddressDenied));
        assert_eq!(check("open.example").await.map(|list| list.len()), Ok(2));
        assert_eq!(check("upper.example").await.map(|list| list.len()), Ok(1));
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let broken = |answers: HashMap<String, Vec<SocketAddr>>, extra_ca_pem: Vec<Vec<u8>>| {
            Guard::new(GuardSettings {
                connect_timeout: Duration::from_secs(5),
                ip_policy: IpPolicy { extra_networks: vec![] },
                static_addresses: answers,
                nameservers: vec![],
                extra_ca_pem,
                proxy: None,
            })
            .err()
        };
        let empty = HashMap::from([("a.example".to_owned(), vec![])]);
        assert!(matches!(broken(empty, vec![]), Some(SettingsError::StaticAnswerEmpty(_))));
        assert!(matches!(broken(HashMap::new(), vec![b"no pem".to_vec()]), Some(SettingsError::ExtraCa(0))));
    }
}
