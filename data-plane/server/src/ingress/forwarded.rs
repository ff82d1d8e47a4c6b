//! Where a request really comes from. Behind a proxy every connection is the proxy's; its `X-Forwarded-For` says whose request it is.
//! Anybody can send that header, so it is believed only as far as it was written by proxies that the operator names: from the right, the
//! first address that is none of theirs.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The sender of a request that came over a connection from `peer`.
pub(super) fn sender(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let is_proxy = |address: &IpAddr| proxies.iter().any(|network| network.contains(address));
    let mut sender = peer.to_canonical();
    let hops = headers.get_all(FORWARDED_FOR).iter().rev();
    for hop in hops.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b',')) {
        if !is_proxy(&sender) {
            break;
        }
        // What a proxy of ours cannot have written ends the trust: the request is taken for the proxy's.
        let Some(address) = address(hop) else { break };
        sender = address;
    }
    sender
}

/// An address, with or without a port.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_proxies_are_believed() {
        let proxies: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].iter().map(|text| text.parse().unwrap()).collect();
        let sent_by = |peer: &str, values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            sender(peer.parse().unwrap(), &headers, &proxies).to_string()
        };
        for (peer, values, expected) in [
            // Without a proxy the header is the sender's own invention.
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            // Forged on the left of what the proxy has added.
            ("10.0.0.1", &["127.0.0.1, 192.168.0.1, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["127.0.0.1", "198.51.100.1"], "198.51.100.1"),
            // Through two proxies.
            ("10.0.0.1", &["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1,198.51.100.1 , 10.0.0.2,10.0.0.3"], "198.51.100.1"),
            ("fd00::1", &["2001:db8::7"], "2001:db8::7"),
            ("10.0.0.1", &["[2001:db8::7]:4711"], "2001:db8::7"),
            ("10.0.0.1", &["[2001:db8::7]"], "2001:db8::7"),
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            // Only proxies: the first of them.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // Nonsense is not looked behind.
            ("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, , 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &[""], "10.0.0.1"),
        ] {
            assert_eq!(sent_by(peer, values), expected, "{peer} {values:?}");
        }
    }
}
