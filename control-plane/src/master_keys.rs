//! Changing the master key while everything goes on (K05, K06): the ring's file is read again when it changed, and every data key
//! that another key than the primary one wraps is wrapped anew.
//!
//! Each workspace is a transaction and a revision of its own, so that data planes get the new wrapping, and a process that is
//! killed in between goes on where it was: what is left to do is what the store says.

use std::sync::Arc;

use sluice_core::seal::MasterKeys;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, chain};
use crate::lead::Lead;
use crate::names::workspace_name;
use crate::publish::commit_revision;
use crate::secrets::{SERVER, Secrets, unwrap};
use crate::settings::Settings;
use crate::store::{DataKeyRow, Store, WorkspaceRow};

/// Refuses a ring that does not open every data key of the store.
///
/// # Errors
/// Names the key that is missing, or not the one it was.
pub(crate) async fn check(ring: &MasterKeys, store: &Store) -> Result<(), Error> {
    let mut tx = store.read().await?;
    for (key_id, data_keys) in tx.key_references().await? {
        // One of each is enough to know the key.
        let opened = match tx.workspace_wrapped_by(&key_id).await? {
            Some(row) => {
                let name = workspace_name(&row.id);
                let keys = [Some(&row.data_key), row.old_data_key.as_ref()];
                let mut keys = keys.into_iter().flatten().filter(|key| key.key_id == key_id);
                keys.try_for_each(|key| unwrap(ring, key, &name).map(drop)).map_err(|_| name)
            }
            None => match tx.server_key().await? {
                Some(row) => unwrap(ring, &row.key, SERVER).map(drop).map_err(|_| SERVER.to_owned()),
                None => continue,
            },
        };
        opened.map_err(|object| Error::MasterKeyWrong { object, key_id, data_keys })?;
    }
    Ok(())
}

/// Keeps the ring and, where no other control plane does, what it wraps up to date until `stop`.
pub(crate) async fn keep(settings: Settings, store: Store, secrets: Arc<Secrets>, lead: Lead, stop: CancellationToken) {
    loop {
        match wrap_anew(&settings, &store, &secrets, &lead, &stop).await {
            Ok(0) => {}
            Ok(count) => done(&store, &secrets, count).await,
            Err(error) => {
                tracing::error!(error = %chain(&error), "cannot wrap data keys with the new master key; trying again")
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(settings.ring_read_every) => {}
        }
        match secrets.read_ring(&store).await {
            Ok(None) => {}
            Ok(Some(ring)) => {
                tracing::info!(primary = ring.primary(), ring = ?ring, "the ring of master keys was read again")
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "the ring of master keys cannot be used; keeping the one before")
            }
        }
    }
}

/// Wraps everything with the primary key; returns how many data keys were wrapped with another one.
async fn wrap_anew(
    settings: &Settings,
    store: &Store,
    secrets: &Secrets,
    lead: &Lead,
    stop: &CancellationToken,
) -> Result<u64, Error> {
    if !lead.is_ours() {
        return Ok(0);
    }
    let ring = secrets.ring();
    let mut count = u64::from(secrets.wrap_server_key(&ring, store).await?);
    while lead.is_ours() && !stop.is_cancelled() {
        let Some(next) = store.read().await?.workspace_not_wrapped_by(ring.primary()).await? else { break };
        let mut write = store.write().await?;
        // It may have gone, or been wrapped, before the row was ours.
        let outdated = |key: &DataKeyRow| key.key_id != ring.primary();
        let outdated = |row: &WorkspaceRow| outdated(&row.data_key) || row.old_data_key.as_ref().is_some_and(outdated);
        let Some(mut row) = write.workspace_locked(&next.id).await?.filter(outdated) else { continue };
        row.data_key = secrets.rewrapped(&ring, &row.id, &row.data_key)?;
        if let Some(old) = &row.old_data_key {
            write.old_data_key_set(&row.id, Some(&secrets.rewrapped(&ring, &row.id, old)?)).await?;
        }
        commit_revision(&mut write, &mut row, Vec::new(), Vec::new(), settings.clock.now()).await?;
        write.commit().await?;
        count += 1;
        // Calls stand in the same line.
        tokio::time::sleep(settings.rewrap_pause).await;
    }
    Ok(count)
}

async fn done(store: &Store, secrets: &Secrets, count: u64) {
    let ring = secrets.ring();
    let references = async { store.read().await?.key_references().await };
    let Ok(references) = references.await else { return };
    let is_removable = |id: &&str| *id != ring.primary() && !references.iter().any(|(key_id, _)| key_id == id);
    let removable: Vec<&str> = ring.ids().filter(is_removable).collect();
    let primary = ring.primary();
    tracing::info!(primary, count, ?removable, "data keys were wrapped anew; the removable keys wrap nothing any more");
}
