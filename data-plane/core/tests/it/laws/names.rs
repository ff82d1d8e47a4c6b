//! Paths, header names and values, signatures, URLs: every text gets an answer, and an accepted one has one form.

use proptest::collection::vec;
use proptest::prelude::*;
use sluice_core::address::{IpPolicy, UrlPolicy, check_ip, check_rendered, check_url};
use sluice_core::dedup::Parameter;
use sluice_core::flatten::{Limits, parse_body};
use sluice_core::incoming_auth::{meta_handshake, verify_meta};
use sluice_core::path::Path;
use sluice_core::request::{body_type, check_header_name};
use sluice_core::response_event::{check_parameter_name, check_static_value};
use sluice_core::template::{Context, Mode, OnMissing, Template, value_from_json_text};

use super::documents::{key, text};
use super::holds;

/// Texts put together from pieces that mean something, and from anything.
fn from_pieces(pieces: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    let piece = prop_oneof![4 => prop::sample::select(pieces).prop_map(str::to_owned), 1 => text()];
    vec(piece, 0..most).prop_map(|pieces| pieces.concat())
}

const OF_PATHS: [&str; 20] = [
    "body",
    "headers",
    "method",
    "time",
    ".",
    ".a",
    ".b-c",
    "[0]",
    "[10]",
    "[*]",
    "[\"",
    "\"]",
    "['",
    "']",
    "\\\"",
    "\\u0041",
    "\\",
    "X-Id",
    "[01]",
    "[4294967295]",
];

#[test]
fn a_path_has_one_text() {
    let written = prop_oneof![
        from_pieces(&OF_PATHS, 6),
        vec(key(), 0..4).prop_map(|keys| {
            let steps = keys.iter().map(|key| format!("[{}]", serde_json::Value::from(key.as_str())));
            format!("body{}", steps.collect::<String>())
        }),
    ];
    let parsed = std::cell::Cell::new(0);
    holds(written, |text| {
        if let Ok(path) = text.parse::<Path>() {
            parsed.set(parsed.get() + 1);
            let canonical = path.to_string();
            let again: Path = canonical.parse().unwrap();
            prop_assert_eq!(&again, &path);
            prop_assert_eq!(again.to_string(), canonical);
        }
        // A deduplication parameter is a path, or no parameter.
        prop_assert!(Parameter::parse(&text).is_err() || text.parse::<Path>().is_ok());
        Ok(())
    });
    assert!(parsed.get() > 2_000, "hardly any path parses: {}", parsed.get());
}

#[test]
fn what_is_asked_about_a_name_always_has_an_answer() {
    let name =
        prop_oneof![text(), from_pieces(&["X-", "host", "Content-Length", ":", " ", "\r\n", "\t", "a", "-", "\0"], 5)];
    holds((name, text()), |(name, value)| {
        let is_taken = check_header_name(&name).is_ok();
        prop_assert!(!is_taken || (name.is_ascii() && !name.contains([':', ' ', '\r', '\n', '\0', '\t', '"'])));
        prop_assert_eq!(is_taken, check_header_name(&name.to_ascii_uppercase()).is_ok());
        body_type([(name.as_str(), value.as_str())].into_iter());
        let parameter = check_parameter_name(&name);
        prop_assert!(parameter.is_err() || name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        prop_assert_eq!(check_static_value(&value.repeat(40)).is_ok(), value.chars().count() * 40 <= 230);
        Ok(())
    });
}

const OF_URLS: [&str; 34] = [
    "https://",
    "HTTPS://",
    "http://",
    "https:",
    "//",
    "/",
    "\\",
    "?",
    "#",
    "@",
    ":",
    ":443",
    ":8443",
    ":80",
    "good.example",
    "GOOD.example.",
    "localhost",
    "127.0.0.1",
    "0x7f.1",
    "2130706433",
    "[::1]",
    "[::ffff:1.2.3.4]",
    "%31",
    "%2e",
    "..",
    "\t",
    " ",
    "①",
    "。",
    "xn--",
    "metadata.",
    "user:",
    "a.b",
    "ł",
];

#[test]
fn an_accepted_url_has_one_form_and_no_second_reading() {
    let accepted = std::cell::Cell::new(0);
    let written = prop_oneof![
        from_pieces(&OF_URLS, 6),
        from_pieces(&OF_URLS, 5).prop_map(|rest| format!("https://good.example{rest}")),
    ];
    let policy = UrlPolicy::default();
    let published = check_url("https://good.example/", &policy).unwrap().into();
    holds(written, |text| {
        let checked = check_url(&text, &policy);
        if let Ok(url) = &checked {
            accepted.set(accepted.get() + 1);
            let parsed = url.as_url();
            prop_assert_eq!(parsed.scheme(), "https");
            prop_assert_eq!(parsed.host_str(), Some(url.host()));
            prop_assert!(parsed.username().is_empty() && parsed.password().is_none() && parsed.fragment().is_none());
            prop_assert!(url.host().contains('.') && url.host().parse::<std::net::IpAddr>().is_err());
            prop_assert!(
                url.host().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b))
            );
            prop_assert!(policy.ports.contains(&url.port()));
            let again = check_url(parsed.as_str(), &policy);
            prop_assert_eq!(again.as_ref(), Ok(url));
        }
        let stays = check_rendered(&text, &published, &policy).is_ok();
        prop_assert_eq!(stays, checked.is_ok_and(|url| (url.host(), url.port()) == ("good.example", 443)));
        Ok(())
    });
    assert!(accepted.get() > 1_000, "hardly any URL is accepted: {}", accepted.get());
}

/// An IPv4 address is judged alike however it is written into an IPv6 one.
#[test]
fn an_address_is_judged_alike_in_every_dress() {
    holds(any::<u32>(), |bits| {
        let v4 = std::net::Ipv4Addr::from_bits(bits);
        let policy = IpPolicy::default();
        let allowed = check_ip(v4.into(), &policy).is_ok();
        prop_assert_eq!(check_ip(v4.to_ipv6_mapped().into(), &policy).is_ok(), allowed);
        // NAT64 hides it; the network around it is not public anyway.
        let nat64 = std::net::Ipv6Addr::from_bits(0x0064_ff9b_u128 << 96 | u128::from(bits));
        prop_assert!(check_ip(nat64.into(), &policy).is_err());
        Ok(())
    });
}

#[test]
fn signatures_and_handshakes_always_have_an_answer() {
    let header = prop_oneof![from_pieces(&["sha256=", "sha1=", "=", "00", "ff", "FF", " "], 40), text()];
    holds((header, text(), text()), |(header, secret, body)| {
        let outcome = verify_meta(&[secret.as_bytes()], &[header.as_bytes()], body.as_bytes());
        prop_assert!(outcome.is_err(), "nobody guesses a signature");
        let query = format!("hub.mode=subscribe&hub.verify_token={secret}&hub.challenge={body}&{header}");
        if let Ok(challenge) = meta_handshake(&query, &[secret.as_bytes()]) {
            prop_assert!(challenge.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)));
        }
        Ok(())
    });
}

fn rendered(template: &Template, data: &str) -> Option<String> {
    let json = serde_json::Value::from(data).to_string();
    let mut context = Context::new();
    context.set("x", value_from_json_text(&json).unwrap());
    template.render(&context, OnMissing::Empty).ok().map(|rendered| rendered.text)
}

/// S55, S56: whatever data is, the URL leads where it was published, below the author's own text, and gives the data back.
#[test]
fn data_in_a_url_stays_where_it_was_put() {
    let data = from_pieces(
        &["..", ".", "/", "%2e", "%2f", "?", "&", "=", "#", "@", ":8443", "\\", "\r\n", " ", "+", "%", "ü"],
        5,
    );
    let template = Template::compile("https://good.example/api/{{ x }}/end?q={{ x }}&r=1", Mode::Url).unwrap();
    let policy = UrlPolicy::default();
    let published = check_url("https://good.example/api/", &policy).unwrap().into();
    let sent = std::cell::Cell::new(0);
    holds(data, |data| {
        let Some(text) = rendered(&template, &data) else {
            prop_assert!(data == "." || data == "..", "refused: {data:?}");
            return Ok(());
        };
        sent.set(sent.get() + 1);
        let url = check_rendered(&text, &published, &policy);
        prop_assert!(url.is_ok(), "{text}: {url:?}");
        let url = check_url(&url.unwrap(), &policy).unwrap().as_url().clone();
        let segments: Vec<_> = url.path_segments().unwrap().collect();
        prop_assert_eq!((segments.len(), segments[0], segments[2]), (3, "api", "end"), "{}", text);
        let decoded = percent_encoding::percent_decode_str(segments[1]).decode_utf8().unwrap();
        prop_assert_eq!(&decoded, &data);
        let pairs: Vec<_> = url.query_pairs().collect();
        prop_assert_eq!(pairs, [("q".into(), data.into()), ("r".into(), "1".into())]);
        Ok(())
    });
    assert!(sent.get() > 9_000);
}

/// O04, O05: a header value comes out as one line, or the render ends.
#[test]
fn data_in_a_header_is_one_line_or_none() {
    let template = Template::compile("a {{ x }}", Mode::Header).unwrap();
    let data = prop_oneof![
        text(),
        from_pieces(&["\r\n", "\n", "\0", "\u{7f}", "\t", " ", "\u{85}", "嘍嘊", "%0d%0a", "a: b"], 4)
    ];
    holds(data, |data| {
        let breaks = |c: char| c.is_control() && c != '\t';
        match rendered(&template, &data) {
            Some(text) => {
                prop_assert!(!text.contains(breaks));
                let whole = format!("a {data}");
                prop_assert_eq!(text, whole.trim_matches([' ', '\t']));
            }
            None => prop_assert!(data.contains(breaks), "{data:?}"),
        }
        Ok(())
    });
}

/// Reading what the product writes about a value (its own text) gives the value back.
#[test]
fn a_quoted_key_is_read_as_json_reads_it() {
    holds(text(), |text| {
        let quoted = serde_json::Value::from(text.as_str()).to_string();
        prop_assert_eq!(parse_body(quoted.as_bytes(), &Limits::default()).unwrap(), serde_json::Value::from(text));
        Ok(())
    });
}
