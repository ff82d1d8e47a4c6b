//! What the control plane is told of tokens: everything that has something to tell when a stream begins, then what changed.
//! Level-triggered: a signal says that something changed, what it is is read again. The token itself never gets here.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sluice_core::credentials::Token;
use sluice_proto::admin::v1::TokenState;
use sluice_proto::sync::v1::{SyncRequest, TokenChange, TokenChanges, sync_request};
use tokio::sync::mpsc;

use super::keeper::Keeper;
use super::life::{Moment, State};
use crate::clock::UnixMillis;
use crate::outcome::timestamp;
use crate::plane::Plane;
use crate::runtime::Runtime;

/// Most changes in one message.
const CHANGES_MAX: usize = 500;
/// What changes within this time is told together.
const TELL_EVERY: Duration = Duration::from_secs(1);

type TokenKeeper = Keeper<Arc<Token>>;

/// What one stream was told: of which keeper, and at which of its changes.
type Told = HashMap<String, (Weak<TokenKeeper>, u64)>;

/// The tokens held now, for the numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) count: u64,
    /// Since the oldest one was obtained.
    pub(crate) oldest: Duration,
}

/// The tokens that may be used now.
pub(crate) fn held(plane: &Plane) -> Held {
    let now = plane.clock.monotonic();
    let runtime = plane.served.load();
    let mut held = Held::default();
    for (_, _, keeper) in keepers(&runtime) {
        if let Some((obtained, _)) = keeper.state().held.filter(|(_, expires)| now < *expires) {
            held.count += 1;
            held.oldest = held.oldest.max(now.saturating_sub(obtained));
        }
    }
    held
}

/// Name, version and keeper of every connection that fetches tokens.
fn keepers(runtime: &Runtime) -> impl Iterator<Item = (&str, i64, &Arc<TokenKeeper>)> {
    let connections = runtime.workspaces().flat_map(|workspace| workspace.connections());
    connections.filter_map(|connected| {
        let connection = &connected.connection;
        Some((connection.name.as_str(), connection.version, connected.token.as_ref()?))
    })
}

/// Tells one stream, until it closes.
pub(crate) async fn tell(plane: &Plane, stream: mpsc::Sender<SyncRequest>) -> Result<(), String> {
    let mut signal = plane.tokens.changes.subscribe();
    let mut told = Told::new();
    loop {
        let mut changes = changes(plane, &mut told).into_iter();
        while changes.len() > 0 {
            let changes = TokenChanges { changes: changes.by_ref().take(CHANGES_MAX).collect() };
            let message = SyncRequest { kind: Some(sync_request::Kind::TokenChanges(changes)) };
            stream.send(message).await.map_err(|_closed| "closed".to_owned())?;
        }
        tokio::time::sleep(TELL_EVERY).await;
        signal.changed().await.map_err(|_gone| "closed".to_owned())?;
    }
}

/// What the stream has not been told yet.
fn changes(plane: &Plane, told: &mut Told) -> Vec<TokenChange> {
    let runtime = plane.served.load();
    let (wall, now) = (plane.clock.now(), plane.clock.monotonic());
    let mut changes = Vec::new();
    let mut known = HashSet::new();
    for (name, version, keeper) in keepers(&runtime) {
        let state = keeper.state();
        if state.changes == 0 {
            continue;
        }
        known.insert(name);
        let same =
            |(before, at): &(Weak<TokenKeeper>, u64)| before.as_ptr() == Arc::as_ptr(keeper) && *at == state.changes;
        if !told.get(name).is_some_and(same) {
            told.insert(name.to_owned(), (Arc::downgrade(keeper), state.changes));
            let state = Some(shown(&state, version, wall, now));
            changes.push(TokenChange { connection: name.to_owned(), state });
        }
    }
    told.retain(|name, _| {
        let gone = !known.contains(name.as_str());
        if gone {
            changes.push(TokenChange { connection: name.clone(), state: None });
        }
        !gone
    });
    changes
}

/// A state with the times of day of its moments.
fn shown(state: &State, version: i64, wall: UnixMillis, now: Moment) -> TokenState {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let time = |at: Moment| timestamp(wall.saturating_add(millis(at)).saturating_sub(millis(now)));
    let failure = state.failure.as_ref();
    TokenState {
        connection_version: version,
        obtain_time: state.held.map(|(obtained, _)| time(obtained)),
        expire_time: state.held.map(|(_, expires)| time(expires)),
        last_error: failure.map(|failure| failure.error.shown()).unwrap_or_default().into(),
        last_error_message: failure.map(|failure| failure.error.to_string()).unwrap_or_default(),
        last_error_status: failure.map_or(0, |failure| failure.error.status().into()),
        last_error_time: failure.map(|failure| time(failure.at)),
        next_fetch_time: failure.map(|failure| time(failure.rests_until)),
        ..TokenState::default()
    }
}
