//! The certificate authority of this installation, made when it is first needed. Its key rests sealed by the server's own data key.

use sluice_tls::authority::Authority;

use crate::clock::UnixMillis;
use crate::error::Error;
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::store::{AuthorityRow, Store};

/// Under which its key is sealed.
const FIELD: &str = "authority_key";

/// Opens the authority of this store, and writes its certificate where the settings say; a store that has none gets one.
pub(crate) async fn open(settings: &Settings, store: &Store, secrets: &Secrets) -> Result<Authority, Error> {
    let authority = kept(store, secrets, settings.clock.now()).await?;
    let path = &settings.authority_file;
    let written = tokio::fs::write(path, authority.pem()).await;
    written.map_err(|source| Error::File { path: path.clone(), source })?;
    Ok(authority)
}

async fn kept(store: &Store, secrets: &Secrets, now: UnixMillis) -> Result<Authority, Error> {
    let mut tx = store.write().await?;
    if let Some(row) = tx.authority().await? {
        let key = secrets.open_own(&mut tx, FIELD, row.sealed_key).await?;
        return Authority::open(row.certificate, &key).map_err(Error::Authority);
    }
    let (authority, key) = Authority::generate(now).map_err(Error::Authority)?;
    let sealed_key = secrets.seal_own(&mut tx, FIELD, &key).await?;
    tx.authority_put(&AuthorityRow { certificate: authority.certificate().to_vec(), sealed_key }).await?;
    tx.commit().await?;
    tracing::info!("made a certificate authority for data planes");
    Ok(authority)
}
