//! The audit log: what an entry holds, how entries are chained, and how a log is read and checked.
//!
//! An entry of a change is written by [`crate::call::Change::finish`], in the transaction of the change; an entry of a refusal by the
//! [`crate::door`], in one of its own. Each entry's hash is keyed and covers the log, the number, the hash before and the entry, so
//! that whoever can write into the database but cannot open the server's key can neither change, move nor take away an entry unseen;
//! but for the newest ones, which whoever knows a later number and hash misses. What is older than the retention is let go from the
//! beginning of a log, and a keyed anchor tells where it begins since: the database deletes nothing that no anchor covers, and an anchor
//! that the server did not make is found.

use std::net::IpAddr;

use prost::Message as _;
use prost_types::Timestamp;
use sluice_proto::admin::v1::{
    AuditEntry, AuditFilter, AuditOutcome, ListAuditEntriesRequest, ListAuditEntriesResponse,
    VerifyAuditEntriesRequest, VerifyAuditEntriesResponse,
};

use crate::access::Access;
use crate::clock::{UnixMillis, millis, timestamp};
use crate::error::Failure;
use crate::names::{workspace_id, workspace_name};
use crate::scan::{self, Scan};
use crate::secrets::Secrets;
use crate::shared::Shared;
use crate::store::{AuditAnchor, AuditRow, AuditSelection, Store, StoreError, Transaction, WorkspaceRow};

/// Most fields an entry names.
pub(crate) const FIELDS_MAX: usize = 100;
/// Longest name an entry holds, in bytes.
const TEXT_BYTES_MAX: usize = 256;
/// Entries that are checked at once.
const CHECKED_AT_ONCE: i64 = 1000;
/// Entries that are let go at once, so that writers do not wait long.
const LET_GO_AT_ONCE: usize = 1000;

/// Who calls what: what the door knows of a call before it is done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempt {
    /// The id of the call.
    pub(crate) call_id: String,
    /// The gRPC path.
    pub(crate) method: String,
    pub(crate) source: Option<IpAddr>,
    /// What the request is about; `None` for the whole server, or when that is not known.
    pub(crate) resource: Option<String>,
    /// The fields that the request sets.
    pub(crate) fields: Vec<String>,
    pub(crate) request_id: String,
}

impl Attempt {
    /// The entry of what became of it.
    pub(crate) fn entry(&self, caller: Option<&Access>, outcome: AuditOutcome) -> AuditEntry {
        let method = self.method.strip_prefix('/').unwrap_or(&self.method);
        AuditEntry {
            principal: caller.map(|caller| caller.principal.clone()).unwrap_or_default(),
            api_key: caller.map(Access::key_name).unwrap_or_default(),
            source_address: self.source.map(|source| source.to_canonical().to_string()).unwrap_or_default(),
            method: cut(method),
            resource: self.resource.as_deref().map(cut).unwrap_or_default(),
            outcome: outcome.into(),
            fields: self.fields.iter().take(FIELDS_MAX).map(|field| cut(field)).collect(),
            call_id: self.call_id.clone(),
            request_id: cut(&self.request_id),
            ..AuditEntry::default()
        }
    }

    /// The log that it belongs to: of the caller's workspace or, for a caller of the server, of the one that it asks for.
    pub(crate) async fn log(&self, tx: &mut Transaction, caller: Option<&Access>) -> Result<Log, StoreError> {
        let Some(caller) = caller else { return Ok(Log::default()) };
        let asked = self.resource.as_deref().unwrap_or_default().strip_prefix("workspaces/").unwrap_or_default();
        let asked = asked.split('/').next().unwrap_or_default();
        let id = caller.workspace.as_deref().unwrap_or(asked);
        Ok(tx.workspace_or_deleted(id).await?.map(Log::of).unwrap_or_default())
    }
}

/// The log of a workspace, or of the server. A workspace that is made under the id of one that was purged has a log of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// The `uid` of the workspace; empty for the server.
    place: String,
    /// What the names of its entries begin with.
    prefix: String,
}

impl Log {
    fn of(workspace: WorkspaceRow) -> Self {
        Self { prefix: format!("{}/", workspace_name(&workspace.id)), place: workspace.uid }
    }

    /// The log that is asked for; that of a deleted workspace can be read until it is purged.
    async fn find(tx: &mut Transaction, parent: &str) -> Result<Self, Failure> {
        if parent.is_empty() {
            return Ok(Self::default());
        }
        let row = tx.workspace_or_deleted(&workspace_id(parent, "parent")?).await?;
        row.map(Self::of).ok_or_else(|| Failure::NotFound(parent.to_owned()))
    }

    fn name(&self, number: i64) -> String {
        format!("{}auditEntries/{number}", self.prefix)
    }
}

fn cut(text: &str) -> String {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[..end].to_owned()
}

/// Adds an entry to a log.
pub(crate) async fn append(
    tx: &mut Transaction,
    secrets: &Secrets,
    log: &Log,
    entry: AuditEntry,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let (last, before) = tx.audit_last(&log.place).await?;
    let number = last + 1;
    let entry = AuditEntry { name: log.name(number), number, time: Some(timestamp(now)), ..entry };
    let body = entry.encode_to_vec();
    let row = AuditRow {
        place: log.place.clone(),
        number,
        time: now,
        hash: chained(secrets, &log.place, number, &before, &body),
        principal: entry.principal,
        method: entry.method,
        resource: entry.resource,
        outcome: i64::from(entry.outcome),
        body,
    };
    tx.audit_insert(&row).await
}

fn chained(secrets: &Secrets, place: &str, number: i64, before: &[u8], body: &[u8]) -> Vec<u8> {
    secrets.mac(&[b"audit", place.as_bytes(), &number.to_be_bytes(), before, body]).to_vec()
}

/// Lets go what was written before `before`, in every log. The newest entry of a log that can still grow stays: the next one is
/// chained to it.
pub(crate) async fn prune(store: &Store, secrets: &Secrets, before: UnixMillis) -> Result<(), StoreError> {
    let mut place = Some(String::new());
    while let Some(at) = place {
        loop {
            let mut tx = store.write().await?;
            let more = let_go(&mut tx, secrets, &at, before).await?;
            tx.commit().await?;
            if !more {
                break;
            }
        }
        place = store.read().await?.audit_place_after(&at).await?;
    }
    Ok(())
}

/// Lets go some of what was written before `before` in one log; `true` when there may be more.
async fn let_go(tx: &mut Transaction, secrets: &Secrets, place: &str, before: UnixMillis) -> Result<bool, StoreError> {
    let looked_at = i64::try_from(LET_GO_AT_ONCE).unwrap_or(i64::MAX).saturating_add(1);
    let mut steps = tx.audit_oldest(place, looked_at).await?;
    let lives = tx.audit_place_lives(place).await?;
    if lives {
        steps.pop();
    }
    let old = steps.iter().take(LET_GO_AT_ONCE).take_while(|step| step.time < before).count();
    let Some(last) = old.checked_sub(1).and_then(|at| steps.into_iter().nth(at)) else { return Ok(false) };
    let mut anchor = AuditAnchor { place: place.to_owned(), number: last.number, hash: last.hash, seal: Vec::new() };
    anchor.seal = sealed(secrets, &anchor);
    tx.audit_let_go(&anchor).await?;
    tracing::info!(
        place,
        number = anchor.number,
        "entries of an audit log that are older than its retention were let go"
    );
    Ok(old == LET_GO_AT_ONCE)
}

/// The keyed hash over an anchor.
fn sealed(secrets: &Secrets, anchor: &AuditAnchor) -> Vec<u8> {
    secrets.mac(&[b"audit anchor", anchor.place.as_bytes(), &anchor.number.to_be_bytes(), &anchor.hash]).to_vec()
}

/// Lists entries.
pub(crate) async fn list(shared: &Shared, asked: ListAuditEntriesRequest) -> Result<ListAuditEntriesResponse, Failure> {
    let mut tx = shared.store.read().await?;
    let log = Log::find(&mut tx, &asked.parent).await?;
    let filter = asked.filter.unwrap_or_default();
    let selection = selection(&filter)?;
    let scope = hex::encode(filter.encode_to_vec());
    let query = scan::Asked {
        page_size: asked.page_size,
        page_token: &asked.page_token,
        filter: "",
        order_by: &asked.order_by,
    };
    let mut scan = Scan::<AuditEntry>::new(&shared.secrets, &["auditEntries", &log.place, &scope], query)?;
    let (first, last) = tx.audit_bounds(&log.place, selection.from, selection.before).await?;
    while let Some((position, limit)) = scan.next() {
        let rows = match scan.descending {
            true => {
                let before = Scan::<AuditEntry>::number(position, i64::MAX)?.min(last.saturating_add(1));
                tx.audit_before(&log.place, before, limit).await?
            }
            false => {
                let after = Scan::<AuditEntry>::number(position, 0)?.max(first - 1);
                tx.audit_after(&log.place, after, limit).await?
            }
        };
        let within = rows.into_iter().take_while(|row| (first..=last).contains(&row.number));
        let within: Vec<AuditRow> = within.collect();
        // What lies beyond the time that is asked for is as good as the end.
        scan.read(within.len(), limit);
        for row in within {
            let position = row.number.to_string();
            match selection.matches(&row) {
                true => scan.offer(position, present(row)?)?,
                false => scan.pass(position),
            }
        }
    }
    let (audit_entries, next_page_token) = scan.finish();
    Ok(ListAuditEntriesResponse { audit_entries, next_page_token })
}

fn present(row: AuditRow) -> Result<AuditEntry, Failure> {
    let entry = AuditEntry::decode(row.body.as_slice());
    let entry = entry.map_err(|_| Failure::Internal(format!("audit entry {} cannot be read", row.number)))?;
    Ok(AuditEntry { hash: row.hash.into(), ..entry })
}

fn selection(filter: &AuditFilter) -> Result<AuditSelection, Failure> {
    if AuditOutcome::try_from(filter.outcome).is_err() {
        return Err(Failure::field("filter.outcome", "UNKNOWN", "is not one of the contract's"));
    }
    let at = |time: &Option<Timestamp>, none: UnixMillis| time.as_ref().map_or(none, millis);
    Ok(AuditSelection {
        principal: filter.principal.clone(),
        method: filter.method.clone(),
        resource: filter.resource.clone(),
        outcome: i64::from(filter.outcome),
        from: at(&filter.from, i64::MIN),
        before: at(&filter.before, i64::MAX),
    })
}

/// Recomputes a log from the first entry that is kept to its last or to the first that is not as it was written.
pub(crate) async fn verify(
    shared: &Shared,
    asked: VerifyAuditEntriesRequest,
) -> Result<VerifyAuditEntriesResponse, Failure> {
    if asked.known_number < 0 {
        return Err(Failure::field("known_number", "OUT_OF_RANGE", "must not be negative"));
    }
    let mut tx = shared.store.read().await?;
    let log = Log::find(&mut tx, &asked.parent).await?;
    let anchor = tx.audit_anchor(&log.place).await?;
    let begins_well = anchor.as_ref().is_none_or(|anchor| anchor.seal == sealed(&shared.secrets, anchor));
    let (mut last, mut hash) = anchor.map_or((0, Vec::new()), |anchor| (anchor.number, anchor.hash));
    let first_number = last + 1;
    let broken = 'checked: loop {
        if !begins_well {
            break Some("follows a beginning of the log that was changed");
        }
        if last > 0 && last == asked.known_number && hash != asked.known_hash {
            break Some("follows an entry that has another hash than known");
        }
        let rows = tx.audit_after(&log.place, last, CHECKED_AT_ONCE).await?;
        if rows.is_empty() {
            break (last < asked.known_number).then_some("is missing");
        }
        for row in rows {
            let problem = problem(&shared.secrets, &row, last + 1, &hash).or_else(|| {
                (row.number == asked.known_number && row.hash != asked.known_hash)
                    .then_some("has another hash than known")
            });
            if problem.is_some() {
                break 'checked problem;
            }
            (last, hash) = (row.number, row.hash);
        }
    };
    Ok(VerifyAuditEntriesResponse {
        first_number,
        last_number: last,
        last_hash: hash.into(),
        broken: broken.map(|_| log.name(last + 1)).unwrap_or_default(),
        problem: broken.unwrap_or_default().to_owned(),
    })
}

/// What is wrong with the entry that should have this number and follow this hash.
fn problem(secrets: &Secrets, row: &AuditRow, number: i64, before: &[u8]) -> Option<&'static str> {
    if row.number != number {
        return Some("is missing");
    }
    if row.hash != chained(secrets, &row.place, number, before, &row.body) {
        return Some("was changed");
    }
    // What is searched by stands beside the entry.
    let entry = AuditEntry::decode(row.body.as_slice()).ok();
    let same = entry.is_some_and(|entry| {
        entry.time == Some(timestamp(row.time))
            && entry.principal == row.principal
            && entry.method == row.method
            && entry.resource == row.resource
            && i64::from(entry.outcome) == row.outcome
    });
    (!same).then_some("was changed")
}
