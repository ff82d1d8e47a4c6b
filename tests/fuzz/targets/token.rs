//! Any text as a token, as an `Authorization` header, as an API key and as a document of keys; and any header and claims, signed well:
//! nobody gets in without the key, and who has it only as far as the rules go. Header and claims are separated by a line end.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sluice_core::api_key::ApiKey;
use sluice_core::jwt::{KEYS_BYTES_MAX, LEEWAY, LIFETIME_DEFAULT, TOKEN_BYTES_MAX, Verifier, VerifyingKey, bearer};

/// 2027-01-15T08:00:00Z.
const NOW: i64 = 1_800_000_000_000;

fn verifier(pair: &Ed25519KeyPair) -> Verifier {
    let key = VerifyingKey::ed25519("ed-1", pair.public_key().as_ref(), None).expect("a key");
    Verifier {
        keys: vec![key],
        issuer: "https://issuer.example".to_owned(),
        audience: "aud1".to_owned(),
        token_type: None,
        lifetime_max: LIFETIME_DEFAULT,
    }
}

fn signed(pair: &Ed25519KeyPair, header: &[u8], claims: &[u8]) -> String {
    let token = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(token.as_bytes()));
    format!("{token}.{signature}")
}

fuzz_target!(|data: &[u8]| {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key pair");
    let verifier = verifier(&pair);
    if let Some(token) = bearer(&[data]) {
        assert!(!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic() && byte != b','));
        assert!(bearer(&[data, data]).is_none());
    }
    if let Ok(text) = std::str::from_utf8(data) {
        // Who could sign would have the key.
        assert!(verifier.verify(text, NOW).is_err());
        if let Ok(key) = ApiKey::parse(text) {
            assert!(key.text().starts_with(text), "what is read is what is written");
            assert!(key.is(&key.hash()) && !key.is(&[0; 32]));
        }
        for keys in [VerifyingKey::from_jwks(text, None), VerifyingKey::from_pem(text, None)].into_iter().flatten() {
            assert!(!keys.is_empty() && text.len() <= KEYS_BYTES_MAX);
        }
    }
    let split = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (header, claims) = data.split_at(split);
    let token = signed(&pair, header, claims.get(1..).unwrap_or_default());
    if let Ok(verified) = verifier.verify(&token, NOW) {
        assert!(token.len() <= TOKEN_BYTES_MAX);
        let latest = NOW + i64::try_from((LIFETIME_DEFAULT + LEEWAY * 2).as_millis()).expect("a day");
        assert!((NOW..=latest).contains(&verified.until), "{verified:?}");
        // Another end of the signature, and nobody is let in.
        let (rest, last) = token.split_at(token.len() - 2);
        let other = if last == "AA" { "BA" } else { "AA" };
        assert!(verifier.verify(&format!("{rest}{other}"), NOW).is_err());
    }
});
