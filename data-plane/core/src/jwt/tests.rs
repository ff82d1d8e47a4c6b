//! J01 to J40 of the attack table, but for what only a whole request can show.

use std::collections::HashMap;

use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use ring::rand::SystemRandom;
use ring::signature::{self as ring_sig, EcdsaKeyPair, RsaKeyPair};

use super::*;

const NOW: i64 = 1_700_000_000;

struct Keys(HashMap<String, (Vec<u8>, String)>);

impl Keys {
    fn read() -> Self {
        let keys = golden("keys.jsonl").into_iter().map(|line| {
            let text = |field: &str| line[field].as_str().unwrap().to_owned();
            (text("key"), (STANDARD.decode(text("private")).unwrap(), text("public")))
        });
        Self(keys.collect())
    }

    fn private(&self, name: &str) -> &[u8] {
        &self.0[name].0
    }

    fn public(&self, name: &str) -> &str {
        &self.0[name].1
    }

    fn ed25519(&self, name: &str, id: &str, until: Option<i64>) -> VerifyingKey {
        let pair = self.ed25519_pair(name, id);
        VerifyingKey::ed25519(id, pair.public(), until).unwrap()
    }

    fn ed25519_pair(&self, name: &str, id: &str) -> TokenKey {
        let private = self.private(name);
        TokenKey::from_seed(id, &private[private.len() - 32..]).unwrap()
    }

    fn verifier(&self, name: &str) -> Verifier {
        let other = |keys: Vec<VerifyingKey>| Verifier {
            keys,
            issuer: "https://issuer.example".to_owned(),
            audience: "aud1".to_owned(),
            token_type: None,
            lifetime_max: LIFETIME_DEFAULT,
        };
        let ed = self.ed25519("ed", "ed-1", None);
        match name {
            "workspace" => Verifier::of_workspace("workspaces/acme", vec![ed]),
            "ec alone" => other(VerifyingKey::from_pem(self.public("ec"), None).unwrap()),
            "rsa pss alone" => other(VerifyingKey::from_pem(self.public("rsa"), Some(Algorithm::Ps256)).unwrap()),
            "typed" => Verifier { token_type: Some("at+jwt".to_owned()), ..other(vec![ed]) },
            _ => {
                let mut rsa = VerifyingKey::from_jwks(&jwks(self.public("rsa")), None).unwrap();
                let old = self.ed25519("ed retired", "ed-old", Some((NOW + 1) * 1000));
                let gone = self.ed25519("ed retired", "ed-gone", Some(NOW * 1000));
                rsa.extend([ed, old, gone]);
                other(rsa)
            }
        }
    }

    /// The signature as `sign` asks for it.
    fn signature(&self, sign: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |padding: &'static dyn ring_sig::RsaEncoding| {
            let pair = RsaKeyPair::from_pkcs8(self.private("rsa")).unwrap();
            let mut signature = vec![0; pair.public().modulus_len()];
            pair.sign(padding, &random, message, &mut signature).unwrap();
            signature
        };
        let ec = |form| {
            let pair = EcdsaKeyPair::from_pkcs8(form, self.private("ec"), &random).unwrap();
            pair.sign(&random, message).unwrap().as_ref().to_vec()
        };
        let ed = |name: &str, message: &[u8]| {
            let private = self.private(name);
            let pair = ring_sig::Ed25519KeyPair::from_seed_unchecked(&private[private.len() - 32..]).unwrap();
            pair.sign(message).as_ref().to_vec()
        };
        let mut signature = match sign {
            "none" => Vec::new(),
            "zeros" => vec![0; 64],
            "order" => {
                let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
                hex::decode(order.repeat(2)).unwrap()
            }
            "rsa" => rsa(&ring_sig::RSA_PKCS1_SHA256),
            "rsa pss" => rsa(&ring_sig::RSA_PSS_SHA256),
            "ec" => ec(&ring_sig::ECDSA_P256_SHA256_FIXED_SIGNING),
            "ec der" => ec(&ring_sig::ECDSA_P256_SHA256_ASN1_SIGNING),
            "ed of other claims" => ed("ed", b"e30.e30"),
            "ed cut" | "ed bit" => ed("ed", message),
            other => match other.strip_prefix("hs256 public ") {
                Some(name) => {
                    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(self.public(name).as_bytes()).unwrap();
                    mac.update(message);
                    mac.finalize().into_bytes().to_vec()
                }
                None => ed(other, message),
            },
        };
        match sign {
            "ed cut" => drop(signature.pop()),
            "ed bit" => signature[40] ^= 1,
            _ => {}
        }
        signature
    }
}

/// A set with one RSA key named `rsa-1`.
fn jwks(public: &str) -> String {
    let body: String = public.lines().filter(|line| !line.starts_with("--")).collect();
    let der = STANDARD.decode(body).unwrap();
    // 2048 bits and the exponent 65537: where they stand does not change.
    let exponent = &der[der.len() - 3..];
    let modulus = &der[der.len() - 5 - 256..der.len() - 5];
    let (n, e) = (URL_SAFE_NO_PAD.encode(modulus), URL_SAFE_NO_PAD.encode(exponent));
    serde_json::json!({ "keys": [{ "kty": "RSA", "kid": "rsa-1", "alg": "RS256", "n": n, "e": e }] }).to_string()
}

fn golden(file: &str) -> Vec<Value> {
    let path = format!("{}/../../tests/golden/jwt/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `{now+60}` and the large claims put in.
fn filled(text: &str) -> String {
    let mut text = match text {
        "{deep}" => return format!("{{\"a\":{}{}}}", "[".repeat(2900), "]".repeat(2900)),
        // With the header and the signature of a good token, a byte too much.
        "{long}" => return format!("{{\"a\":\"{}\"}}", "a".repeat(6034)),
        "{1MB}" => return format!("{{\"a\":\"{}\"}}", "a".repeat(1 << 20)),
        text => text.to_owned(),
    };
    while let Some(at) = text.find("{now") {
        let end = at + text[at..].find('}').unwrap();
        let shift: i64 = text[at + 4..end].parse().unwrap_or_default();
        text.replace_range(at..=end, &(NOW + shift).to_string());
    }
    text
}

/// The same bytes with another last character, for those who do not look at it.
fn not_canonical(encoded: &str) -> String {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (rest, last) = encoded.split_at(encoded.len() - 1);
    let value = ALPHABET.find(last).unwrap();
    format!("{rest}{}", &ALPHABET[value ^ 1..][..1])
}

#[test]
fn j01_to_j40() {
    let keys = Keys::read();
    let (mut tested, mut wrong) = (0, Vec::new());
    for case in golden("tokens.jsonl") {
        let text = |field: &str| case[field].as_str().unwrap_or_default();
        let header = URL_SAFE_NO_PAD.encode(filled(text("header")));
        let claims = URL_SAFE_NO_PAD.encode(filled(text("claims")));
        let signature = keys.signature(text("sign"), format!("{header}.{claims}").as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(signature);
        let form = case.get("form").map_or("{h}.{c}.{s}", |form| form.as_str().unwrap());
        let mut token = form.replace("{h}", &header).replace("{c}", &claims).replace("{s}", &signature);
        if !signature.is_empty() {
            token = token.replace("{s-}", &signature[..signature.len() - 1]);
            token = token.replace("{s+}", &format!("{}+/", &signature[..signature.len() - 2]));
            token = token.replace("{s~}", &not_canonical(&signature));
        }
        let verified = keys.verifier(text("verifier")).verify(&token, NOW * 1000);
        let outcome = verified.as_ref().map_or_else(|refused| refused.code(), |_| "ok");
        if outcome != text("expect") {
            wrong.push(format!("{} ({} bytes): {outcome}", text("case"), token.len()));
        }
        tested += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(tested > 130, "the golden file is read: {tested}");
}

#[test]
fn j07_to_j10_and_j35_of_documents() {
    let mut tested = 0;
    for case in golden("documents.jsonl") {
        let text = |field: &str| case[field].as_str().unwrap_or_default();
        let wanted = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == text("algorithm"));
        let document = text("document").replace("{64KiB}", &"x".repeat(64 * 1024));
        let keys = match text("form") {
            "pem" => VerifyingKey::from_pem(&document, wanted),
            _ => VerifyingKey::from_jwks(&document, wanted),
        };
        match keys {
            Ok(keys) => {
                let algorithms: Vec<&str> = keys.iter().map(|key| key.algorithm().name()).collect();
                assert_eq!(algorithms.join(" "), text("expect"), "{}", text("case"));
            }
            Err(error) => assert!(error.to_string().contains(text("expect")), "{}: {error}", text("case")),
        }
        tested += 1;
    }
    assert!(tested > 50, "the golden file is read: {tested}");
}

#[test]
fn j31_the_longest_token_is_looked_at() {
    let verifier = Keys::read().verifier("");
    let token = |length: usize| format!("a.a.{}", "a".repeat(length - 4));
    assert_eq!(verifier.verify(&token(TOKEN_BYTES_MAX), 0), Err(Refused::Malformed));
    assert_eq!(verifier.verify(&token(TOKEN_BYTES_MAX + 1), 0), Err(Refused::TooLong));
}

#[test]
fn j33_exactly_one_bearer() {
    let of = |values: &[&str]| bearer(&values.iter().map(|value| value.as_bytes()).collect::<Vec<_>>()).map(str::len);
    assert_eq!(of(&["Bearer a.b.c"]), Some(5));
    assert_eq!(of(&["bEARER a.b.c"]), Some(5));
    let refused: [&[&str]; 12] = [
        &[],
        &[""],
        &["Bearer"],
        &["Bearer "],
        &["Bearer  a.b.c"],
        &["bearer\ta.b.c"],
        &["Bearer a.b.c "],
        &["Bearer a, Bearer b"],
        &["Bearer a.b.c", "Bearer a.b.c"],
        &["Basic YTpi"],
        &["a.b.c"],
        &["Bearer ä"],
    ];
    for values in refused {
        assert_eq!(of(values), None, "{values:?}");
    }
    assert_eq!(bearer(&[b"Bearer \xff"]), None);
}

#[test]
fn j38_a_clock_that_jumps_moves_the_borders_and_nothing_else() {
    let verifier = Keys::read().verifier("workspace");
    let key = Keys::read().ed25519_pair("ed", "ed-1");
    let permissions = ["INCOMING_WEBHOOK_EXECUTE".to_owned()];
    let grant = Grant {
        workspace: "workspaces/acme",
        api_key: "key-1",
        permissions: &permissions,
        now: NOW * 1000,
        token_id: "1",
    };
    let token = key.sign(&grant);
    let at = |seconds: i64| verifier.verify(&token, (NOW + seconds) * 1000);
    let verified = at(0).unwrap();
    assert_eq!(verified.subject.as_deref(), Some("key-1"));
    assert_eq!(verified.permissions, permissions);
    assert_eq!(verified.until, (NOW + 3630) * 1000);
    assert_eq!(at(600), at(0));
    assert_eq!(at(3629), at(0));
    assert_eq!(at(3630), Err(Refused::Expired));
    assert_eq!(at(-30), at(0));
    assert_eq!(at(-31), Err(Refused::IssuedLater));
    assert_eq!(verifier.verify(&token, i64::MIN), Err(Refused::IssuedLater));
    assert_eq!(verifier.verify(&token, i64::MAX), Err(Refused::Expired));
}
