//! All that is served, behind one swappable handle, and how an endpoint or a key is found among all of them.
//!
//! A workspace that changes costs what it has itself, however much there is beside it. Two things hide behind that. Workspaces lie in parts
//! that successive runtimes share. And where an endpoint is, is written down once for all runtimes and is only a hint: the workspace says
//! whether it has it, so that all endpoints of a workspace change at once (I4), and a hint that is new or old does no harm.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arc_swap::ArcSwap;
use hashbrown::HashTable;
use sluice_core::model::LoginKey;

use super::{Endpoint, Workspace};
use crate::dispatch::{Limits, Rate};
use crate::inbox::Flow;

/// A change copies one part of the workspaces and the list of parts.
const PARTS: usize = 256;
/// A change of hints holds up who looks for one in the same shard, for as long as one is written.
const SHARDS: usize = 64;

/// All that is served. A request holds the one it started with.
#[derive(Debug)]
pub struct Runtime {
    parts: Box<[Arc<Part>]>,
    hints: Arc<Hints>,
    /// Workspaces that exist and of which nothing can be served.
    refused: BTreeSet<String>,
    /// How many workspaces are not served whole.
    faulty: usize,
    /// Everything was loaded that there is, or refused.
    complete: bool,
}

/// Workspaces by the hash of their name.
type Part = HashTable<(u32, Arc<Workspace>)>;

impl Default for Runtime {
    fn default() -> Self {
        let empty = Arc::<Part>::default();
        Self {
            parts: vec![empty; PARTS].into(),
            hints: Arc::default(),
            refused: BTreeSet::new(),
            faulty: 0,
            complete: false,
        }
    }
}

impl Runtime {
    /// The published endpoint with this id.
    pub fn endpoint(&self, id: &str) -> Option<Endpoint> {
        self.hints.find(id, |hash| self.hashed(hash, |workspace| workspace.endpoint(id)))
    }

    /// Whether the endpoint with this id exists and cannot be served.
    pub fn holds_up(&self, id: &str) -> bool {
        let held_up = |hash| self.hashed(hash, |workspace| workspace.left_out.holds_up(id).then_some(()));
        self.hints.find(id, held_up).is_some()
    }

    /// Whether everything was loaded that there is, or refused.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether an endpoint that is not here does not exist.
    pub fn denies_endpoints(&self) -> bool {
        self.complete && self.refused.is_empty()
    }

    /// Whether an API key that is not here does not exist.
    pub fn denies_keys(&self) -> bool {
        self.denies_endpoints() && self.faulty == 0
    }

    /// The API key with this id that may log in, and its workspace.
    pub fn login_key(&self, id: &str) -> Option<(&Arc<Workspace>, &Arc<LoginKey>)> {
        self.hints.find(id, |hash| self.hashed(hash, |workspace| Some((workspace, workspace.login.key(id)?))))
    }

    /// A workspace.
    pub fn workspace(&self, name: &str) -> Option<&Arc<Workspace>> {
        let hash = self.hints.hash(name);
        let found = self.part(hash)?.find(spread(hash), |(_, workspace)| workspace.name == name);
        found.map(|(_, workspace)| workspace)
    }

    /// What the owner of a flow sets; nothing when it is no longer published: its jobs find that out themselves.
    pub fn limits(&self, flow: &Flow) -> Limits {
        let workspace = self.workspace(&flow.workspace);
        let limits = workspace.and_then(|workspace| workspace.owned(&flow.owner)).map(|request| Limits {
            rate: request.rate_limit.map(Rate::from),
            concurrency_max: request.concurrency_max,
            age_max: Some(request.retry.age_max),
        });
        limits.unwrap_or_default()
    }

    /// All workspaces, in no order.
    pub fn workspaces(&self) -> impl Iterator<Item = &Arc<Workspace>> {
        self.parts.iter().flat_map(|part| part.iter()).map(|(_, workspace)| workspace)
    }

    /// What `find` finds in the workspaces whose name has this hash.
    fn hashed<'a, T>(&'a self, hash: u32, find: impl Fn(&'a Arc<Workspace>) -> Option<T>) -> Option<T> {
        let same = self.part(hash)?.iter_hash(spread(hash)).filter(|(of, _)| *of == hash);
        same.filter_map(|(_, workspace)| find(workspace)).next()
    }

    fn part(&self, hash: u32) -> Option<&Arc<Part>> {
        self.parts.get(hash as usize % PARTS)
    }

    /// Another workspace of this name, or none. The one that was there before.
    fn replace(&mut self, name: &str, workspace: Option<Arc<Workspace>>) -> Option<Arc<Workspace>> {
        let hash = self.hints.hash(name);
        let part = Arc::make_mut(self.parts.get_mut(hash as usize % PARTS)?);
        let before = part.find_entry(spread(hash), |(_, held)| held.name == name).ok();
        let before = before.map(|entry| entry.remove().0.1);
        let is_faulty = |workspace: &Arc<Workspace>| !workspace.left_out.is_empty();
        self.faulty -= usize::from(before.as_ref().is_some_and(is_faulty));
        self.faulty += usize::from(workspace.as_ref().is_some_and(is_faulty));
        if let Some(workspace) = workspace {
            part.insert_unique(spread(hash), (hash, workspace), |(hash, _)| spread(*hash));
        }
        before
    }
}

/// In which workspaces an endpoint or a key with this id may be.
#[derive(Debug)]
struct Hints {
    shards: Box<[RwLock<HashTable<Hint>>]>,
    hasher: RandomState,
}

/// The hashes of an id and of the workspace's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hint {
    id: u32,
    workspace: u32,
}

impl Default for Hints {
    fn default() -> Self {
        Self { shards: std::iter::repeat_with(RwLock::default).take(SHARDS).collect(), hasher: RandomState::new() }
    }
}

impl Hints {
    fn hash(&self, name: &str) -> u32 {
        // Half of it is as random as the whole.
        self.hasher.hash_one(name) as u32
    }

    /// What `look` finds in one of the workspaces.
    fn find<T>(&self, id: &str, look: impl Fn(u32) -> Option<T>) -> Option<T> {
        let hash = self.hash(id);
        let shard = self.shards.get(hash as usize % SHARDS)?.read().unwrap_or_else(PoisonError::into_inner);
        let same = shard.iter_hash(spread(hash)).filter(|hint| hint.id == hash);
        same.filter_map(|hint| look(hint.workspace)).next()
    }

    fn change(&self, id: &str, workspace: &str, change: impl FnOnce(&mut HashTable<Hint>, Hint)) {
        let hint = Hint { id: self.hash(id), workspace: self.hash(workspace) };
        if let Some(shard) = self.shards.get(hint.id as usize % SHARDS) {
            change(&mut shard.write().unwrap_or_else(PoisonError::into_inner), hint);
        }
    }

    fn add(&self, id: &str, workspace: &str) {
        self.change(id, workspace, |shard, hint| {
            shard.insert_unique(spread(hint.id), hint, |hint| spread(hint.id));
        });
    }

    fn remove(&self, id: &str, workspace: &str) {
        self.change(id, workspace, |shard, hint| {
            if let Ok(entry) = shard.find_entry(spread(hint.id), |held| *held == hint) {
                entry.remove();
            }
        });
    }
}

/// All bits of a hash of which the lower ones have chosen the shard.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The handle everything reads through; only the sync task writes.
#[derive(Debug, Default)]
pub struct Served {
    current: ArcSwap<Runtime>,
    /// One change after the other.
    changing: Mutex<()>,
}

impl Served {
    /// What is served now.
    pub fn load(&self) -> Arc<Runtime> {
        self.current.load_full()
    }

    /// Serves another revision of one workspace.
    pub fn put(&self, workspace: Arc<Workspace>) {
        self.replace(&workspace.name.clone(), Some(workspace));
    }

    /// Stops serving a workspace that was deleted.
    pub fn drop_workspace(&self, name: &str) {
        self.replace(name, None);
    }

    /// A workspace exists whose revision cannot be served. What is served of it stays; if nothing is, nobody can say which endpoints it has.
    pub fn refuse(&self, name: &str) {
        self.change(|runtime| {
            if runtime.workspace(name).is_none() {
                runtime.refused.insert(name.to_owned());
            }
        });
    }

    /// From now on an endpoint that is not here does not exist.
    pub fn set_complete(&self) {
        self.change(|runtime| runtime.complete = true);
    }

    fn replace(&self, name: &str, next: Option<Arc<Workspace>>) {
        let mut before = None;
        let hints = self.change(|runtime| {
            runtime.refused.remove(name);
            before = runtime.replace(name, next.clone());
            // Those that come are known before they are served, those that go afterwards.
            only_in(next.as_deref(), before.as_deref()).for_each(|id| runtime.hints.add(id, name));
            runtime.hints.clone()
        });
        only_in(before.as_deref(), next.as_deref()).for_each(|id| hints.remove(id, name));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Runtime) -> T) -> T {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current.load();
        let mut next = Runtime {
            parts: current.parts.clone(),
            hints: current.hints.clone(),
            refused: current.refused.clone(),
            faulty: current.faulty,
            complete: current.complete,
        };
        let done = change(&mut next);
        self.current.store(Arc::new(next));
        done
    }
}

/// The ids of `one` that `other` does not have.
fn only_in<'a>(one: Option<&'a Workspace>, other: Option<&'a Workspace>) -> impl Iterator<Item = &'a str> {
    let ids = one.into_iter().flat_map(Workspace::ids);
    ids.filter(move |id| !other.is_some_and(|other| other.has(id)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use sluice_core::dedup::{DEFAULT_WINDOW, Rule};
    use sluice_core::model::{Authorization, Incoming, RateLimit};

    use super::super::{Compiled, LeftOut, Of, Parsed, Receiver, Table};
    use super::*;

    fn workspace(name: &str, revision: i64, ids: impl Iterator<Item = String>) -> Arc<Workspace> {
        let of = Arc::new(Of {
            workspace: name.to_owned(),
            business_profile_id: 1,
            revision,
            login: Arc::default(),
            is_draft: false,
        });
        let receiver = |id: String| {
            let name: Arc<str> = format!("{name}/incomingIntegrations/{id}").into();
            let incoming = Incoming {
                name: name.clone(),
                endpoint_id: id.into(),
                authorization: Authorization::None,
                dedup: Rule::new(Vec::new(), DEFAULT_WINDOW, true).unwrap(),
                rate_limit: RateLimit { requests_per_second: 1, burst: 1 },
                paused: false,
            };
            let document = Parsed::Incoming(Arc::new(incoming.into()));
            Compiled { name, content: [0; 16], version: 1, document }
        };
        let compiled: Table<Compiled> = ids.map(receiver).collect();
        Arc::new(Workspace {
            name: name.to_owned(),
            store_epoch: String::new(),
            revision,
            digest: [0; 32],
            business_profile_id: 1,
            endpoints: compiled.places_by(Compiled::endpoint_id),
            compiled,
            connections: Box::default(),
            login: Arc::default(),
            of,
            requested: HashMap::new(),
            listening: HashMap::new(),
            submitted: HashMap::new(),
            audiences: HashMap::new(),
            left_out: LeftOut::default(),
        })
    }

    /// Where the endpoint is served, and at which revision.
    fn found(served: &Served, id: &str) -> Option<(String, i64)> {
        let runtime = served.load();
        runtime.endpoint(id).map(|endpoint| (endpoint.of.workspace.clone(), endpoint.of.revision))
    }

    #[test]
    fn every_endpoint_is_found_at_the_revision_of_its_workspace_and_no_other() {
        const WORKSPACES: usize = 300;
        let served = Served::default();
        let name = |of: usize| format!("workspaces/{of}");
        let ids = |of: usize, from: usize| (from..from + 20).map(move |number| format!("{of}-{number}"));
        for of in 0..WORKSPACES {
            served.put(workspace(&name(of), 1, ids(of, 0)));
        }
        assert_eq!(served.load().workspaces().count(), WORKSPACES);
        let before = served.load();
        // Half of its endpoints go, as many come; one workspace goes whole.
        for of in 0..WORKSPACES {
            served.put(workspace(&name(of), 2, ids(of, 10)));
        }
        served.drop_workspace(&name(7));
        for of in 0..WORKSPACES {
            assert!(ids(of, 0).take(10).all(|id| found(&served, &id).is_none()));
            let expected = (of != 7).then(|| (name(of), 2));
            assert!(ids(of, 10).all(|id| found(&served, &id) == expected), "{of}");
        }
        assert!(served.load().workspace(&name(7)).is_none() && served.load().workspace(&name(8)).is_some());
        assert!(
            before.endpoint("8-15").is_some_and(|endpoint| endpoint.of.revision == 1),
            "one who holds it has it all"
        );
        // An endpoint that moves is found while both have it, and after.
        served.put(workspace(&name(8), 3, ids(9, 10)));
        assert!(found(&served, "9-15").is_some());
        served.drop_workspace(&name(9));
        assert_eq!(found(&served, "9-15"), Some((name(8), 3)));
        for of in 0..WORKSPACES {
            served.drop_workspace(&name(of));
        }
        assert_eq!(served.load().workspaces().count(), 0);
        let is_empty = |shard: &RwLock<HashTable<Hint>>| shard.read().unwrap().is_empty();
        assert!(served.load().hints.shards.iter().all(is_empty), "nothing is left behind");
    }

    #[test]
    fn what_there_is_most_of_is_small() {
        assert!(size_of::<Hint>() == 8 && size_of::<Receiver>() <= 112, "{}", size_of::<Receiver>());
        assert!(size_of::<Compiled>() <= 56, "{}", size_of::<Compiled>());
    }
}
