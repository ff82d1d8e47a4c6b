//! Senders that show a JSON Web Token: which of them may trigger, and who of a workspace may get tokens (D14, R150 to R153).
//!
//! Hides what is remembered: a signature is checked once, and each further request with the same token costs one hash. Whether the
//! API key behind it still stands is asked of the revision in force every time, so that a revoked one is refused at once.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};
use sluice_core::jwt::{Grant, Refused, Verified, Verifier};
use sluice_core::model::{EXECUTE, LoginKey, TokenKeys};

/// Verified tokens that are remembered of one issuer; twice as many for a moment.
const REMEMBERED_MAX: usize = 4096;

/// Why a token does not open an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// It is no token of who may send.
    Refused(Refused),
    /// The workspace has no keys for tokens.
    NoKeys,
    /// Its API key was revoked, has ended or may do nothing at endpoints.
    KeyGone,
    /// It is of another API key.
    OtherKey,
    /// It lacks the permission.
    NotPermitted,
}

impl From<Refused> for NotAdmitted {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl NotAdmitted {
    /// As the log names it.
    pub fn code(self) -> &'static str {
        match self {
            Self::Refused(refused) => refused.code(),
            Self::NoKeys => "no_keys",
            Self::KeyGone => "api_key_gone",
            Self::OtherKey => "other_api_key",
            Self::NotPermitted => "not_permitted",
        }
    }
}

/// Tokens of one issuer that were verified, by their hash. Who drops it forgets them.
#[derive(Default)]
pub struct Remembered(Mutex<Generations>);

/// What was used lately, and what was used before that; the older one is dropped when the newer one is full.
#[derive(Default)]
struct Generations {
    newer: HashMap<[u8; 32], Arc<Verified>>,
    older: HashMap<[u8; 32], Arc<Verified>>,
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").finish_non_exhaustive()
    }
}

impl Remembered {
    /// Checks a token, or remembers that it was checked.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(&self, verifier: &Verifier, token: &str, now: i64) -> Result<Arc<Verified>, Refused> {
        if token.len() > sluice_core::jwt::TOKEN_BYTES_MAX {
            return Err(Refused::TooLong);
        }
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some(verified) = self.find(&hash) {
            return if now < verified.until { Ok(verified) } else { Err(Refused::Expired) };
        }
        let verified = Arc::new(verifier.verify(token, now)?);
        self.lock().put(hash, verified.clone());
        Ok(verified)
    }

    fn find(&self, hash: &[u8; 32]) -> Option<Arc<Verified>> {
        let mut generations = self.lock();
        if let Some(found) = generations.newer.get(hash) {
            return Some(found.clone());
        }
        let found = generations.older.get(hash)?.clone();
        generations.put(*hash, found.clone());
        Some(found)
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        // Nothing panics while it is held; if something did, what is in it is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn put(&mut self, hash: [u8; 32], verified: Arc<Verified>) {
        if self.newer.len() >= REMEMBERED_MAX {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(hash, verified);
    }
}

/// The keys of a workspace's tokens, and which of its tokens were verified.
#[derive(Debug)]
pub struct TokenIssuer {
    keys: TokenKeys,
    remembered: Remembered,
}

impl TokenIssuer {
    /// Nothing is remembered yet.
    pub fn new(keys: TokenKeys) -> Self {
        Self { keys, remembered: Remembered::default() }
    }
}

/// Who may log in at a workspace, and whose tokens its endpoints accept.
#[derive(Debug, Default)]
pub struct Login {
    /// By id.
    keys: HashMap<String, Arc<LoginKey>>,
    issuer: Option<Arc<TokenIssuer>>,
}

impl Login {
    /// Lets this key log in.
    pub fn add(&mut self, key: Arc<LoginKey>) {
        self.keys.insert(key.id.clone(), key);
    }

    /// Signs and checks tokens by these keys.
    pub fn issue_by(&mut self, issuer: Arc<TokenIssuer>) {
        self.issuer = Some(issuer);
    }

    /// The key with this id.
    pub fn key(&self, id: &str) -> Option<&Arc<LoginKey>> {
        self.keys.get(id)
    }

    /// The ids of all keys.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// A token for a key of `workspace`. `None`: there is nothing to sign with.
    pub fn token(&self, workspace: &str, key: &LoginKey, now: i64, token_id: &str) -> Option<String> {
        let grant = Grant { workspace, api_key: &key.id, permissions: &key.permissions, now, token_id };
        Some(self.issuer.as_ref()?.keys.active.sign(&grant))
    }

    /// Whether a token opens an endpoint that accepts those of the API key `name`.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, name: &str, token: &str, now: i64) -> Result<(), NotAdmitted> {
        let issuer = self.issuer.as_ref().ok_or(NotAdmitted::NoKeys)?;
        let verified = issuer.remembered.verify(&issuer.keys.verifier, token, now)?;
        let key = verified.subject.as_deref().and_then(|id| self.keys.get(id));
        let key = key.filter(|key| !key.is_expired(now)).ok_or(NotAdmitted::KeyGone)?;
        if key.name != name {
            return Err(NotAdmitted::OtherKey);
        }
        let was_permitted = verified.permissions.iter().any(|permission| permission == EXECUTE);
        if was_permitted && key.may_execute() { Ok(()) } else { Err(NotAdmitted::NotPermitted) }
    }
}

#[cfg(test)]
mod tests {
    use sluice_core::jwt::{TokenKey, VerifyingKey};

    use super::*;

    const NOW: i64 = 1_700_000_000_000;
    const HOUR: i64 = 3_600_000;

    fn keys() -> TokenKeys {
        let active = TokenKey::from_seed("k1", &[7; 32]).unwrap();
        let checking = VerifyingKey::ed25519("k1", active.public(), None).unwrap();
        TokenKeys { active, verifier: Verifier::of_workspace("workspaces/acme", vec![checking]) }
    }

    fn key(id: &str, permissions: &[&str], expires: Option<i64>) -> Arc<LoginKey> {
        Arc::new(LoginKey {
            name: format!("workspaces/acme/apiKeys/{id}"),
            id: id.to_owned(),
            secret_hash: [0; 32],
            permissions: permissions.iter().map(ToString::to_string).collect(),
            expires,
            allowed_networks: Vec::new(),
        })
    }

    fn login(keys_of: &[Arc<LoginKey>], issuer: &Arc<TokenIssuer>) -> Login {
        let mut login = Login::default();
        keys_of.iter().for_each(|key| login.add(key.clone()));
        login.issue_by(issuer.clone());
        login
    }

    #[test]
    fn j37_only_tokens_of_the_named_key_with_the_permission_open() {
        let issuer = Arc::new(TokenIssuer::new(keys()));
        let shop = key("shop", &[EXECUTE], Some(NOW + 2 * HOUR));
        let other = key("other", &[EXECUTE], None);
        let weak = key("weak", &["CATALOG_READ"], None);
        let all = login(&[shop.clone(), other, weak], &issuer);
        let token = |id: &str| all.token("workspaces/acme", all.key(id).unwrap(), NOW, "1").unwrap();
        let admit = |login: &Login, id: &str, now: i64| login.admit("workspaces/acme/apiKeys/shop", &token(id), now);
        assert_eq!(admit(&all, "shop", NOW), Ok(()));
        assert_eq!(admit(&all, "shop", NOW), Ok(()), "remembered");
        assert_eq!(admit(&all, "other", NOW), Err(NotAdmitted::OtherKey));
        let own = all.admit("workspaces/acme/apiKeys/weak", &token("weak"), NOW);
        assert_eq!(own, Err(NotAdmitted::NotPermitted));
        assert_eq!(admit(&all, "shop", NOW + HOUR + 30_000), Err(NotAdmitted::Refused(Refused::Expired)));
        // The key ends before its token.
        let late = all.token("workspaces/acme", &shop, NOW + HOUR + HOUR / 2, "2").unwrap();
        let at = |now| all.admit("workspaces/acme/apiKeys/shop", &late, now);
        assert_eq!(at(NOW + 2 * HOUR - 1), Ok(()));
        assert_eq!(at(NOW + 2 * HOUR), Err(NotAdmitted::KeyGone));
        // The next revision, in which it is revoked, and one in which it may do less; what was verified is still remembered.
        assert_eq!(admit(&login(&[], &issuer), "shop", NOW), Err(NotAdmitted::KeyGone));
        let demoted = login(&[key("shop", &[], None)], &issuer);
        assert_eq!(admit(&demoted, "shop", NOW), Err(NotAdmitted::NotPermitted));
        assert_eq!(Login::default().admit("x", &token("shop"), NOW), Err(NotAdmitted::NoKeys));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_ends_with_the_token() {
        let (keys, remembered) = (keys(), Remembered::default());
        let token = |number: usize| {
            let id = number.to_string();
            let grant =
                Grant { workspace: "workspaces/acme", api_key: "shop", permissions: &[], now: NOW, token_id: &id };
            keys.active.sign(&grant)
        };
        let held = || {
            let generations = remembered.lock();
            generations.newer.len() + generations.older.len()
        };
        let verify = |token: &str, now: i64| remembered.verify(&keys.verifier, token, now);
        let first = token(0);
        assert!(verify(&first, NOW).is_ok());
        assert_eq!(held(), 1);
        let mut forged = first.clone();
        forged.replace_range(forged.len() - 10..forged.len() - 9, "_");
        if forged != first {
            assert_eq!(verify(&forged, NOW), Err(Refused::Signature));
        }
        assert_eq!(held(), 1, "what is refused is not remembered");
        assert_eq!(verify(&first, NOW + HOUR + 30_000), Err(Refused::Expired), "what is remembered ends, too");
        let filler = verify(&first, NOW).unwrap();
        for number in 0..3 * REMEMBERED_MAX {
            let hash: [u8; 32] = Sha256::digest(number.to_be_bytes()).into();
            remembered.lock().put(hash, filler.clone());
            assert!(verify(&first, NOW).is_ok());
        }
        assert!(held() <= 2 * REMEMBERED_MAX, "{}", held());
        let hash: [u8; 32] = Sha256::digest(&first).into();
        assert!(remembered.find(&hash).is_some(), "what is used stays");
    }
}
