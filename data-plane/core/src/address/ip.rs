//! Which addresses may be dialled: a deny list for IPv4, an allow list for IPv6, and the IPv4 addresses that hide
//! inside IPv6 ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What the operator allows beyond the public internet (D20); never a tenant's to set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpPolicy {
    /// Networks that may be called although a rule denies them.
    pub extra_networks: Vec<IpNet>,
}

impl IpPolicy {
    /// Whether the operator allows this address, whatever speaks against it.
    pub fn is_extra(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.extra_networks.iter().any(|network| network.contains(&ip))
    }
}

/// An address that may not be called. `Display` leaves out the address, which may tell a tenant about networks that
/// are not its own; logs for the operator take it from `ip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host's address is in a network that cannot be called ({rule}); the operator can allow networks")]
pub struct DeniedIp {
    /// The address as it was resolved.
    pub ip: IpAddr,
    /// The name of the network it is in.
    pub rule: &'static str,
}

impl DeniedIp {
    /// The reason code, part of the contract.
    pub fn code(&self) -> &'static str {
        "egress.denied_ip"
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

const DENIED_V4: [(Ipv4Net, &str); 16] = [
    (v4(0, 0, 0, 0, 8), "this network"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "carrier NAT"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "protocol assignments"),
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 88, 99, 0, 24), "6to4 relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "benchmarking"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
    // Looks public, and is Azure's metadata and DNS service from inside.
    (v4(168, 63, 129, 16, 32), "cloud metadata"),
];

/// Everything public in IPv6 is in here …
const PUBLIC_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// … except these.
const DENIED_V6: [(Ipv6Net, &str); 4] = [
    (v6(0x2001, 0, 0, 23), "protocol assignments"),
    (v6(0x2001, 0xdb8, 0, 32), "documentation"),
    (v6(0x2002, 0, 0, 16), "6to4"),
    (v6(0x3fff, 0, 0, 20), "documentation"),
];

const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);
const NAT64_LOCAL: Ipv6Net = v6(0x64, 0xff9b, 1, 48);
const SIX_TO_FOUR: Ipv6Net = v6(0x2002, 0, 0, 16);
const TEREDO: Ipv6Net = v6(0x2001, 0, 0, 32);

/// Decides on one resolved address. A name is refused when any of its addresses is.
///
/// An IPv4 address inside an IPv6 one (mapped, NAT64, 6to4, Teredo) must be callable itself, also when the operator
/// has allowed the IPv6 network around it: the packet ends up at the inner one.
pub fn check_ip(ip: IpAddr, policy: &IpPolicy) -> Result<(), DeniedIp> {
    let outer = ip.to_canonical();
    let inner = match outer {
        IpAddr::V6(v6) => embedded_v4(v6).map(IpAddr::V4),
        IpAddr::V4(_) => None,
    };
    let rule = inner.and_then(|inner| denying_rule(inner, policy)).or_else(|| denying_rule(outer, policy));
    rule.map_or(Ok(()), |rule| Err(DeniedIp { ip, rule }))
}

fn denying_rule(ip: IpAddr, policy: &IpPolicy) -> Option<&'static str> {
    if policy.is_extra(ip) {
        return None;
    }
    match ip {
        IpAddr::V4(v4) => DENIED_V4.iter().find(|(network, _)| network.contains(&v4)).map(|(_, rule)| *rule),
        IpAddr::V6(v6) if !PUBLIC_V6.contains(&v6) => Some("not public IPv6"),
        IpAddr::V6(v6) => DENIED_V6.iter().find(|(network, _)| network.contains(&v6)).map(|(_, rule)| *rule),
    }
}

fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [_, b, c, _, _, _, g, h] = ip.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    if NAT64.contains(&ip) || NAT64_LOCAL.contains(&ip) {
        Some(join(g, h))
    } else if SIX_TO_FOUR.contains(&ip) {
        Some(join(b, c))
    } else if TEREDO.contains(&ip) {
        // Teredo stores the client's address with every bit turned over.
        Some(join(!g, !h))
    } else {
        None
    }
}
