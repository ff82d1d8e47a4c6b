//! The published truth, for data planes: at which revision each workspace stands, and its encoded bodies. Hides reading,
//! caching and waking.
//!
//! Reconciled without input: a wake-up carries nothing, and a slow timer makes a missed one harmless. Each time the truth is
//! read again; an error keeps what is known. Bodies are read when the first data plane needs them and shared by all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use sluice_core::snapshot::{EncodedBody, GONE_MAX, merge};
use sluice_proto::sync::v1::{Cursor, WorkspaceBody};
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;

use crate::error::{Failure, chain};
use crate::metrics::Metrics;
use crate::names::workspace_name;
use crate::publish::frame;
use crate::rounds::Rounds;
use crate::store::{RevisionRow, Store, StoreError, Transaction};

/// How often the truth is read again when nobody wakes the reconciler.
const EVERY: Duration = Duration::from_secs(1);
/// Largest change that is sent as one, in bytes; what is larger goes as a snapshot, in parts of this size.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Most merged changes of one workspace that are kept: from so many revisions data planes may come to the newest at no further cost.
const MERGED_MAX: usize = 16;

/// Where every workspace stands.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    /// By workspace name; only those that ever published.
    pub(crate) workspaces: BTreeMap<String, Arc<Head>>,
    /// Names of workspaces that were deleted.
    pub(crate) tombstones: BTreeSet<String>,
    /// The name of the store. Revisions only grow as long as it is the same.
    pub(crate) epoch: String,
}

/// One workspace at its newest revision.
#[derive(Debug)]
pub(crate) struct Head {
    /// Workspace, revision and digest.
    pub(crate) cursor: Cursor,
    /// When it was read from the store first: at once after its commit.
    pub(crate) seen: Instant,
    /// It may take most of the workspace away.
    pub(crate) deletes_confirmed: bool,
    /// Which level of configuration a data plane must understand to serve it.
    pub(crate) config_level: i32,
    pub(crate) id: String,
    /// By the revision they start from; the newest ones are kept.
    changes: Mutex<BTreeMap<i64, Arc<OnceCell<Option<Change>>>>>,
    snapshot: OnceCell<Option<Body>>,
}

/// One publish or several, encoded once for all data planes.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) bytes: Bytes,
    /// It is several, and each takes away little: all that is gone was somebody's decision.
    pub(crate) decided: bool,
}

/// A workspace as a whole, with the revision it was read at.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub(crate) cursor: Cursor,
    pub(crate) bytes: Bytes,
    /// Which level of configuration a data plane must understand to serve it.
    pub(crate) config_level: i32,
}

impl Head {
    fn new(row: RevisionRow) -> Self {
        let cursor = Cursor { workspace: workspace_name(&row.id), revision: row.revision, digest: row.digest.into() };
        Self {
            cursor,
            seen: Instant::now(),
            deletes_confirmed: row.deletes_confirmed >= row.revision,
            config_level: row.config_level,
            id: row.id,
            changes: Mutex::default(),
            snapshot: OnceCell::new(),
        }
    }

    /// It is this row.
    fn is(&self, row: &RevisionRow) -> bool {
        let confirmed = row.deletes_confirmed >= row.revision;
        (self.cursor.revision, self.deletes_confirmed) == (row.revision, confirmed) && self.cursor.digest == row.digest
    }

    /// The change from `base` to this revision: as it was stored, or several merged. `None` when some are forgotten, or it is larger than
    /// one message. Read and merged once for all data planes that stand at `base`.
    pub(crate) async fn change_from(&self, store: &Store, base: i64) -> Result<Option<Change>, Failure> {
        let cell = {
            let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
            let cell = changes.entry(base).or_default().clone();
            while changes.len() > MERGED_MAX {
                changes.pop_first();
            }
            cell
        };
        let read = || async {
            let change = self.read_changes(store, base).await?;
            Ok::<_, Failure>(change.filter(|change| change.bytes.len() <= MESSAGE_BYTES_MAX))
        };
        Ok(cell.get_or_try_init(read).await?.clone())
    }

    async fn read_changes(&self, store: &Store, base: i64) -> Result<Option<Change>, Failure> {
        let mut changes = store.read().await?.changes(&self.id, base, self.cursor.revision).await?;
        let expected = base + 1..=self.cursor.revision;
        if expected.is_empty() || !changes.iter().map(|change| change.revision).eq(expected) {
            return Ok(None);
        }
        if let [_] = changes.as_slice() {
            return Ok(changes.pop().map(|change| Change { bytes: change.body.into(), decided: false }));
        }
        let corrupt = |error| corrupt(&self.id, &error);
        let bodies = changes.into_iter().map(|change| EncodedBody::decode(Bytes::from(change.body)));
        let bodies = bodies.collect::<Result<Vec<_>, _>>().map_err(corrupt)?;
        let decided = bodies.iter().all(|body| body.deletes.len() <= GONE_MAX);
        let merged = merge(bodies).map_err(corrupt)?;
        Ok(merged.map(|body| Change { bytes: body.encode_to_vec().into(), decided }))
    }

    /// The whole workspace. It may be newer than this head: it is read as it is now. `None` when it is gone.
    pub(crate) async fn snapshot(&self, store: &Store) -> Result<Option<Body>, Failure> {
        let read = || async { read_snapshot(&mut store.read().await?, &self.id, true).await };
        Ok(self.snapshot.get_or_try_init(read).await?.clone())
    }

    /// A body that changes no resource: it carries the key and leads to this revision who holds the same by another number.
    pub(crate) async fn empty(&self, store: &Store) -> Result<Option<Body>, Failure> {
        read_snapshot(&mut store.read().await?, &self.id, false).await
    }
}

async fn read_snapshot(tx: &mut Transaction, id: &str, with_resources: bool) -> Result<Option<Body>, Failure> {
    let Some(workspace) = tx.workspace(id).await? else { return Ok(None) };
    let WorkspaceBody { business_profile_id, data_key, .. } = frame(&workspace);
    let resources = if with_resources { tx.heads(id).await? } else { Vec::new() };
    let upserts = resources.into_iter().map(Bytes::from).collect();
    let body = EncodedBody { business_profile_id, data_key, upserts, deletes: Vec::new() };
    let cursor =
        Cursor { workspace: workspace_name(id), revision: workspace.revision, digest: workspace.digest.into() };
    Ok(Some(Body { cursor, bytes: body.encode_to_vec().into(), config_level: workspace.config_level }))
}

fn corrupt(id: &str, error: &prost::DecodeError) -> Failure {
    Failure::Internal(format!("what is stored of workspace {id} cannot be read: {error}"))
}

/// The handle to the reconciler.
#[derive(Debug)]
pub(crate) struct Snapshots {
    rounds: Rounds,
    heads: watch::Receiver<Arc<Heads>>,
}

impl Snapshots {
    /// Reads the truth and keeps reading it in a task until `stop`.
    pub(crate) async fn start(
        store: Store,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Result<Self, StoreError> {
        let first = read(&store, &Heads::default()).await?.unwrap_or_default();
        let (sender, heads) = watch::channel(Arc::new(first));
        let rounds = Rounds::default();
        tokio::spawn(reconcile((store, metrics), sender, rounds.clone(), stop));
        Ok(Self { rounds, heads })
    }

    /// To be woken with when something may have changed.
    pub(crate) fn waker(&self) -> Rounds {
        self.rounds.clone()
    }

    /// Waits until the truth was read once more, or could not be.
    pub(crate) async fn fresh(&self) {
        self.rounds.fresh().await;
    }

    /// Whether something of the workspace with this name was published, as far as that was read.
    pub(crate) fn has(&self, workspace: &str) -> bool {
        self.heads.borrow().workspaces.contains_key(workspace)
    }

    /// Where every workspace stands, now and from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Heads>> {
        self.heads.clone()
    }
}

async fn reconcile(
    (store, metrics): (Store, Arc<Metrics>),
    heads: watch::Sender<Arc<Heads>>,
    rounds: Rounds,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return rounds.end(),
            () = rounds.woken() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
        let round = rounds.begin();
        let known = heads.borrow().clone();
        match read(&store, &known).await {
            Ok(Some(new)) => {
                let fresh = |head: &&Arc<Head>| {
                    !known.workspaces.get(&head.cursor.workspace).is_some_and(|before| before.cursor == head.cursor)
                };
                new.workspaces.values().filter(fresh).for_each(|_| metrics.revision());
                heads.send_replace(Arc::new(new));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(error = %chain(&error), "cannot read the published revisions; keeping those known")
            }
        }
        rounds.done(round);
    }
}

/// The truth, sharing with `known` what stayed the same; `None` when all did.
async fn read(store: &Store, known: &Heads) -> Result<Option<Heads>, StoreError> {
    let mut tx = store.read().await?;
    let mut heads = Heads::default();
    let mut changed = false;
    for row in tx.revisions().await? {
        let name = workspace_name(&row.id);
        let head = match known.workspaces.get(&name) {
            Some(head) if head.is(&row) => head.clone(),
            _ => {
                changed = true;
                Arc::new(Head::new(row))
            }
        };
        heads.workspaces.insert(name, head);
    }
    heads.epoch = tx.epoch_now().await?;
    changed |= heads.epoch != known.epoch;
    heads.tombstones = tx.tombstones().await?.iter().map(|id| workspace_name(id)).collect();
    changed |= heads.workspaces.len() != known.workspaces.len() || heads.tombstones != known.tombstones;
    Ok(changed.then_some(heads))
}
