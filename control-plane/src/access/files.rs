//! The two keys that are kept in files: one for administrators and one for data planes. The file says which key of its role is valid:
//! take the file away and start again to get a new key and revoke the old one.

use std::path::Path;

use prost::Message as _;
use sluice_proto::admin::v1::AccessKey;
use uuid::Uuid;

use super::key::{self, Key};
use super::principal::Principal as _;
use crate::error::Error;
use crate::settings::Settings;
use crate::store::{ApiKeyRow, PrincipalRow, Store};

/// Makes the key of each role the one in its file, making the file when it is not there.
///
/// # Errors
/// A file cannot be read or written, or does not hold a key.
pub(crate) async fn reconcile_keys(settings: &Settings, store: &Store) -> Result<(), Error> {
    for (role, path) in [("admin", &settings.admin_key_file), ("data-plane", &settings.data_plane_key_file)] {
        let (key, made) = match read(path)? {
            Some(key) => (key, false),
            None => (make(path)?, true),
        };
        let now = settings.clock.now();
        let mut write = store.write().await?;
        let before = write.api_key(&key.id).await?;
        let row = ApiKeyRow {
            id: key.id.clone(),
            workspace: String::new(),
            role: role.to_owned(),
            account: String::new(),
            hash: key.hash().to_vec(),
            permissions: format!("@{role}"),
            networks: String::new(),
            expire_time: 0,
            last_use_time: before.as_ref().map_or(0, |before| before.last_use_time),
            create_time: before.as_ref().map_or(now, |before| before.create_time),
            revoke_time: 0,
        };
        let revoked = write.api_keys_of_role(role).await?.into_iter().filter(|id| *id != key.id).collect::<Vec<_>>();
        for id in &revoked {
            write.api_key_revoke(id, now).await?;
            write.principal_delete(&format!("apiKeys/{id}")).await?;
        }
        write.api_key_put(&row).await?;
        let name = format!("apiKeys/{}", key.id);
        if write.principal(&name).await?.is_none() {
            let display_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let shown = AccessKey { display_name, roles: vec![format!("roles/{role}")], ..AccessKey::default() };
            let principal = PrincipalRow {
                name,
                workspace: String::new(),
                collection: AccessKey::COLLECTION.to_owned(),
                uid: Uuid::new_v4().to_string(),
                saves: 1,
                body: shown.encode_to_vec(),
                create_time: now,
                update_time: now,
            };
            write.principal_put(&principal).await?;
        }
        write.commit().await?;
        if !revoked.is_empty() {
            let why = if made { "its file was missing" } else { "its file holds another key" };
            tracing::warn!(role, path = %path.display(), "the API key before was revoked: {why}");
        } else if made {
            tracing::info!(role, path = %path.display(), "made an API key");
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Option<Key>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            Key::parse(text.trim()).map(Some).map_err(|_no_key| Error::KeyFileInvalid { path: path.to_owned() })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path: path.to_owned(), source }),
    }
}

/// Writes a new key beside `path` and links it there when it is whole: a crash leaves no half of a key, and a file that
/// somebody else made in between is not overwritten.
fn make(path: &Path) -> Result<Key, Error> {
    let key = key::generate().map_err(Error::Randomness)?;
    let beside = path.with_extension(format!("{}.new", key.id));
    let written = write_new(&beside, &format!("{}\n", *key.text()))
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
