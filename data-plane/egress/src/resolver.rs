//! From a name to its addresses: the only place that asks DNS.
//!
//! Hides the questions (IPv4 and IPv6 at once, over UDP and where an answer does not fit over TCP), who is asked, and what
//! the hosts file says. A name is asked for as it is: search domains and `ndots` of the system do not count, so that a name
//! never means something of the network Sluice happens to run in. Nothing is remembered: an answer is good for the one
//! connection it was asked for. Whether an address may be called is not decided here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::{Hosts, TokioResolver};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::client::limits::{CONCURRENT_LOOKUPS, RESOLVER_DEADLINE};
use crate::error::{SendError, SettingsError};

/// Where the operator of the machine says who is asked.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Names that the machine answers itself. Their addresses are checked like any other.
const HOSTS: &str = "/etc/hosts";
/// Time for one try. A silent server costs two of them, which leaves room within [`RESOLVER_DEADLINE`] for the other kind
/// of address to be heard.
const ONE_TRY: Duration = Duration::from_secs(2);

pub(crate) struct Resolver {
    dns: TokioResolver,
    lookups: Semaphore,
}

impl Resolver {
    /// Asks these servers, or the system's if there are none. Files are read now and not again.
    pub(crate) fn new(nameservers: &[SocketAddr]) -> Result<Self, SettingsError> {
        let nameservers = match nameservers {
            [] => system_nameservers(&std::fs::read(RESOLV_CONF).unwrap_or_default()),
            given => given.to_vec(),
        };
        Self::with(&nameservers, hosts(Path::new(HOSTS)))
    }

    fn with(nameservers: &[SocketAddr], hosts: Hosts) -> Result<Self, SettingsError> {
        let servers = nameservers.iter().map(|server| {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            connections.iter_mut().for_each(|connection| connection.port = server.port());
            NameServerConfig::new(server.ip(), true, connections)
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options: &mut ResolverOpts = builder.options_mut();
        options.timeout = ONE_TRY;
        options.attempts = 1;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let mut dns = builder.build().map_err(|_| SettingsError::Resolver)?;
        dns.set_hosts(Arc::new(hosts));
        Ok(Self { dns, lookups: Semaphore::new(CONCURRENT_LOOKUPS) })
    }

    /// All addresses of a full name, IPv4 and IPv6 in turn, so that both kinds are among the first ones.
    pub(crate) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, SendError> {
        let mut name = Name::from_ascii(name).map_err(|_| SendError::Dns)?;
        if name.num_labels() == 0 {
            return Err(SendError::Dns);
        }
        name.set_fqdn(true);
        let question = async {
            let _permit = self.lookups.acquire().await.map_err(|_| SendError::Dns)?;
            let answer = self.dns.lookup_ip(name).await.map_err(|error| unanswered(&error))?;
            let (four, six): (Vec<_>, Vec<_>) = answer.iter().partition(IpAddr::is_ipv4);
            let mut addresses = Vec::with_capacity(four.len() + six.len());
            let (mut four, mut six) = (four.into_iter(), six.into_iter());
            loop {
                let before = addresses.len();
                addresses.extend(four.next());
                addresses.extend(six.next());
                if addresses.len() == before {
                    return Ok(addresses);
                }
            }
        };
        timeout(RESOLVER_DEADLINE, question).await.unwrap_or(Err(SendError::DnsTimeout))
    }
}

fn unanswered(error: &NetError) -> SendError {
    tracing::debug!(%error, "a name was not resolved");
    match error {
        NetError::Timeout => SendError::DnsTimeout,
        _ => SendError::Dns,
    }
}

/// The servers that a `resolv.conf` names. Without any, this machine is asked, as the system's own resolver does.
fn system_nameservers(resolv_conf: &[u8]) -> Vec<SocketAddr> {
    const DNS: u16 = 53;
    let (config, errors) = resolv_conf::Config::parse_with_errors(resolv_conf);
    for error in errors {
        tracing::warn!(%error, "a line of {RESOLV_CONF} is ignored");
    }
    let mut servers: Vec<_> = config.nameservers.iter().map(|ip| SocketAddr::new(ip.into(), DNS)).collect();
    if servers.is_empty() {
        tracing::warn!("{RESOLV_CONF} names no nameserver; this machine is asked");
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS));
    }
    servers
}

/// A hosts file; one that cannot be read says nothing.
fn hosts(path: &Path) -> Hosts {
    let mut hosts = Hosts::default();
    let read = std::fs::File::open(path).and_then(|file| hosts.read_hosts_conf(file));
    if let Err(error) = read {
        tracing::debug!(%error, "the hosts file is not used");
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where nobody answers: a lookup that gets this far fails.
    const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

    fn with_hosts(text: &str) -> Resolver {
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(text.as_bytes()).unwrap();
        Resolver::with(&[NOBODY], hosts).unwrap()
    }

    #[test]
    fn the_systems_servers_are_asked() {
        let servers =
            |text: &str| system_nameservers(text.as_bytes()).iter().map(ToString::to_string).collect::<Vec<_>>();
        let text = "search default.svc.cluster.local lan\noptions ndots:5\nnameserver 10.0.0.10\nnameserver fd00::10\n";
        assert_eq!(servers(text), ["10.0.0.10:53", "[fd00::10]:53"]);
        assert_eq!(servers("nameserver not-an-address\nnameserver 9.9.9.9\n"), ["9.9.9.9:53"]);
        assert_eq!(servers(""), ["127.0.0.1:53"]);
    }

    #[tokio::test]
    async fn the_hosts_file_is_believed_and_its_answers_alternate_d10() {
        let resolver = with_hosts(
            "127.0.0.1 localhost\n10.0.0.1 crm.example # ours\n10.0.0.2 CRM.example\nfd00::1 crm.example\nnonsense x.example\n",
        );
        let expected: Vec<IpAddr> = ["10.0.0.1", "fd00::1", "10.0.0.2"].map(|ip| ip.parse().unwrap()).to_vec();
        assert_eq!(resolver.addresses("crm.example").await, Ok(expected.clone()));
        assert_eq!(resolver.addresses("crm.example.").await, Ok(expected));
        assert!(hosts(Path::new("/nowhere/hosts")).lookup_static_host(&Default::default()).is_none());
    }

    #[tokio::test]
    async fn what_is_no_name_has_no_address() {
        let resolver = with_hosts("");
        for name in ["", ".", "a..example", &"a".repeat(64), &"a.".repeat(128)] {
            assert_eq!(resolver.addresses(name).await, Err(SendError::Dns), "{name:?}");
        }
    }
}
