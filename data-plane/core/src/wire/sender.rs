//! Who may send to an endpoint, and the keys of a workspace's tokens.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sluice_proto::admin::v1 as admin;
use sluice_proto::sync::v1 as sync;

use super::connection::secret;
use super::{Parsed, duration, reference};
use crate::jwt::{Algorithm, LIFETIME_DEFAULT, TokenKey, Verifier, VerifyingKey};
use crate::model::{Authorization, LoginKey, SenderSecret, TokenKeys, TokenSource};
use crate::validate::Check;

/// Longest app secret and verify token, in characters.
const META_SECRET_CHARS_MAX: usize = 512;
/// Longest issuer and audience, in characters.
const CLAIM_CHARS_MAX: usize = 512;
/// Longest type of a token, in characters.
const TOKEN_TYPE_CHARS_MAX: usize = 64;
/// How long a token may be allowed to live.
const LIFETIME_LIMITS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(30 * 24 * 3600));

/// Parses the choice of who may send.
pub(super) fn authorization(
    check: &mut Check,
    wire: Option<&admin::incoming_integration::Authorization>,
) -> Option<Authorization> {
    use admin::incoming_integration::Authorization as Wire;
    match wire {
        Some(Wire::None(_)) => Some(Authorization::None),
        Some(Wire::Meta(meta)) => {
            check.within("meta", |check| {
                secret(check, "app_secret", &meta.app_secret, meta.app_secret_set, META_SECRET_CHARS_MAX);
                secret(check, "verify_token", &meta.verify_token, meta.verify_token_set, META_SECRET_CHARS_MAX);
            });
            Some(Authorization::Meta {
                app_secrets: Box::new(vec![SenderSecret::active(&meta.app_secret)]),
                verify_tokens: Box::new(vec![SenderSecret::active(&meta.verify_token)]),
            })
        }
        Some(Wire::Jwt(jwt)) => check.within("jwt", |check| token_source(check, jwt)).map(Authorization::Jwt),
        None => {
            let message = "one of none, meta, jwt is required: it is chosen, never assumed (R155)";
            check.fail("authorization", "REQUIRED", message);
            None
        }
    }
}

fn token_source(check: &mut Check, wire: &admin::JwtAuthorization) -> Option<TokenSource> {
    use admin::jwt_authorization::Source;
    match &wire.source {
        Some(Source::ApiKey(name)) => {
            reference(check, "api_key", name, "apiKeys").then(|| TokenSource::ApiKey(name.as_str().into()))
        }
        Some(Source::Issuer(issuer)) => check
            .within("issuer", |check| verifier(check, issuer))
            .map(|verifier| TokenSource::Issuer(Box::new(verifier))),
        None => {
            check.fail("source", "REQUIRED", "one of api_key, issuer is required");
            None
        }
    }
}

fn verifier(check: &mut Check, wire: &admin::JwtIssuer) -> Option<Verifier> {
    use admin::jwt_issuer::Keys;
    check.name("issuer", &wire.issuer, CLAIM_CHARS_MAX);
    check.name("audience", &wire.audience, CLAIM_CHARS_MAX);
    if !wire.token_type.is_empty() {
        check.name("token_type", &wire.token_type, TOKEN_TYPE_CHARS_MAX);
    }
    let lifetime_max = duration(check, "max_lifetime", wire.max_lifetime.as_ref(), LIFETIME_DEFAULT, LIFETIME_LIMITS);
    let wanted = algorithm(check, wire.algorithm)?;
    let (field, keys) = match &wire.keys {
        Some(Keys::Pem(text)) => ("pem", VerifyingKey::from_pem(text, wanted)),
        Some(Keys::Jwks(text)) => ("jwks", VerifyingKey::from_jwks(text, wanted)),
        None => {
            check.fail("keys", "REQUIRED", "one of pem, jwks is required");
            return None;
        }
    };
    let keys = keys.map_err(|error| check.fail(field, "KEYS_INVALID", error.to_string())).ok()?;
    Some(Verifier {
        keys,
        issuer: wire.issuer.clone(),
        audience: wire.audience.clone(),
        token_type: (!wire.token_type.is_empty()).then(|| wire.token_type.clone()),
        lifetime_max,
    })
}

/// The algorithm that was set, if one was. Outside: a number that means none.
fn algorithm(check: &mut Check, wire: i32) -> Option<Option<Algorithm>> {
    use admin::JwtAlgorithm as Wire;
    let Ok(wire) = Wire::try_from(wire) else {
        check.fail("algorithm", "UNKNOWN", "is not known to this server");
        return None;
    };
    Some(match wire {
        Wire::Unspecified => None,
        Wire::Es256 => Some(Algorithm::Es256),
        Wire::Es384 => Some(Algorithm::Es384),
        Wire::Eddsa => Some(Algorithm::EdDsa),
        Wire::Rs256 => Some(Algorithm::Rs256),
        Wire::Rs384 => Some(Algorithm::Rs384),
        Wire::Rs512 => Some(Algorithm::Rs512),
        Wire::Ps256 => Some(Algorithm::Ps256),
        Wire::Ps384 => Some(Algorithm::Ps384),
        Wire::Ps512 => Some(Algorithm::Ps512),
    })
}

/// Parses a key that may log in.
pub fn login_key(name: &str, wire: &sync::LoginKey) -> Parsed<LoginKey> {
    let mut check = Check::default();
    let networks: Vec<_> = wire.allowed_networks.iter().filter_map(|network| network.parse().ok()).collect();
    if networks.len() < wire.allowed_networks.len() {
        check.fail("allowed_networks", "NETWORK_INVALID", "must be networks such as `192.0.2.0/24`");
    }
    let secret_hash = <[u8; 32]>::try_from(wire.secret_hash.as_ref());
    if secret_hash.is_err() {
        check.fail("secret_hash", "HASH_INVALID", "must be 32 bytes");
    }
    check.finish(secret_hash.ok().map(|secret_hash| LoginKey {
        name: name.to_owned(),
        id: wire.id.clone(),
        secret_hash,
        permissions: wire.permissions.clone(),
        expires: wire.expire_time.map(millis),
        allowed_networks: networks,
    }))
}

/// The field in which the seed of a token key is sealed.
pub fn token_seed_field(id: &str) -> String {
    format!("keys[{id}].seed")
}

/// Parses the keys of the tokens of `workspace`; `seed` is that of the active one, as it was sealed.
pub fn token_keys(workspace: &str, wire: &sync::TokenKeys, seed: &str) -> Parsed<TokenKeys> {
    let mut check = Check::default();
    let key = |key: &sync::TokenKey| VerifyingKey::ed25519(&key.id, &key.public_key, key.retire_time.map(millis));
    let keys: Option<Vec<VerifyingKey>> = wire.keys.iter().map(key).collect();
    let active = wire.keys.first().filter(|key| key.retire_time.is_none());
    let signs = active.and_then(|key| {
        let seed = URL_SAFE_NO_PAD.decode(seed).ok()?;
        TokenKey::from_seed(&key.id, &seed).ok().filter(|pair| pair.public() == key.public_key)
    });
    let parsed =
        keys.zip(signs).map(|(keys, active)| TokenKeys { active, verifier: Verifier::of_workspace(workspace, keys) });
    if parsed.is_none() {
        check.fail("keys", "KEYS_INVALID", "must be Ed25519 keys of which the first signs");
    }
    check.finish(parsed)
}

fn millis(time: prost_types::Timestamp) -> i64 {
    time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos) / 1_000_000)
}
