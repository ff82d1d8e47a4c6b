//! The data planes this control plane knows of since it started: which are connected, to it or to another one, what they serve, and how
//! it stands with the tokens they fetch. Kept in memory; each tells it again when it connects. What other control planes tell of theirs
//! is taken over in [`parts`].

mod parts;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use sluice_proto::admin::v1::{
    DataPlane, NotServing, Problem, Refusal, ServedWorkspace, TokenState, WaitServedResponse,
};
use sluice_proto::sync::v1::{Ack, Hello, Nack, TokenChange, TokenChanges};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::{UnixMillis, timestamp};
use crate::commands::{Order, Orders, WAITING_MAX};
use crate::enrolment::Scope;
use crate::error::Failure;
use crate::levels::{FIRST, Older};
use crate::members::{GONE_COUNTS, Members};
use crate::names;
use crate::rounds::Rounds;

pub(crate) use parts::{Line, Part, Told};

/// Most data planes that are remembered; those longest gone are forgotten first.
const PLANES_MAX: usize = 10_000;
/// Most connections of one data plane whose tokens are shown; of further ones nothing is known.
const TOKENS_MAX: usize = 100_000;
/// Most data planes that are named when one asks who serves a revision.
const TOLD_MAX: usize = 1000;
/// From how far on a clock that is wrong is said aloud.
const SKEW_WARNED_MS: u64 = 5000;
/// By how much a skew changes before it is news: how long a message takes is part of what is measured.
const SKEW_NEWS_MS: u64 = 1000;
/// Most problems of a refusal that are kept.
const PROBLEMS_MAX: usize = 100;

/// Who is connected and what they serve.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    planes: Arc<Mutex<Planes>>,
    /// Moves when somebody connects, disconnects, serves or refuses; carries nothing but the wake-up.
    changed: Arc<watch::Sender<()>>,
    /// Tells other control planes what is new; `None`: there are none.
    telling: Option<Rounds>,
}

#[derive(Debug, Default)]
struct Planes {
    by_id: BTreeMap<String, Plane>,
    /// Those that were let go, with the number from which on they may be back.
    forgotten: BTreeMap<String, i64>,
    /// What other control planes are to be told: parts of data planes, with the number of their stream.
    news: BTreeMap<(String, String), i64>,
}

#[derive(Debug)]
struct Plane {
    build: String,
    /// The highest level of configuration it understands.
    config_level: i32,
    connect_time: UnixMillis,
    /// Since when it is not connected.
    gone: Option<Instant>,
    /// The number of its last stream: a later one has a greater one, whichever control plane it goes to.
    number: i64,
    home: Home,
    /// The session that is connected now.
    session: Option<Live>,
    /// What it may see.
    scope: Scope,
    /// It is given no new work.
    draining: bool,
    /// How far its clock was ahead of ours, if it has said.
    clock_skew_ms: Option<i64>,
    workspaces: BTreeMap<String, ServedWorkspace>,
    /// By connection.
    tokens: BTreeMap<String, TokenState>,
}

/// Which control plane it is, or was, connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Home {
    Here,
    /// The replica with this id.
    Elsewhere(String),
}

/// A session that is connected.
#[derive(Debug)]
struct Live {
    replaced: CancellationToken,
    revoked: CancellationToken,
    /// `None`: its release takes no commands.
    orders: Option<Orders>,
}

/// A connected data plane; dropping it disconnects.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: Registry,
    id: String,
    session: i64,
    /// Fires when another stream of the same data plane takes over.
    pub(crate) replaced: CancellationToken,
    /// Fires when it is let go.
    pub(crate) revoked: CancellationToken,
    /// What it may see.
    pub(crate) scope: Scope,
    /// The highest level of configuration it understands.
    pub(crate) config_level: i32,
    /// Commands for it.
    pub(crate) orders: mpsc::Receiver<Order>,
}

impl Registry {
    /// One whose news `telling` tells to other control planes.
    pub(crate) fn telling(telling: Rounds) -> Self {
        Self { telling: Some(telling), ..Self::default() }
    }

    /// Registers the stream with this number; an older one of the same data plane ends.
    ///
    /// # Errors
    /// Too many data planes are connected.
    pub(crate) fn register(
        &self,
        hello: &Hello,
        scope: &Scope,
        session: i64,
        now: UnixMillis,
    ) -> Result<Registration, Failure> {
        let mut planes = self.lock();
        if planes.by_id.len() >= PLANES_MAX && !planes.by_id.contains_key(&hello.data_plane_id) {
            let gone = planes.by_id.iter().filter(|(_, plane)| plane.session.is_none());
            let oldest = gone.min_by_key(|(_, plane)| plane.connect_time).map(|(id, _)| id.clone());
            planes.by_id.remove(&oldest.ok_or(Failure::Overloaded("data planes"))?);
        }
        let replaced = CancellationToken::new();
        let (give, orders) = mpsc::channel(WAITING_MAX);
        let revoked = CancellationToken::new();
        let orders_to = hello.takes_commands.then_some(give);
        let live = Live { replaced: replaced.clone(), revoked: revoked.clone(), orders: orders_to };
        let serving = |cursor: &sluice_proto::sync::v1::Cursor| ServedWorkspace {
            workspace: cursor.workspace.clone(),
            revision: cursor.revision,
            ..ServedWorkspace::default()
        };
        let seen = hello.cursors.iter().filter(|cursor| scope.sees(&cursor.workspace));
        let mut workspaces: BTreeMap<_, _> = seen.map(|cursor| (cursor.workspace.clone(), serving(cursor))).collect();
        for (at, ack) in hello.incomplete.iter().filter_map(|ack| Some((ack.serving.as_ref()?, ack))) {
            if let Some(served) = workspaces.get_mut(&at.workspace) {
                served.quarantined = quarantined(ack);
            }
        }
        let config_level = hello.config_level.max(FIRST);
        let plane = Plane {
            build: hello.build.clone(),
            config_level,
            connect_time: now,
            gone: None,
            number: session,
            home: Home::Here,
            session: Some(live),
            workspaces,
            scope: scope.clone(),
            draining: hello.draining,
            clock_skew_ms: None,
            tokens: BTreeMap::new(),
        };
        let (registry, id) = (self.clone(), hello.data_plane_id.clone());
        if planes.begins(&id, session) {
            if let Some(older) = planes.by_id.insert(id.clone(), plane).and_then(|old| old.session) {
                older.replaced.cancel();
            }
            self.tell_all(&mut planes, &id);
        } else {
            // A later stream was faster.
            replaced.cancel();
        }
        drop(planes);
        self.changed.send_replace(());
        Ok(Registration { registry, id, session, replaced, revoked, scope: scope.clone(), config_level, orders })
    }

    /// Ends the stream of a data plane that was let go, and forgets it: all that began before this number.
    pub(crate) fn forget(&self, id: &str, session: i64) {
        let mut planes = self.lock();
        planes.forget(id, session);
        self.tell(&mut planes, id, parts::STREAM, session);
        drop(planes);
        self.changed.send_replace(());
    }

    /// The way to a data plane's stream.
    ///
    /// # Errors
    /// It is not connected, or takes no commands.
    pub(crate) fn orders(&self, id: &str) -> Result<Orders, Failure> {
        let planes = self.lock();
        let Some(live) = planes.by_id.get(id).and_then(|plane| plane.session.as_ref()) else {
            return Err(Failure::NoDataPlane(format!("data plane `{id}`, which works on it, is not connected")));
        };
        live.orders.clone().ok_or_else(|| Failure::DataPlaneTooOld(id.to_owned()))
    }

    /// It is given no new work, or is again.
    pub(crate) fn set_draining(&self, id: &str, draining: bool) {
        let mut planes = self.lock();
        if let Some(plane) = planes.by_id.get_mut(id) {
            plane.draining = draining;
            let number = plane.number;
            self.tell(&mut planes, id, parts::STREAM, number);
        }
        drop(planes);
        self.changed.send_replace(());
    }

    /// Every connected data plane that takes new work, and sees `workspace` if one is named.
    pub(crate) fn taking_commands(&self, workspace: Option<&str>) -> Vec<String> {
        let planes = self.lock();
        let takes = |plane: &Plane| {
            let sees = workspace.is_none_or(|workspace| plane.scope.sees(workspace));
            sees && plane.takes_work()
        };
        planes.by_id.iter().filter(|(_, plane)| takes(plane)).map(|(id, _)| id.clone()).collect()
    }

    /// How many are connected to this control plane.
    pub(crate) fn connected(&self) -> usize {
        let here = |plane: &&Plane| plane.session.is_some() && plane.home == Home::Here;
        self.lock().by_id.values().filter(here).count()
    }

    /// Who shares limits now.
    pub(crate) fn members(&self) -> Members {
        self.members_within(GONE_COUNTS)
    }

    /// One that is not connected still does for `gone_counts`.
    fn members_within(&self, gone_counts: Duration) -> Members {
        let planes = self.lock();
        let there = planes.by_id.values().filter(|plane| plane.gone.is_none_or(|since| since.elapsed() < gone_counts));
        let (all, some): (Vec<&Scope>, Vec<&Scope>) =
            there.map(|plane| &plane.scope).partition(|scope| matches!(scope, Scope::All));
        Members { all: u32::try_from(all.len()).unwrap_or(u32::MAX), some: some.into_iter().cloned().collect() }
    }

    /// A connected data plane that serves this workspace and takes commands.
    pub(crate) fn serving(&self, workspace: &str) -> Option<String> {
        let planes = self.lock();
        let able = planes.by_id.iter().find(|(_, plane)| plane.is_able(workspace));
        able.map(|(id, _)| id.clone())
    }

    /// Which of the connected data planes that serve this workspace and take commands keeps what has this id: always the same one as
    /// long as the same are connected, and when one comes or goes, another one for as few ids as possible (rendezvous hashing).
    pub(crate) fn keeper(&self, workspace: &str, id: &str) -> Option<String> {
        let weight = |plane: &str| {
            let mut hash = Sha256::new();
            for part in [workspace, id, plane] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            hash.finalize()
        };
        // Hashed when everybody else may go on.
        let able: Vec<String> = {
            let planes = self.lock();
            let able = planes.by_id.iter().filter(|(_, plane)| plane.is_able(workspace));
            able.map(|(id, _)| id.clone()).collect()
        };
        able.into_iter().max_by_key(|id| weight(id))
    }

    /// Fires when somebody connects, disconnects, serves or refuses.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether some data plane is connected and every connected one serves this revision or a later one, or has refused it.
    pub(crate) fn have_answered(&self, workspace: &str, revision: i64) -> bool {
        let answer = self.serving_revision(workspace, revision);
        let answered = |plane: &NotServing| plane.refusal.is_some() || !plane.quarantined.is_empty();
        let refused = answer.not_serving.iter().all(answered);
        answer.served || (refused && !answer.not_serving.is_empty())
    }

    /// Who of the connected data planes serves this revision or a later one whole, and who does not.
    pub(crate) fn serving_revision(&self, workspace: &str, revision: i64) -> WaitServedResponse {
        let planes = self.lock();
        let mut answer = WaitServedResponse { revision, ..WaitServedResponse::default() };
        // Who does not see a workspace is not expected to serve it.
        let connected = planes.by_id.iter().filter(|(_, plane)| plane.session.is_some() && plane.scope.sees(workspace));
        for (index, (id, plane)) in connected.enumerate() {
            let data_plane = format!("dataPlanes/{id}");
            let served = plane.workspaces.get(workspace);
            let quarantined = served.filter(|served| serves(served, revision)).map(|served| &served.quarantined);
            let is_served = quarantined.is_some_and(Vec::is_empty);
            answer.served = is_served && (index == 0 || answer.served);
            if index >= TOLD_MAX {
                continue;
            }
            if is_served {
                answer.serving.push(data_plane);
            } else {
                let refusal = served.and_then(|served| served.refusal.clone());
                let refusal = refusal.filter(|refusal| refusal.revision >= revision);
                let quarantined = quarantined.cloned().unwrap_or_default();
                let revision = served.map_or(0, |served| served.revision);
                answer.not_serving.push(NotServing { data_plane, revision, refusal, quarantined });
            }
        }
        answer
    }

    /// The highest level of configuration that this data plane understands.
    pub(crate) fn config_level(&self, id: &str) -> i32 {
        self.lock().by_id.get(id).map_or(FIRST, |plane| plane.config_level)
    }

    /// The connected data planes that see this workspace and do not understand this level of configuration.
    pub(crate) fn older(&self, workspace: &str, level: i32) -> Vec<Older> {
        let planes = self.lock();
        let is_older =
            |plane: &Plane| plane.session.is_some() && plane.config_level < level && plane.scope.sees(workspace);
        let older = planes.by_id.iter().filter(|(_, plane)| is_older(plane));
        older.map(|(id, at)| Older { id: id.clone(), build: at.build.clone(), level: at.config_level }).collect()
    }

    /// At most `limit` data planes by id, those after `after`.
    pub(crate) fn list(&self, after: &str, limit: i64) -> Vec<DataPlane> {
        let planes = self.lock();
        let range = (std::ops::Bound::Excluded(after.to_owned()), std::ops::Bound::Unbounded);
        let shown = planes.by_id.range(range).take(usize::try_from(limit).unwrap_or(0));
        shown.map(|(id, plane)| plane.present(id)).collect()
    }

    /// What at most `limit` data planes say of the token they fetch with `connection`, by id, those after `after`.
    pub(crate) fn token_states(&self, connection: &str, after: &str, limit: i64) -> Vec<TokenState> {
        let planes = self.lock();
        let range = (std::ops::Bound::Excluded(after.to_owned()), std::ops::Bound::Unbounded);
        let told = planes.by_id.range(range).filter_map(|(id, plane)| {
            let state = plane.tokens.get(connection)?.clone();
            Some(TokenState { data_plane: format!("dataPlanes/{id}"), connected: plane.session.is_some(), ..state })
        });
        told.take(usize::try_from(limit).unwrap_or(0)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Planes> {
        // Nothing panics while it is held; if something did, what is in it is still whole.
        self.planes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plane {
    /// It is connected, takes commands and is not being drained.
    fn takes_work(&self) -> bool {
        !self.draining && self.session.as_ref().is_some_and(|live| live.orders.is_some())
    }

    /// It sees this workspace, serves it whole and takes new work.
    fn is_able(&self, workspace: &str) -> bool {
        self.takes_work()
            && self.scope.sees(workspace)
            && self.workspaces.get(workspace).is_some_and(|served| served.revision > 0 && served.quarantined.is_empty())
    }

    fn present(&self, id: &str) -> DataPlane {
        DataPlane {
            name: format!("dataPlanes/{id}"),
            build: self.build.clone(),
            connected: self.session.is_some(),
            connect_time: Some(timestamp(self.connect_time)),
            workspaces: self.workspaces.values().cloned().collect(),
            draining: self.draining,
            clock_skew: self.clock_skew_ms.map(duration),
            config_level: self.config_level,
            ..DataPlane::default()
        }
    }
}

impl Registration {
    /// Which data plane it is.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// A revision is served.
    pub(crate) fn served(&self, ack: &Ack) {
        let Some(serving) = &ack.serving else { return };
        self.change(&serving.workspace, |workspace| {
            workspace.revision = serving.revision;
            workspace.apply_micros = ack.apply_micros;
            workspace.refusal = None;
            workspace.quarantined = quarantined(ack);
        });
    }

    /// A revision was refused.
    pub(crate) fn refused(&self, nack: &Nack, now: UnixMillis) {
        let problems: Vec<Problem> = nack.problems.iter().take(PROBLEMS_MAX).cloned().collect();
        let refusal = Refusal { revision: nack.revision, time: Some(timestamp(now)), problems };
        self.change(&nack.workspace, |workspace| {
            workspace.revision = nack.serving.as_ref().map_or(0, |serving| serving.revision);
            if workspace.revision == 0 {
                workspace.quarantined.clear();
            }
            workspace.refusal = Some(refusal);
        });
    }

    /// Something else is served than was acknowledged; 0: nothing.
    pub(crate) fn found(&self, workspace: &str, revision: i64) {
        self.change(workspace, |workspace| {
            workspace.revision = revision;
            workspace.apply_micros = 0;
            workspace.quarantined.clear();
        });
    }

    /// What its clock says; it may be wrong, and what depends on a clock with it.
    pub(crate) fn clock_says(&self, time: UnixMillis, now: UnixMillis) {
        let mut planes = self.registry.lock();
        let Some(plane) = planes.by_id.get_mut(&self.id).filter(|plane| plane.is(self.session)) else { return };
        let skew_ms = time.saturating_sub(now);
        let before = plane.clock_skew_ms;
        if before.is_some_and(|before| before.abs_diff(skew_ms) < SKEW_NEWS_MS) {
            return;
        }
        plane.clock_skew_ms = Some(skew_ms);
        self.registry.tell(&mut planes, &self.id, parts::STREAM, self.session);
        drop(planes);
        let is_wrong = |skew: i64| skew.unsigned_abs() > SKEW_WARNED_MS;
        if is_wrong(skew_ms) && !before.is_some_and(is_wrong) {
            tracing::warn!(
                data_plane = self.id,
                skew_ms,
                "the clock of a data plane is wrong, or that of this machine"
            );
        }
    }

    /// A workspace was dropped.
    pub(crate) fn dropped(&self, workspace: &str) {
        let mut planes = self.registry.lock();
        if let Some(plane) = planes.by_id.get_mut(&self.id).filter(|plane| plane.is(self.session)) {
            plane.workspaces.remove(workspace);
            let of_it: Vec<String> =
                plane.tokens.keys().filter(|of| workspace_of(of) == Some(workspace)).cloned().collect();
            plane.tokens.retain(|connection, _| workspace_of(connection) != Some(workspace));
            for part in of_it.iter().map(String::as_str).chain([workspace]) {
                self.registry.tell(&mut planes, &self.id, part, self.session);
            }
        }
    }

    /// Tokens were fetched, failed to be, or are gone.
    pub(crate) fn tokens_changed(&self, told: TokenChanges) {
        let mut planes = self.registry.lock();
        let Some(plane) = planes.by_id.get_mut(&self.id).filter(|plane| plane.is(self.session)) else { return };
        let mut changed = Vec::new();
        for TokenChange { connection, state } in told.changes {
            changed.push(connection.clone());
            let room = plane.tokens.len() < TOKENS_MAX || plane.tokens.contains_key(&connection);
            let sees = workspace_of(&connection).is_some_and(|workspace| plane.scope.sees(workspace));
            match state.filter(|_| room && sees) {
                Some(state) => drop(plane.tokens.insert(connection, state)),
                None => drop(plane.tokens.remove(&connection)),
            }
        }
        for connection in changed {
            self.registry.tell(&mut planes, &self.id, &connection, self.session);
        }
    }

    fn change(&self, workspace: &str, change: impl FnOnce(&mut ServedWorkspace)) {
        let mut planes = self.registry.lock();
        if let Some(plane) = planes.by_id.get_mut(&self.id).filter(|plane| plane.is(self.session)) {
            let served = plane.workspaces.entry(workspace.to_owned());
            change(served.or_insert_with(|| ServedWorkspace { workspace: workspace.to_owned(), ..Default::default() }));
            self.registry.tell(&mut planes, &self.id, workspace, self.session);
        }
        drop(planes);
        self.registry.changed.send_replace(());
    }
}

/// What is left out, as much of it as is kept.
fn quarantined(ack: &Ack) -> Vec<Problem> {
    ack.quarantined.iter().take(PROBLEMS_MAX).cloned().collect()
}

/// It serves this revision or a later one; not when it has refused it because what it serves under that number is of another history.
fn serves(served: &ServedWorkspace, revision: i64) -> bool {
    let other = |refusal: &Refusal| (revision..=served.revision).contains(&refusal.revision);
    served.revision >= revision && !served.refusal.as_ref().is_some_and(other)
}

/// Milliseconds as messages carry them.
fn duration(millis: i64) -> prost_types::Duration {
    let nanos = i32::try_from(millis % 1000).unwrap_or(0) * 1_000_000;
    prost_types::Duration { seconds: millis / 1000, nanos }
}

/// `workspaces/{workspace}` of a connection's name.
fn workspace_of(connection: &str) -> Option<&str> {
    let (_, collection, id) = names::split(connection)?;
    connection.strip_suffix(id)?.strip_suffix('/')?.strip_suffix(collection)?.strip_suffix('/')
}

impl Plane {
    fn is(&self, session: i64) -> bool {
        self.session.is_some() && self.number == session
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut planes = self.registry.lock();
        if let Some(plane) = planes.by_id.get_mut(&self.id).filter(|plane| plane.is(self.session)) {
            plane.session = None;
            plane.gone = Some(Instant::now());
            self.registry.tell(&mut planes, &self.id, parts::STREAM, self.session);
        }
        drop(planes);
        self.registry.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::sync::v1::Cursor;

    use super::*;

    fn hello(id: &str) -> Hello {
        Hello { data_plane_id: id.to_owned(), ..Hello::default() }
    }

    #[test]
    fn a_later_stream_of_the_same_data_plane_takes_over() {
        let registry = Registry::default();
        let first = registry.register(&hello("a"), &Scope::All, 1, 1).unwrap();
        let second = registry.register(&hello("a"), &Scope::All, 2, 2).unwrap();
        assert!(first.replaced.is_cancelled() && !second.replaced.is_cancelled());
        drop(first);
        assert!(registry.list("", 10)[0].connected, "the end of the first does not disconnect the second");
        drop(second);
        assert!(!registry.list("", 10)[0].connected);
    }

    #[test]
    fn who_is_too_old_is_connected_and_sees_the_workspace() {
        let registry = Registry::default();
        let connect = |id: &str, config_level, scope: &Scope| {
            registry.register(&Hello { config_level, ..hello(id) }, scope, 1, 1).unwrap()
        };
        let only = Scope::of_names(vec!["workspaces/other".to_owned()]);
        let silent = connect("a", 0, &Scope::All);
        let _held = [connect("b", 2, &Scope::All), connect("c", 3, &Scope::All), connect("d", 1, &only)];
        let older = |level| -> Vec<(String, i32)> {
            registry.older("workspaces/abc", level).into_iter().map(|plane| (plane.id, plane.level)).collect()
        };
        let of = |id: &str, level| (id.to_owned(), level);
        assert_eq!(older(3), [of("a", 1), of("b", 2)], "who says nothing is of the first level");
        assert_eq!((older(2), older(1)), (vec![of("a", 1)], vec![]));
        drop(silent);
        assert_eq!(older(3), [of("b", 2)]);
    }

    #[test]
    fn n08_one_that_went_away_shares_limits_for_a_while() {
        let registry = Registry::default();
        let [a, b] = ["a", "b"].map(|id| registry.register(&hello(id), &Scope::All, 1, 1).unwrap());
        let share = |gone_counts| registry.members_within(gone_counts).all;
        drop(a);
        assert_eq!((share(Duration::MAX), share(Duration::ZERO)), (2, 1));
        let again = registry.register(&hello("a"), &Scope::All, 2, 2).unwrap();
        assert_eq!((share(Duration::MAX), share(Duration::ZERO)), (2, 2));
        drop((again, b));
        registry.forget("a", 3);
        assert_eq!((share(Duration::MAX), share(Duration::ZERO)), (1, 0), "what was deleted counts no more");
    }

    #[test]
    fn each_data_plane_tells_of_its_tokens() {
        let registry = Registry::default();
        let (one, two) = (
            registry.register(&hello("a"), &Scope::All, 1, 1).unwrap(),
            registry.register(&hello("b"), &Scope::All, 1, 1).unwrap(),
        );
        let crm = "workspaces/abc/connections/crm";
        let tell = |who: &Registration, connection: &str, version: Option<i64>| {
            let state = version.map(|connection_version| TokenState { connection_version, ..TokenState::default() });
            let changes = vec![TokenChange { connection: connection.to_owned(), state }];
            who.tokens_changed(TokenChanges { changes });
        };
        let told = |connection: &str| -> Vec<(String, i64)> {
            let states = registry.token_states(connection, "", 10).into_iter();
            states.map(|state| (state.data_plane, state.connection_version)).collect()
        };
        tell(&one, crm, Some(1));
        tell(&two, crm, Some(1));
        tell(&one, crm, Some(2));
        assert_eq!(told(crm), [("dataPlanes/a".to_owned(), 2), ("dataPlanes/b".to_owned(), 1)]);
        assert_eq!(registry.token_states(crm, "a", 10).len(), 1, "by pages");
        tell(&one, crm, None);
        assert_eq!(told(crm), [("dataPlanes/b".to_owned(), 1)]);
        for not_a_name in ["nonsense", "workspaces/abc/connections/", "workspaces/abc"] {
            tell(&one, not_a_name, Some(1));
            assert_eq!(told(not_a_name), []);
        }
        two.dropped("workspaces/abc");
        assert_eq!(told(crm), []);
        tell(&two, "workspaces/def/connections/crm", Some(1));
        drop((one, two));
        assert!(!registry.token_states("workspaces/def/connections/crm", "", 10)[0].connected);
        let _again = registry.register(&hello("b"), &Scope::All, 2, 2).unwrap();
        assert_eq!(told("workspaces/def/connections/crm"), [], "told again when it connects");
    }

    #[test]
    fn ids_stay_where_they_are_as_far_as_they_can() {
        let registry = Registry::default();
        let connect = |id: &str| {
            let cursors = vec![Cursor { workspace: "workspaces/abc".to_owned(), revision: 1, ..Cursor::default() }];
            registry.register(&Hello { takes_commands: true, cursors, ..hello(id) }, &Scope::All, 1, 1).unwrap()
        };
        let keepers = || -> Vec<Option<String>> {
            (0..300).map(|id| registry.keeper("workspaces/abc", &id.to_string())).collect()
        };
        assert_eq!(registry.keeper("workspaces/abc", "1"), None);
        let held = [connect("a"), connect("b"), connect("c")];
        let _other = registry.register(&hello("too-old"), &Scope::All, 1, 1).unwrap();
        assert_eq!(registry.keeper("workspaces/def", "1"), None, "it is not served");
        let before = keepers();
        assert_eq!(before, keepers());
        for plane in ["a", "b", "c"] {
            let share = before.iter().filter(|keeper| keeper.as_deref() == Some(plane)).count();
            assert!((60..140).contains(&share), "{plane}: {share}");
        }
        let [_a, _b, gone] = held;
        drop(gone);
        for (before, after) in before.iter().zip(keepers()) {
            assert!(after == *before || before.as_deref() == Some("c"), "{before:?} {after:?}");
        }
        let _again = connect("c");
        assert_eq!(before, keepers());
        registry.set_draining("c", true);
        assert!(keepers().iter().all(|keeper| keeper.as_deref() != Some("c")), "it is given no new work");
        assert_eq!(registry.taking_commands(None), ["a", "b"]);
        assert!(registry.list("b", 1)[0].draining && registry.orders("c").is_ok());
        registry.set_draining("c", false);
        assert_eq!(before, keepers());
    }

    #[test]
    fn those_longest_gone_are_forgotten_first_and_the_connected_never() {
        let registry = Registry::default();
        let held: Vec<_> =
            (1..PLANES_MAX).map(|n| registry.register(&hello(&n.to_string()), &Scope::All, 1, 1).unwrap()).collect();
        drop(registry.register(&hello("gone"), &Scope::All, 1, 1).unwrap());
        let newest = registry.register(&hello("new"), &Scope::All, 2, 2).unwrap();
        assert!(registry.list("", i64::MAX).iter().all(|plane| plane.name != "dataPlanes/gone"));
        assert!(registry.register(&hello("more"), &Scope::All, 3, 3).is_err());
        drop((held, newest));
    }
}
