//! Secrets at rest: which key seals what, and how secret fields leave a document before it is stored. Hides key wrapping,
//! nonces and the order in which secrets are taken out, sealed and put beside the document.
//!
//! Each workspace has a data key of its own, wrapped by a master key from the ring. A sealed secret is bound to its workspace,
//! resource, field and the resource's save under which it was sealed, so it opens nowhere else.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use sluice_core::seal::{self, Aad, DataKey, MasterKeys, SealError, Sealed, Secret, Slot};
use sluice_core::wire::{SecretFields, slot_of};
use sluice_proto::admin::v1::SecretSlot;
use sluice_proto::sync::v1::SealedSecret;
use zeroize::Zeroizing;

use crate::clock::{UnixMillis, timestamp};
use crate::error::{Error, Failure};
use crate::master_keys;
use crate::names::workspace_name;
use crate::store::{DataKeyRow, ServerKeyRow, Store, StoreError, Transaction, WorkspaceRow};

/// The object of the server's own key.
pub(crate) const SERVER: &str = "server";

/// Opens and seals.
pub(crate) struct Secrets {
    ring_file: PathBuf,
    ring: RwLock<Ring>,
    hash_key: Zeroizing<Vec<u8>>,
}

/// The ring as it was read last.
struct Ring {
    keys: Arc<MasterKeys>,
    /// Of the file it was read from.
    fingerprint: [u8; 32],
}

impl Ring {
    async fn read(path: &Path) -> Result<Self, Error> {
        let text = match tokio::fs::read_to_string(path).await {
            Ok(text) => Secret::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::MasterKeyMissing { path: path.to_owned() });
            }
            Err(source) => return Err(Error::File { path: path.to_owned(), source }),
        };
        let keys = MasterKeys::parse(text.expose())
            .map_err(|problem| Error::MasterKeyInvalid { path: path.to_owned(), problem: problem.to_string() })?;
        Ok(Self { keys: Arc::new(keys), fingerprint: Sha256::digest(text.expose()).into() })
    }
}

/// The secrets of a document that a caller sent, taken out of it.
pub(crate) struct Taken {
    fresh: Vec<(Cow<'static, str>, Secret)>,
    kept: Vec<SealedSecret>,
}

impl Taken {
    /// The fields of new secrets.
    pub(crate) fn fresh_fields(&self) -> impl Iterator<Item = &str> {
        self.fresh.iter().map(|(field, _)| field.as_ref())
    }

    /// Whether a caller sent a new secret.
    pub(crate) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }
}

/// The data key of one workspace: seals and opens its secrets and what is kept of its traffic. While the key is rotated, what the
/// one before has sealed opens too.
pub(crate) struct Vault {
    workspace: String,
    key: DataKey,
    old: Option<DataKey>,
}

impl Vault {
    /// Seals one field of an object of the workspace.
    pub(crate) fn seal(&self, object: &str, field: &str, version: i64, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
        let aad = Aad { workspace: &self.workspace, object, field, version: version.unsigned_abs() };
        let sealed = seal::seal(&self.key, aad, bytes, &random().map_err(no_randomness)?);
        Ok(sealed.as_bytes().to_vec())
    }

    /// Opens what was sealed as this field of this object.
    pub(crate) fn open(
        &self,
        object: &str,
        field: &str,
        version: i64,
        sealed: Vec<u8>,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let aad = Aad { workspace: &self.workspace, object, field, version: version.unsigned_abs() };
        let sealed = Sealed::from_bytes(sealed);
        let opened = match (seal::open(&self.key, aad, &sealed), &self.old) {
            (Err(SealError::Mismatch), Some(old)) => seal::open(old, aad, &sealed),
            (opened, _) => opened,
        };
        opened.map_err(|error| Failure::Internal(format!("{field} of {object} cannot be opened: {}", error.code())))
    }

    /// Seals with the key of now what the one before has sealed; `None` when there is nothing to do.
    pub(crate) fn reseal(
        &self,
        object: &str,
        field: &str,
        version: i64,
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, Failure> {
        let aad = Aad { workspace: &self.workspace, object, field, version: version.unsigned_abs() };
        if seal::open(&self.key, aad, &Sealed::from_bytes(sealed.to_vec())).is_ok() {
            return Ok(None);
        }
        let opened = self.open(object, field, version, sealed.to_vec())?;
        self.seal(object, field, version, &opened).map(Some)
    }
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn no_randomness(error: getrandom::Error) -> Failure {
    Failure::Internal(format!("the system gives no random numbers: {error}"))
}

/// Says in the document which of its secrets are stored already, which decides whether an empty one is missing.
pub(crate) fn mark<R: SecretFields>(document: &mut R, stored: &[SealedSecret]) {
    for field in document.secret_fields() {
        *field.is_set = stored.iter().any(|sealed| sealed.field == field.path && slot_of(sealed) == Slot::Active);
    }
}

/// Takes the secrets out of a document: new ones, and the stored ones of fields that were left empty, in whichever slot of a
/// rotation they are. A new one takes the place of all of its field. What is stored for fields that the document no longer has is
/// dropped.
pub(crate) fn take<R: SecretFields>(document: &mut R, stored: &[SealedSecret]) -> Taken {
    let mut taken = Taken { fresh: Vec::new(), kept: Vec::new() };
    for field in document.secret_fields() {
        let before = stored.iter().filter(|sealed| sealed.field == field.path);
        *field.is_set = !field.value.is_empty() || before.clone().any(|sealed| slot_of(sealed) == Slot::Active);
        if field.value.is_empty() {
            taken.kept.extend(before.cloned());
        } else {
            taken.fresh.push((field.path, Secret::new(std::mem::take(field.value))));
        }
    }
    taken
}

impl Secrets {
    /// Reads the ring of master keys and opens the server's own key, making one for a new store.
    ///
    /// # Errors
    /// The ring is missing, cannot be used, or does not open the store's keys.
    pub(crate) async fn open(ring_file: &Path, store: &Store) -> Result<Self, Error> {
        let ring = Ring::read(ring_file).await?;
        master_keys::check(&ring.keys, store).await?;
        let hash_key = hash_key(&ring.keys, store).await?;
        Ok(Self { ring_file: ring_file.to_owned(), ring: RwLock::new(ring), hash_key })
    }

    /// The master keys.
    pub(crate) fn ring(&self) -> Arc<MasterKeys> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).keys.clone()
    }

    /// Reads the ring again; `None` when its file is as it was.
    ///
    /// # Errors
    /// The file cannot be used, or does not open every data key of the store: the ring stays as it was.
    pub(crate) async fn read_ring(&self, store: &Store) -> Result<Option<Arc<MasterKeys>>, Error> {
        let ring = Ring::read(&self.ring_file).await?;
        if ring.fingerprint == self.ring.read().unwrap_or_else(PoisonError::into_inner).fingerprint {
            return Ok(None);
        }
        master_keys::check(&ring.keys, store).await?;
        let keys = ring.keys.clone();
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = ring;
        Ok(Some(keys))
    }

    /// A new data key for a workspace, wrapped.
    pub(crate) fn data_key_new(&self, workspace: &str) -> Result<DataKeyRow, Failure> {
        let key = DataKey::new(random().map_err(no_randomness)?);
        wrap(&self.ring(), &key, workspace).map_err(no_randomness)
    }

    /// A data key of the workspace wrapped by the primary key of `ring`.
    pub(crate) fn rewrapped(&self, ring: &MasterKeys, workspace: &str, key: &DataKeyRow) -> Result<DataKeyRow, Error> {
        let name = workspace_name(workspace);
        let key = unwrap(ring, key, &name)?;
        wrap(ring, &key, &name).map_err(Error::Randomness)
    }

    /// Wraps the server's own key by the primary key of `ring`; `false` when it is already.
    pub(crate) async fn wrap_server_key(&self, ring: &MasterKeys, store: &Store) -> Result<bool, Error> {
        let outdated = |row: &ServerKeyRow| row.key.key_id != ring.primary();
        if store.read().await?.server_key().await?.filter(outdated).is_none() {
            return Ok(false);
        }
        let mut write = store.write().await?;
        let Some(mut row) = write.server_key().await?.filter(outdated) else { return Ok(false) };
        let key = unwrap(ring, &row.key, SERVER)?;
        row.key = wrap(ring, &key, SERVER).map_err(Error::Randomness)?;
        write.server_key_set(&row).await?;
        write.commit().await?;
        Ok(true)
    }

    /// Seals something of the server itself by its own data key.
    pub(crate) async fn seal_own(&self, tx: &mut Transaction, field: &str, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let key = self.own_key(tx).await?;
        let aad = Aad { workspace: "", object: SERVER, field, version: 1 };
        Ok(seal::seal(&key, aad, bytes, &random().map_err(Error::Randomness)?).as_bytes().to_vec())
    }

    /// Opens what [`Secrets::seal_own`] has sealed.
    pub(crate) async fn open_own(
        &self,
        tx: &mut Transaction,
        field: &str,
        sealed: Vec<u8>,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let key = self.own_key(tx).await?;
        let aad = Aad { workspace: "", object: SERVER, field, version: 1 };
        let opened = seal::open(&key, aad, &Sealed::from_bytes(sealed));
        opened.map_err(|_| StoreError::Corrupt(format!("{field} of the server cannot be opened")).into())
    }

    /// The server's own data key, which is there since the ring was opened.
    async fn own_key(&self, tx: &mut Transaction) -> Result<DataKey, Error> {
        let row = tx.server_key().await?;
        let row = row.ok_or_else(|| StoreError::Corrupt("the server's own key is gone".to_owned()))?;
        unwrap(&self.ring(), &row.key, SERVER)
    }

    /// Seals what was taken out of the resource `object` for its save `version`; what was kept stays as it is.
    pub(crate) fn seal(
        &self,
        workspace: &WorkspaceRow,
        object: &str,
        version: i64,
        taken: Taken,
        now: UnixMillis,
    ) -> Result<Vec<SealedSecret>, Failure> {
        let mut sealed = taken.kept;
        for (field, secret) in taken.fresh {
            sealed.push(self.seal_one(workspace, object, &field, version, &secret, now)?);
        }
        sealed.sort_by(|one, other| (&one.field, slot_of(one)).cmp(&(&other.field, slot_of(other))));
        Ok(sealed)
    }

    /// Seals one secret as the active one of its field.
    pub(crate) fn seal_one(
        &self,
        workspace: &WorkspaceRow,
        object: &str,
        field: &str,
        version: i64,
        secret: &Secret,
        now: UnixMillis,
    ) -> Result<SealedSecret, Failure> {
        let ciphertext = self.vault(workspace)?.seal(object, field, version, secret.expose().as_bytes())?;
        Ok(SealedSecret {
            field: field.to_owned(),
            version,
            ciphertext: ciphertext.into(),
            slot: SecretSlot::Active.into(),
            since_time: Some(timestamp(now)),
        })
    }

    /// The data keys of a workspace.
    pub(crate) fn vault(&self, row: &WorkspaceRow) -> Result<Vault, Failure> {
        let (workspace, ring) = (workspace_name(&row.id), self.ring());
        let open =
            |key: &DataKeyRow| unwrap(&ring, key, &workspace).map_err(|error| Failure::Internal(error.to_string()));
        let (key, old) = (open(&row.data_key)?, row.old_data_key.as_ref().map(open).transpose()?);
        Ok(Vault { workspace, key, old })
    }

    /// A keyed hash over `parts`: nobody without the store's key can make one, or try what was hashed.
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.hash_key).expect("HMAC takes keys of any length");
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

fn wrap(master: &MasterKeys, key: &DataKey, object: &str) -> Result<DataKeyRow, getrandom::Error> {
    let wrapped = master.wrap(key, object, &random()?);
    Ok(DataKeyRow { key_id: wrapped.key_id, wrapped: wrapped.bytes })
}

/// Opens a data key.
pub(crate) fn unwrap(master: &MasterKeys, key: &DataKeyRow, object: &str) -> Result<DataKey, Error> {
    let wrapped = seal::WrappedKey { key_id: key.key_id.clone(), bytes: key.wrapped.clone() };
    let wrong = |_| Error::MasterKeyWrong { object: object.to_owned(), key_id: key.key_id.clone(), data_keys: 1 };
    master.unwrap(&wrapped, object).map_err(wrong)
}

/// The key of [`Secrets::mac`], which rests sealed by the server's own data key. A new store gets one.
async fn hash_key(master: &MasterKeys, store: &Store) -> Result<Zeroizing<Vec<u8>>, Error> {
    let aad = Aad { workspace: "", object: SERVER, field: "hash_key", version: 1 };
    let mut write = store.write().await?;
    let Some(row) = write.server_key().await? else {
        let key = DataKey::new(random().map_err(Error::Randomness)?);
        let fresh = Zeroizing::new(random::<32>().map_err(Error::Randomness)?.to_vec());
        let sealed = seal::seal(&key, aad, &fresh, &random().map_err(Error::Randomness)?);
        let key = wrap(master, &key, SERVER).map_err(Error::Randomness)?;
        let row = ServerKeyRow { key, hash_key: sealed.as_bytes().to_vec() };
        write.server_key_set(&row).await?;
        write.commit().await?;
        return Ok(fresh);
    };
    let key = unwrap(master, &row.key, SERVER)?;
    let opened = seal::open(&key, aad, &Sealed::from_bytes(row.hash_key));
    opened.map_err(|_| Error::MasterKeyWrong { object: SERVER.to_owned(), key_id: row.key.key_id, data_keys: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::admin::v1::connection::Scheme;
    use sluice_proto::admin::v1::{ApiKey, Connection, LoginPassword};

    fn api_key(secret: &str) -> Connection {
        let scheme = Scheme::ApiKey(ApiKey { secret: secret.to_owned(), ..Default::default() });
        Connection { scheme: Some(scheme), ..Default::default() }
    }

    fn stored() -> Vec<SealedSecret> {
        vec![SealedSecret {
            field: "api_key.secret".to_owned(),
            version: 3,
            ciphertext: vec![1].into(),
            ..Default::default()
        }]
    }

    #[test]
    fn k07_a_nonce_never_repeats() {
        const COUNT: usize = 1_000_000;
        let nonces: std::collections::HashSet<[u8; seal::NONCE_BYTES]> =
            (0..COUNT).map(|_| random().unwrap()).collect();
        assert_eq!(nonces.len(), COUNT);
    }

    #[tokio::test]
    async fn k07_the_same_secret_is_sealed_differently_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let ring = folder.path().join("master.key");
        std::fs::write(&ring, "first:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=").unwrap();
        let store = Store::open(&crate::settings::Database::Sqlite(folder.path().join("store.db"))).await.unwrap();
        let secrets = Secrets::open(&ring, &store).await.unwrap();
        let workspace = WorkspaceRow { data_key: secrets.data_key_new("workspaces/acme").unwrap(), ..row("acme") };
        let seal = || {
            let secret = Secret::new("hunter2");
            secrets.seal_one(&workspace, "workspaces/acme/connections/crm", "api_key.secret", 1, &secret, 0).unwrap()
        };
        let sealed: std::collections::HashSet<_> = (0..1000).map(|_| seal().ciphertext).collect();
        assert_eq!(sealed.len(), 1000);
        let nonces: std::collections::HashSet<_> =
            sealed.iter().map(|sealed| sealed.slice(1..=seal::NONCE_BYTES)).collect();
        assert_eq!(nonces.len(), 1000);
    }

    #[test]
    fn what_the_key_before_sealed_opens_and_is_sealed_anew_once() {
        let vault = |key: u8, old: Option<u8>| Vault {
            workspace: "workspaces/acme".to_owned(),
            key: DataKey::new([key; 32]),
            old: old.map(|old| DataKey::new([old; 32])),
        };
        let sealed = vault(1, None).seal("object", "field", 7, b"data").unwrap();
        assert!(vault(2, None).open("object", "field", 7, sealed.clone()).is_err());
        let both = vault(2, Some(1));
        assert_eq!(&**both.open("object", "field", 7, sealed.clone()).unwrap(), b"data");
        assert!(both.open("object", "field", 8, sealed.clone()).is_err(), "of another version (K02)");
        let anew = both.reseal("object", "field", 7, &sealed).unwrap().unwrap();
        assert_eq!(&**vault(2, None).open("object", "field", 7, anew.clone()).unwrap(), b"data");
        assert!(both.reseal("object", "field", 7, &anew).unwrap().is_none());
        assert!(vault(3, Some(4)).reseal("object", "field", 7, &sealed).is_err());
    }

    fn row(id: &str) -> WorkspaceRow {
        WorkspaceRow {
            id: id.to_owned(),
            uid: String::new(),
            display_name: String::new(),
            business_profile_id: 1,
            revision: 0,
            digest: Vec::new(),
            data_key: DataKeyRow { key_id: String::new(), wrapped: Vec::new() },
            old_data_key: None,
            saves: 1,
            create_time: 0,
            update_time: 0,
            delete_time: 0,
            seen_ahead: 0,
            config_level: 1,
        }
    }

    #[test]
    fn an_empty_secret_keeps_the_stored_one() {
        let mut document = api_key("");
        let taken = take(&mut document, &stored());
        assert!(!taken.has_fresh());
        assert_eq!(taken.kept, stored());
        assert!(*document.secret_fields()[0].is_set);
    }

    #[test]
    fn a_new_secret_leaves_the_document_and_replaces_the_stored_one() {
        let mut document = api_key("fresh");
        let taken = take(&mut document, &stored());
        assert!(taken.has_fresh() && taken.kept.is_empty());
        assert!(document.secret_fields()[0].value.is_empty());
    }

    #[test]
    fn another_choice_drops_the_stored_secret() {
        let scheme = Scheme::LoginPassword(LoginPassword { login: "me".to_owned(), ..Default::default() });
        let mut document = Connection { scheme: Some(scheme), ..Default::default() };
        mark(&mut document, &stored());
        assert!(!*document.secret_fields()[0].is_set, "the caller cannot claim a stored one");
        assert!(take(&mut document, &stored()).kept.is_empty());
    }
}
