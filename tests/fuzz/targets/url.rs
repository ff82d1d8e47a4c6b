//! Any URL: it is refused, or it is one that may be called, in a form that means the same to every reader. The first line
//! is a published URL, the second one rendered from it.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use sluice_core::address::{IpPolicy, MAX_HOST_BYTES, UrlPolicy, check_ip, check_rendered, check_url};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let policy = UrlPolicy { own_names: vec!["hooks.sluice.example".into()], ..UrlPolicy::default() };
    let (first, second) = text.split_once('\n').unwrap_or((text, text));
    if let Ok(ip) = first.parse::<IpAddr>() {
        let allowed = check_ip(ip, &IpPolicy::default()).is_ok();
        assert_eq!(check_ip(ip.to_canonical(), &IpPolicy::default()).is_ok(), allowed);
        if allowed {
            assert!(!ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast());
        }
    }
    let Ok(published) = check_url(first, &policy) else { return };
    let (host, url) = (published.host(), published.as_url());
    assert_eq!((url.scheme(), url.host_str()), ("https", Some(host)));
    assert!(policy.ports.contains(&published.port()));
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
    assert!(host.contains('.') && host.len() <= MAX_HOST_BYTES && host.parse::<IpAddr>().is_err());
    assert!(host.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte)));
    assert!(!host.ends_with(".localhost") && !host.ends_with(".internal") && host != "hooks.sluice.example");
    assert!(!url.as_str().contains(|c: char| c.is_ascii_control() || c == ' ' || c == '\\'));
    assert_eq!(check_url(url.as_str(), &policy).as_ref(), Ok(&published));
    if let Ok(rendered) = check_rendered(second, &published.clone().into(), &policy) {
        let rendered = check_url(&rendered, &policy).unwrap();
        assert_eq!((rendered.host(), rendered.port()), (host, published.port()));
    }
});
