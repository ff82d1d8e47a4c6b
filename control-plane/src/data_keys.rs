//! Another data key for a workspace. [`rotate`] makes the key and seals all secrets of the workspace with it, in one transaction, as a
//! revision of its own: data planes get the new key together with what it seals. [`step`] seals anew what is kept of the workspace's
//! traffic, a few deliveries or requests at a time, as an operation ([`crate::operations`]).
//!
//! Until the operation ends, what the key before has sealed opens too ([`Vault`]); then that key is deleted. Whatever is recorded
//! meanwhile is sealed with the new key. A step is one transaction: one that is cut off has not happened, and is done again.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use prost::Message as _;
use sluice_proto::admin::v1::operation::State;
use sluice_proto::admin::v1::{
    Connection, DataKeyRotation, IncomingIntegration, RotateDataKeyRequest, RotateDataKeyResponse,
};
use sluice_proto::sync::v1::{self as sync, SealedSecret};
use uuid::Uuid;

use crate::call::{Begun, Call};
use crate::captures::SAMPLE;
use crate::error::Failure;
use crate::lifecycle::lock;
use crate::names::workspace_id;
use crate::operations::{RUNNING_MAX, Stepped};
use crate::publish::commit_revision;
use crate::reports::{ENVELOPE, EXCHANGE};
use crate::resource::Resource;
use crate::secrets::Vault;
use crate::shared::Shared;
use crate::store::{OperationKind, OperationRow, Place, SealedRow, Transaction};
use crate::stored::Stored;
use crate::wakes::Topic;

/// Documents that are read at once.
const PAGE: i64 = 100;
/// Deliveries of one step.
const DELIVERIES_STEP: i64 = 50;
/// Incoming requests of one step: an envelope may have more than 1 MiB.
const REQUESTS_STEP: i64 = 10;
/// Phases: what was sent and answered, then envelopes, then samples.
const EXCHANGES: i64 = 0;
const ENVELOPES: i64 = 1;
const SAMPLES: i64 = 2;
/// Before everything.
const START: Place = Place { accept_time: i64::MIN, sequence: 0 };

/// Gives the workspace another data key.
pub(crate) async fn rotate(
    shared: &Shared,
    call: Call,
    asked: &RotateDataKeyRequest,
) -> Result<RotateDataKeyResponse, Failure> {
    let id = workspace_id(&asked.name, "name")?;
    // Counting takes long and holds up no writer.
    let total = shared.store.read().await?.kept_count(&id).await?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let mut workspace = lock(&mut change, &id, &asked.name).await?;
    if let Some(operation) = change.tx.data_key_rotation(&id).await? {
        return change.finish(shared, RotateDataKeyResponse { operation }).await;
    }
    if change.tx.operations_running(&id).await? >= RUNNING_MAX {
        return Err(Failure::Overloaded("operations of a workspace at once"));
    }
    let new = shared.secrets.data_key_new(&asked.name)?;
    let old = std::mem::replace(&mut workspace.data_key, new);
    change.tx.old_data_key_set(&id, Some(&old)).await?;
    workspace.old_data_key = Some(old);
    let vault = shared.secrets.vault(&workspace)?;
    let mut anew = Anew { vault, secrets: 0, in_force: Vec::new() };
    anew.documents::<Connection>(&mut change.tx, &id).await?;
    anew.documents::<IncomingIntegration>(&mut change.tx, &id).await?;
    anew.others(&mut change.tx, &id).await?;
    let Anew { secrets, in_force, .. } = anew;
    commit_revision(&mut change.tx, &mut workspace, in_force, Vec::new(), change.now).await?;
    // The changes before hold secrets as they were sealed then.
    change.tx.revisions_forget(&workspace).await?;
    let row = OperationRow {
        sequence: change.tx.outcome_sequences(1).await?,
        workspace: id,
        name: format!("{}/operations/{}", asked.name, Uuid::now_v7()),
        kind: OperationKind::DataKeyRotation,
        state: State::Running as i64,
        message: String::new(),
        filter: Vec::new(),
        plan: DataKeyRotation { secrets, total, ..DataKeyRotation::default() }.encode_to_vec(),
        done: 0,
        failed: 0,
        phase: EXCHANGES,
        position: START,
        until: change.tx.outcome_sequence().await?,
        data_plane: String::new(),
        create_time: change.now,
        update_time: change.now,
        end_time: 0,
        moves: 0,
    };
    change.tx.operation_insert(&row).await?;
    let operation = if change.validate_only() { String::new() } else { row.name };
    tracing::info!(operation, secrets, total, "a workspace has another data key");
    let answer = change.finish(shared, RotateDataKeyResponse { operation }).await?;
    shared.tell(Topic::Operations);
    Ok(answer)
}

/// The secrets of a workspace on their way to another key.
struct Anew {
    vault: Vault,
    /// How many were sealed anew.
    secrets: i64,
    /// What is in force with other secrets.
    in_force: Vec<sync::Resource>,
}

impl Anew {
    /// Seals the secrets of all documents of a kind anew: of drafts, deleted ones too, and of what is in force.
    async fn documents<R: Resource>(&mut self, tx: &mut Transaction, workspace: &str) -> Result<(), Failure> {
        let mut after = String::new();
        loop {
            let rows = tx.documents(workspace, R::COLLECTION, &after, true, PAGE).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after.clone_from(&last.name);
            for row in rows {
                let head = tx.head(workspace, &row.name).await?;
                let head = head.map(|bytes| sync::Resource::decode(bytes.as_slice())).transpose();
                let head = head.map_err(|_| Failure::Internal("what is in force cannot be read".to_owned()))?;
                let mut stored = Stored::<R>::of(row)?;
                // Those that the draft shares with what is in force stay the same.
                let mut known = HashMap::new();
                let secrets = self.sealed(&stored.row.name, &stored.secrets, &mut known)?;
                stored.reseal(secrets);
                if let Some(head) = head.filter(|head| !head.secrets.is_empty()) {
                    let secrets = self.sealed(&stored.row.name, &head.secrets, &mut known)?;
                    self.in_force.push(stored.refresh_in_force(head, |_| secrets)?);
                }
                tx.document_put(&stored.row).await?;
            }
        }
    }

    /// Seals the secrets anew of what is in force and is no document, such as the pair that signs tokens.
    async fn others(&mut self, tx: &mut Transaction, workspace: &str) -> Result<(), Failure> {
        let documents: BTreeSet<String> = self.in_force.iter().map(|resource| resource.name.clone()).collect();
        for head in tx.heads(workspace).await? {
            let head = sync::Resource::decode(head.as_slice());
            let mut head = head.map_err(|_| Failure::Internal("what is in force cannot be read".to_owned()))?;
            if !head.secrets.is_empty() && !documents.contains(&head.name) {
                head.secrets = self.sealed(&head.name, &head.secrets, &mut HashMap::new())?;
                self.in_force.push(head);
            }
        }
        Ok(())
    }

    /// The same secrets, sealed with the new key. `known` tells what became of those that were seen before.
    fn sealed(
        &mut self,
        object: &str,
        secrets: &[SealedSecret],
        known: &mut HashMap<Bytes, Bytes>,
    ) -> Result<Vec<SealedSecret>, Failure> {
        let mut sealed = secrets.to_vec();
        for secret in &mut sealed {
            let new = match known.get(&secret.ciphertext) {
                Some(new) => new.clone(),
                None => {
                    let opened = self.vault.open(object, &secret.field, secret.version, secret.ciphertext.to_vec())?;
                    let new = Bytes::from(self.vault.seal(object, &secret.field, secret.version, &opened)?);
                    known.insert(secret.ciphertext.clone(), new.clone());
                    self.secrets += 1;
                    new
                }
            };
            secret.ciphertext = new;
        }
        Ok(sealed)
    }
}

/// One step of a rotation: a page of what was sealed before it began, or its end.
pub(crate) async fn step(shared: &Shared, mut row: OperationRow) -> Result<Stepped, Failure> {
    if row.phase == SAMPLES {
        row.failed += samples(shared, &row.workspace).await?;
        return end(shared, row).await;
    }
    let mut tx = shared.store.write().await?;
    let Some(workspace) = tx.workspace_locked(&row.workspace).await? else { return Ok(Stepped::Ended) };
    let vault = shared.secrets.vault(&workspace)?;
    let rows = match row.phase {
        EXCHANGES => tx.deliveries_sealed(&row.workspace, row.position, (row.until, DELIVERIES_STEP)).await?,
        ENVELOPES => tx.envelopes_sealed(&row.workspace, row.position, (row.until, REQUESTS_STEP)).await?,
        other => return Err(Failure::Internal(format!("{} is in phase {other}", row.name))),
    };
    for one in &rows {
        row.failed += match row.phase {
            EXCHANGES => exchanges(&mut tx, &vault, one).await?,
            _ => envelope(&mut tx, &vault, one).await?,
        };
    }
    row.done += i64::try_from(rows.len()).unwrap_or(i64::MAX);
    match rows.last() {
        Some(last) => row.position = last.place,
        None => (row.phase, row.position) = (row.phase + 1, START),
    }
    row.update_time = shared.settings.clock.now();
    if !tx.operation_moved(&mut row).await? {
        return Ok(Stepped::Waits);
    }
    tx.commit().await?;
    shared.tell(Topic::Operations);
    Ok(Stepped::Moved(shared.settings.rewrap_pause))
}

/// The samples of captures: one at most for each incoming integration, each in a transaction of its own. How many no key opened.
async fn samples(shared: &Shared, workspace: &str) -> Result<i64, Failure> {
    let mut unreadable = 0;
    let uids = shared.store.read().await?.captures_of(workspace).await?;
    for uid in uids {
        let mut tx = shared.store.write().await?;
        let Some(row) = tx.workspace_locked(workspace).await? else { break };
        let Some(mut capture) = tx.capture_by_uid(&uid).await?.filter(|capture| !capture.sample.is_empty()) else {
            continue;
        };
        match shared.secrets.vault(&row)?.reseal(&uid, SAMPLE, 1, &capture.sample) {
            Ok(Some(sealed)) => {
                capture.sample = sealed;
                tx.capture_put(&capture).await?;
                tx.commit().await?;
            }
            Ok(None) => {}
            Err(failure) => unreadable += told(failure),
        }
        tokio::time::sleep(shared.settings.rewrap_pause).await;
    }
    Ok(unreadable)
}

/// Nothing is sealed with the old key any more.
async fn end(shared: &Shared, mut row: OperationRow) -> Result<Stepped, Failure> {
    let now = shared.settings.clock.now();
    let mut tx = shared.store.write().await?;
    if !tx.operation_moved(&mut row).await? {
        // It has ended; the old key that is there now may be the next one's.
        return Ok(Stepped::Waits);
    }
    tx.old_data_key_set(&row.workspace, None).await?;
    tx.operation_state(&row.name, (row.state, State::Succeeded as i64), now, now).await?;
    tx.commit().await?;
    let (operation, done, unreadable) = (&row.name, row.done, row.failed);
    tracing::info!(operation, done, unreadable, "nothing is sealed with the old data key any more");
    shared.tell(Topic::Operations);
    Ok(Stepped::Ended)
}

/// Seals what was sent and answered at the attempts of a delivery; how many no key opened.
async fn exchanges(tx: &mut Transaction, vault: &Vault, one: &SealedRow) -> Result<i64, Failure> {
    let mut unreadable = 0;
    for (attempt, sealed) in tx.exchanges(&one.name).await? {
        match vault.reseal(&one.name, EXCHANGE, attempt, &sealed) {
            Ok(Some(sealed)) => tx.exchange_reseal(&one.name, attempt, &sealed).await?,
            Ok(None) => {}
            Err(failure) => unreadable += told(failure),
        }
    }
    Ok(unreadable)
}

async fn envelope(tx: &mut Transaction, vault: &Vault, one: &SealedRow) -> Result<i64, Failure> {
    match vault.reseal(&one.name, ENVELOPE, 1, &one.sealed) {
        Ok(Some(sealed)) => tx.envelope_reseal(&one.name, &sealed).await?,
        Ok(None) => {}
        Err(failure) => return Ok(told(failure)),
    }
    Ok(0)
}

/// What no key opens cannot be read now either: it stays, is counted, and the log names it.
fn told(failure: Failure) -> i64 {
    let _told = failure.into_status();
    1
}
