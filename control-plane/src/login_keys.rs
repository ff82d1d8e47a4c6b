//! Which API keys may log in at data planes (D14, R153), and the key pair that signs their tokens. Both are part of the workspace's
//! revision, so that data planes need nobody to answer a login, and a revoked key is refused with the next revision.
//!
//! The pair is made with the first such key. When it is replaced, the old public key stays until the last of its tokens has ended.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message as _;
use sluice_core::jwt::{LEEWAY, LIFETIME, TokenKey};
use sluice_core::model::EXECUTE;
use sluice_core::seal::Secret;
use sluice_core::snapshot::content_hash;
use sluice_core::validate::Violation;
use sluice_core::wire::token_seed_field;
use sluice_proto::admin::v1::{RotateTokenKeyRequest, TokenKeySet, TokenKeyState};
use sluice_proto::sync::v1::resource::Document;
use sluice_proto::sync::v1::{self as sync, KeyUses, LoginKey, TokenKeys};
use zeroize::Zeroizing;

use crate::access::{key_name, senders};
use crate::call::{Begun, Call};
use crate::clock::{UnixMillis, millis, timestamp};
use crate::enrolment::Scope;
use crate::error::{Failure, violation};
use crate::lifecycle::lock;
use crate::names::{self, workspace_id, workspace_name};
use crate::publish::commit_revision;
use crate::secrets::{Secrets, random};
use crate::shared::Shared;
use crate::store::{ApiKeyRow, Transaction, WorkspaceRow};

/// Most pairs of a workspace at once: the active one and those whose tokens may still live.
const KEYS_MAX: usize = 8;

/// Most keys of one message that are noted.
const USED_MAX: usize = 10_000;

/// The name under which the keys of a workspace's tokens are in force.
fn keys_name(workspace: &str) -> String {
    format!("{workspace}/tokenKeys")
}

/// Brings what is in force in line with the workspace's API keys.
pub(crate) async fn reconcile(
    secrets: &Secrets,
    tx: &mut Transaction,
    workspace: &mut WorkspaceRow,
    now: UnixMillis,
) -> Result<(), Failure> {
    let keys = senders(tx, &workspace.id).await?;
    let wanted: BTreeMap<String, sync::Resource> = keys.into_iter().map(|key| resource(&workspace.id, key)).collect();
    let prefix = key_name(&workspace.id, "");
    let held: BTreeMap<String, Vec<u8>> = tx.head_hashes(&workspace.id).await?.into_iter().collect();
    let gone = held.keys().filter(|name| name.starts_with(&prefix) && !wanted.contains_key(*name));
    let gone: Vec<String> = gone.cloned().collect();
    let differs =
        |resource: &sync::Resource| held.get(&resource.name).is_none_or(|hash| *hash != content_hash(resource));
    let is_needed = !wanted.is_empty() && !held.contains_key(&keys_name(&workspace_name(&workspace.id)));
    let mut changed: Vec<sync::Resource> = wanted.into_values().filter(differs).collect();
    if changed.is_empty() && gone.is_empty() {
        return Ok(());
    }
    if is_needed {
        changed.push(made(secrets, workspace, Vec::new(), now)?);
    }
    Ok(commit_revision(tx, workspace, changed, gone, now).await?)
}

/// Notes that these keys have logged in at a data plane.
pub(crate) async fn used(shared: &Shared, scope: &Scope, used: KeyUses) -> Result<(), Failure> {
    let now = shared.settings.clock.now();
    let mut tx = shared.store.write().await?;
    for id in used.ids.iter().take(USED_MAX) {
        let row = tx.api_key(id).await?;
        if row.is_some_and(|row| scope.sees(&workspace_name(&row.workspace))) {
            tx.api_key_used(id, now).await?;
        }
    }
    Ok(tx.commit().await?)
}

/// What is wrong with naming this in `field` when it is not in force, if it is an API key.
pub(crate) fn unusable(field: &str, target: &str) -> Option<Violation> {
    let is_key = names::split(target).is_some_and(|(_, collection, _)| collection == "apiKeys");
    let message = || format!("`{target}` is no API key of this workspace with the permission `{EXECUTE}` (R153)");
    is_key.then(|| violation(field, "API_KEY_UNUSABLE", message()))
}

fn resource(workspace: &str, key: ApiKeyRow) -> (String, sync::Resource) {
    let name = key_name(workspace, &key.id);
    let login = LoginKey {
        id: key.id,
        secret_hash: key.hash.into(),
        // Whatever else it may do is nothing to a data plane.
        permissions: vec![EXECUTE.to_owned()],
        expire_time: (key.expire_time > 0).then(|| timestamp(key.expire_time)),
        allowed_networks: key.networks.split_ascii_whitespace().map(str::to_owned).collect(),
    };
    let document = Some(Document::LoginKey(login));
    (name.clone(), sync::Resource { name, version: 1, document, secrets: Vec::new() })
}

/// A new pair, before those that were there.
fn made(
    secrets: &Secrets,
    workspace: &WorkspaceRow,
    before: Vec<sync::TokenKey>,
    now: UnixMillis,
) -> Result<sync::Resource, Failure> {
    let randomness = |error| Failure::Internal(format!("the system gives no random numbers: {error}"));
    let name = keys_name(&workspace_name(&workspace.id));
    let id = hex::encode(random::<8>().map_err(randomness)?);
    let seed = Zeroizing::new(random::<32>().map_err(randomness)?);
    let pair = TokenKey::from_seed(&id, seed.as_slice()).map_err(|error| Failure::Internal(error.to_string()))?;
    let seed = Secret::new(URL_SAFE_NO_PAD.encode(seed.as_slice()));
    let sealed = secrets.seal_one(workspace, &name, &token_seed_field(&id), 1, &seed, now)?;
    let mut keys = vec![sync::TokenKey { id, public_key: pair.public().to_vec().into(), retire_time: None }];
    keys.extend(before);
    let document = Some(Document::TokenKeys(TokenKeys { keys }));
    Ok(sync::Resource { name, version: 1, document, secrets: vec![sealed] })
}

async fn in_force(tx: &mut Transaction, workspace: &WorkspaceRow) -> Result<Vec<sync::TokenKey>, Failure> {
    let name = keys_name(&workspace_name(&workspace.id));
    let Some(head) = tx.head(&workspace.id, &name).await? else { return Ok(Vec::new()) };
    let resource = sync::Resource::decode(head.as_slice());
    match resource.ok().and_then(|resource| resource.document) {
        Some(Document::TokenKeys(keys)) => Ok(keys.keys),
        _ => Err(Failure::Internal("the keys of tokens cannot be read".to_owned())),
    }
}

/// The public keys of a workspace's tokens.
pub(crate) async fn get(shared: &Shared, name: &str) -> Result<TokenKeySet, Failure> {
    let (parent, id) = parse(name)?;
    let mut tx = shared.store.read().await?;
    let workspace = tx.workspace(&id).await?.ok_or_else(|| Failure::NotFound(parent.clone()))?;
    let keys = in_force(&mut tx, &workspace).await?;
    Ok(present(&parent, &keys, shared.settings.clock.now()))
}

fn parse(name: &str) -> Result<(String, String), Failure> {
    let parent = name.strip_suffix("/tokenKeys");
    let id = parent.and_then(|parent| workspace_id(parent, "name").ok());
    parent
        .map(str::to_owned)
        .zip(id)
        .ok_or_else(|| Failure::field("name", "NAME_INVALID", "must be `workspaces/{workspace}/tokenKeys`"))
}

/// Signs from now on with a new pair; tokens of the one before are accepted until they end.
pub(crate) async fn rotate(shared: &Shared, call: Call, asked: RotateTokenKeyRequest) -> Result<TokenKeySet, Failure> {
    let (parent, id) = parse(&asked.name)?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let mut workspace = lock(&mut change, &id, &parent).await?;
    let now = change.now;
    // The end of a token made this moment by a data plane that has not heard of it yet.
    let retire = now.saturating_add_unsigned((LIFETIME + 2 * LEEWAY).as_millis().try_into().unwrap_or(u64::MAX));
    let mut before = in_force(&mut change.tx, &workspace).await?;
    before.retain(|key| key.retire_time.as_ref().is_none_or(|time| millis(time) > now));
    for key in before.iter_mut().filter(|key| key.retire_time.is_none()) {
        key.retire_time = Some(timestamp(retire));
    }
    if before.len() >= KEYS_MAX {
        let message =
            format!("has {} pairs whose tokens may still live, which is the limit: try again later", KEYS_MAX);
        return Err(Failure::field("name", "TOO_MANY", message));
    }
    let resource = made(&shared.secrets, &workspace, before, now)?;
    let keys = match &resource.document {
        Some(Document::TokenKeys(keys)) => keys.keys.clone(),
        _ => Vec::new(),
    };
    commit_revision(&mut change.tx, &mut workspace, vec![resource], Vec::new(), now).await?;
    change.finish(shared, present(&parent, &keys, now)).await
}

fn present(workspace: &str, keys: &[sync::TokenKey], now: UnixMillis) -> TokenKeySet {
    let accepted = keys.iter().filter(|key| key.retire_time.as_ref().is_none_or(|time| millis(time) > now));
    let state = |key: &sync::TokenKey| TokenKeyState {
        id: key.id.clone(),
        public_key: URL_SAFE_NO_PAD.encode(&key.public_key),
        retire_time: key.retire_time,
    };
    TokenKeySet { name: keys_name(workspace), keys: accepted.map(state).collect() }
}
