//! Any signature header over any body, and any handshake: nobody gets in without the secret. Header and body are
//! separated by a line end; together they also serve as a query string.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_core::dedup::{DEFAULT_WINDOW, Rule};
use sluice_core::incoming_auth::{MAX_CHALLENGE_BYTES, meta_handshake, verify_meta};
use sluice_core::request::{body_type, check_header_name};

const SECRET: &[u8] = b"a secret that no corpus holds";

fuzz_target!(|data: &[u8]| {
    let split = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (header, body) = data.split_at(split);
    assert!(verify_meta(&[SECRET, b""], &[header], body).is_err());
    assert!(verify_meta(&[SECRET], &[header, body], body).is_err());
    let rule = Rule::new(Vec::new(), DEFAULT_WINDOW, true).expect("a rule");
    if rule.check_hash_header(&[header]).is_ok() {
        assert!(header.iter().all(|byte| (b' '..=b'~').contains(byte)));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    assert!(meta_handshake(text, &[SECRET]).is_err());
    let query = format!("hub.mode=subscribe&hub.verify_token=t&hub.challenge={text}");
    if let Ok(challenge) = meta_handshake(&query, &[b"t"]) {
        assert!(
            challenge.len() <= MAX_CHALLENGE_BYTES && challenge.is_ascii() && !challenge.contains(['<', '\r', '\n'])
        );
    }
    if check_header_name(text).is_ok() {
        assert!(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
    }
    body_type([("content-type", text)].into_iter());
});
