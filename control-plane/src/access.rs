//! Who is calling and what it may do. Hides the form of API keys, where they are kept and how they are compared.
//!
//! A key is `slc_<id>_<secret>`: 8 characters by which it is found, then 32 random bytes in base64url. The store holds the
//! SHA-256 of the secret part. Two keys exist: one for administrators and one for data planes; each is kept in a file, and
//! the file says which key of its role is valid: take the file away and start again to get a new key and revoke the old one.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Failure};
use crate::secrets::random;
use crate::settings::Settings;
use crate::store::{ApiKeyRow, Store};

/// Longest header that is looked at, in bytes; a key has 56.
const HEADER_BYTES_MAX: usize = 128;

/// What a key is for.
struct Role {
    name: &'static str,
    /// Patterns: `*` is everything, `x.*` everything that begins with `x.`, a leading `!` takes away.
    permissions: &'static str,
}

const ADMIN: Role = Role { name: "admin", permissions: "* !sync.*" };
const DATA_PLANE: Role = Role { name: "data-plane", permissions: "sync.*" };

/// A caller whose key is known.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// The public part of its key.
    pub(crate) key_id: String,
    permissions: String,
}

impl Access {
    /// Whether the caller has the permission, for example `connections.create`.
    pub(crate) fn may(&self, permission: &str) -> bool {
        let matches = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => permission.starts_with(prefix),
            None => permission == pattern,
        };
        let (taken, given): (Vec<_>, Vec<_>) =
            self.permissions.split(' ').partition(|pattern| pattern.starts_with('!'));
        given.into_iter().any(matches) && !taken.into_iter().any(|pattern| matches(&pattern[1..]))
    }
}

/// Finds the caller by its key.
///
/// # Errors
/// `KeyInvalid` unless there is exactly one `authorization: Bearer <key>` with a key that is known.
pub(crate) async fn authenticate(store: &Store, headers: &HeaderMap) -> Result<Access, Failure> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(Failure::KeyInvalid) };
    let text = value.to_str().ok().filter(|text| text.len() <= HEADER_BYTES_MAX).ok_or(Failure::KeyInvalid)?;
    let (scheme, key) = text.split_once(' ').ok_or(Failure::KeyInvalid)?;
    let key = Key::parse(key).filter(|_| scheme.eq_ignore_ascii_case("bearer")).ok_or(Failure::KeyInvalid)?;
    let row = store.read().await?.api_key(&key.id).await?.ok_or(Failure::KeyInvalid)?;
    if !same(&row.hash, &key.hash()) {
        return Err(Failure::KeyInvalid);
    }
    Ok(Access { key_id: row.id, permissions: row.permissions })
}

/// Compares in a time that does not depend on where they differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// Makes the key of each role the one in its file, making the file when it is not there.
///
/// # Errors
/// A file cannot be read or written, or does not hold a key.
pub(crate) async fn reconcile_keys(settings: &Settings, store: &Store) -> Result<(), Error> {
    for (role, path) in [(ADMIN, &settings.admin_key_file), (DATA_PLANE, &settings.data_plane_key_file)] {
        let (key, made) = match read(path)? {
            Some(key) => (key, false),
            None => (make(path)?, true),
        };
        let row = ApiKeyRow {
            id: key.id.clone(),
            role: role.name.to_owned(),
            hash: key.hash().to_vec(),
            permissions: role.permissions.to_owned(),
        };
        let mut write = store.write().await?;
        let revoked = write.api_key_set(&row, settings.clock.now()).await?;
        write.commit().await?;
        if revoked > 0 {
            let why = if made { "its file was missing" } else { "its file holds another key" };
            tracing::warn!(role = role.name, path = %path.display(), "the API key before was revoked: {why}");
        } else if made {
            tracing::info!(role = role.name, path = %path.display(), "made an API key");
        }
    }
    Ok(())
}

/// An API key in memory.
struct Key {
    id: String,
    secret: String,
}

impl Key {
    fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix("slc_").filter(|rest| rest.is_ascii())?.split_at_checked(8)?;
        let secret = secret.strip_prefix('_')?;
        let plain = id.bytes().all(|b| b.is_ascii_alphanumeric());
        let whole = URL_SAFE_NO_PAD.decode(secret).is_ok_and(|bytes| bytes.len() == 32);
        (plain && whole).then(|| Self { id: id.to_owned(), secret: secret.to_owned() })
    }

    fn generate() -> Result<Self, Error> {
        let id = hex::encode(random::<4>().map_err(Error::Randomness)?);
        let secret = URL_SAFE_NO_PAD.encode(random::<32>().map_err(Error::Randomness)?);
        Ok(Self { id, secret })
    }

    fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.secret).into()
    }
}

fn read(path: &Path) -> Result<Option<Key>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => match Key::parse(text.trim()) {
            Some(key) => Ok(Some(key)),
            None => Err(Error::KeyFileInvalid { path: path.to_owned() }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path: path.to_owned(), source }),
    }
}

/// Writes a new key beside `path` and links it there when it is whole: a crash leaves no half of a key, and a file that
/// somebody else made in between is not overwritten.
fn make(path: &Path) -> Result<Key, Error> {
    let key = Key::generate()?;
    let beside = path.with_extension(format!("{}.new", key.id));
    let written = write_new(&beside, &format!("slc_{}_{}\n", key.id, key.secret))
        .and_then(|()| std::fs::hard_link(&beside, path))
        .and_then(|()| std::fs::remove_file(&beside));
    written.map_err(|source| Error::File { path: path.to_owned(), source })?;
    Ok(key)
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(permissions: &str) -> Access {
        Access { key_id: "abcdefgh".to_owned(), permissions: permissions.to_owned() }
    }

    #[test]
    fn patterns() {
        let admin = access(ADMIN.permissions);
        assert!(admin.may("connections.create") && admin.may("workspaces.list"));
        assert!(!admin.may("sync.configuration") && !admin.may("sync.report"));
        let plane = access(DATA_PLANE.permissions);
        assert!(plane.may("sync.report") && !plane.may("connections.get") && !plane.may("synchronise"));
        assert!(access("connections.get").may("connections.get"));
        assert!(!access("connections.get").may("connections.getAll"));
        assert!(!access("").may("connections.get"));
    }

    #[test]
    fn every_admin_method_is_for_admins_and_every_sync_method_for_data_planes() {
        let (admin, plane) = (access(ADMIN.permissions), access(DATA_PLANE.permissions));
        for (method, permission) in sluice_proto::PERMISSIONS {
            let sync = method.starts_with("/sluice.sync.");
            assert_eq!((admin.may(permission), plane.may(permission)), (!sync, sync), "{method}");
        }
    }

    #[test]
    fn k14_secrets_are_random_and_compared_whole() {
        let (one, other) = (Key::generate().unwrap(), Key::generate().unwrap());
        assert_eq!(URL_SAFE_NO_PAD.decode(&one.secret).unwrap().len() * 8, 256, "bits; at least 128");
        assert!(!same(&one.hash(), &other.hash()) && same(&one.hash(), &one.hash()));
        for at in [0, 15, 31] {
            let mut changed = one.hash();
            changed[at] ^= 1;
            assert!(!same(&one.hash(), &changed), "{at}");
        }
        assert!(!same(&one.hash(), &one.hash()[..31]) && !same(&one.hash(), &[]));
    }

    #[test]
    fn key_form() {
        let key = Key::generate().unwrap();
        let text = format!("slc_{}_{}", key.id, key.secret);
        assert_eq!(text.len(), 56);
        assert_eq!(Key::parse(&text).unwrap().hash(), key.hash());
        let (cut, long, other) = (&text[..55], format!("{text}A"), text.replacen("slc", "abc", 1));
        for bad in ["", "slc_", "slc_abcdefgh", cut, &long, &other, "slc_ä", &text.replacen('_', "-", 2)] {
            assert!(Key::parse(bad).is_none(), "{bad}");
        }
    }
}
