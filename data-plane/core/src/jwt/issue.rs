//! The tokens of a workspace itself: made at login, accepted at its endpoints (D14, R151).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::{Verifier, VerifyingKey};

/// `iss` of every token of a workspace; `aud` names the workspace.
pub const ISSUER: &str = "sluice";
/// How long a token lives (S10).
pub const LIFETIME: Duration = Duration::from_secs(3600);

/// The key pair by which a workspace signs: Ed25519, which needs no randomness to sign.
#[derive(Debug)]
pub struct TokenKey {
    id: String,
    pair: Ed25519KeyPair,
}

/// What is stored is not the seed of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the 32 bytes of a signing key")]
pub struct TokenKeyInvalid;

/// What a token allows.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'g> {
    /// `aud`: `workspaces/{workspace}`.
    pub workspace: &'g str,
    /// `sub`: the API key's id.
    pub api_key: &'g str,
    /// What the API key may do at endpoints.
    pub permissions: &'g [String],
    /// When it is made, in milliseconds since 1970.
    pub now: i64,
    /// `jti`: differs from every other token's.
    pub token_id: &'g str,
}

impl TokenKey {
    /// The key pair of a seed; `id` goes into `kid`.
    ///
    /// # Errors
    /// The seed has another length.
    pub fn from_seed(id: &str, seed: &[u8]) -> Result<Self, TokenKeyInvalid> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| TokenKeyInvalid)?;
        Ok(Self { id: id.to_owned(), pair })
    }

    /// The public half: 32 bytes.
    pub fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// A token that lives for one hour.
    pub fn sign(&self, grant: &Grant<'_>) -> String {
        let issued = grant.now.div_euclid(1000);
        let header = serde_json::json!({ "alg": "EdDSA", "kid": self.id, "typ": "JWT" });
        let claims = serde_json::json!({
            "iss": ISSUER,
            "aud": grant.workspace,
            "sub": grant.api_key,
            "permissions": grant.permissions,
            "iat": issued,
            "exp": issued.saturating_add_unsigned(LIFETIME.as_secs()),
            "jti": grant.token_id,
        });
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let signature = self.pair.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }
}

impl Verifier {
    /// Accepts the tokens of `workspace`.
    pub fn of_workspace(workspace: &str, keys: Vec<VerifyingKey>) -> Self {
        Self {
            keys,
            issuer: ISSUER.to_owned(),
            audience: workspace.to_owned(),
            token_type: Some("JWT".to_owned()),
            lifetime_max: LIFETIME,
        }
    }
}
