//! From what came, or was kept, to what can be served: off the request path, on a thread of its own, within a limit of time. Hides what is
//! tried of a revision that hung or has ended the process before, and what the start falls back to.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use futures::StreamExt as _;
use sluice_proto::admin::v1::Problem;
use tokio::sync::{Semaphore, oneshot};

use crate::applying::{Attempt, Deadly};
use crate::objection::{COMPILE_TIMEOUT, CRASHED_APPLYING};
use crate::plane::Plane;
use crate::runtime::{self, Faulty, Position, Source, With, Workspace};

/// Compilations at once: one, and those that hang.
const COMPILATIONS_MAX: usize = 8;

/// A thread that compiles waits so long for the next revision.
const WAITS_MAX: Duration = Duration::from_secs(2);

/// Places for compilations, and threads for them. One that hangs keeps its place and its thread until the process ends.
#[derive(Clone, Debug)]
pub struct Compilations {
    places: Arc<Semaphore>,
    threads: Arc<Threads>,
}

impl Default for Compilations {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(COMPILATIONS_MAX)), threads: Arc::new(Threads::new(WAITS_MAX)) }
    }
}

/// Does something, and answers with what tells of it.
type Task = Box<dyn FnOnce() -> Telling + Send>;
type Telling = Box<dyn FnOnce() + Send>;

/// Threads that wait a while for the next task. One that lasts works on in the memory that the task before has left, where each of many
/// would keep some for itself; when it ends, the allocator gives back what is free.
#[derive(Debug)]
struct Threads {
    tasks: Mutex<Tasks>,
    came: Condvar,
    waits_max: Duration,
}

#[derive(Default)]
struct Tasks {
    /// Each has a thread that waited for it.
    left: Vec<Task>,
    /// Threads for which there is nothing yet.
    waiting: usize,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Threads {
    fn new(waits_max: Duration) -> Self {
        Self { tasks: Mutex::default(), came: Condvar::new(), waits_max }
    }

    /// Has it done by a thread that waits, or by another one.
    fn start(self: &Arc<Self>, task: Task) -> io::Result<()> {
        let mut tasks = self.lock();
        if let Some(others) = tasks.waiting.checked_sub(1) {
            tasks.waiting = others;
            tasks.left.push(task);
            self.came.notify_one();
            return Ok(());
        }
        drop(tasks);
        let threads = self.clone();
        std::thread::Builder::new().name("compile".to_owned()).spawn(move || threads.work(task))?;
        Ok(())
    }

    fn work(&self, mut task: Task) {
        loop {
            let tell = task();
            self.lock().waiting += 1;
            // Whoever hears of it finds this thread waiting.
            tell();
            let none_left = |tasks: &mut Tasks| tasks.left.is_empty();
            let waited = self.came.wait_timeout_while(self.lock(), self.waits_max, none_left);
            let (mut tasks, _) = waited.unwrap_or_else(PoisonError::into_inner);
            let Some(next) = tasks.left.pop() else {
                tasks.waiting -= 1;
                return;
            };
            task = next;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loads what was served last, so that a restart does not need the control plane. A workspace that is left out may have any
/// endpoint: until the control plane has said so, no endpoint is denied.
pub(crate) async fn load_last_good(plane: &Plane) {
    let from = plane.clone();
    let names = tokio::task::spawn_blocking(move || from.last_good.workspaces()).await;
    let Ok(Ok(names)) = names else {
        tracing::warn!("the last good configuration cannot be read; waiting for the control plane");
        return;
    };
    // As many at once as there are processors: nothing else happens yet.
    let at_once = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(COMPILATIONS_MAX / 2);
    let is_empty = names.is_empty();
    let loaded = futures::stream::iter(names).map(|name| load_workspace(plane, name)).buffer_unordered(at_once);
    let whole = loaded.fold(true, |whole, loaded| async move { whole && loaded }).await;
    if whole && !is_empty {
        plane.served.set_complete();
    }
}

/// Loads and serves one workspace, if it can be.
async fn load_workspace(plane: &Plane, name: String) -> bool {
    let (from, of) = (plane.clone(), name.clone());
    let found = tokio::task::spawn_blocking(move || from.last_good.newest(&of, &from.ring)).await;
    let Ok(Some((position, source))) = found else { return false };
    match load(plane, position, Arc::new(source)).await {
        Ok((workspace, attempt)) => {
            tracing::info!(workspace = workspace.name, revision = workspace.revision, "last good configuration");
            plane.served.put(Arc::new(workspace));
            drop(attempt);
            true
        }
        Err(problems) => {
            let problem = problems.first().map(|problem| problem.message.as_str()).unwrap_or_default();
            tracing::warn!(workspace = name, problem, "a last good configuration is not usable");
            false
        }
    }
}

/// The last good configuration of one workspace: whole; or, where it ends this process, the one before it; or what is good of it.
async fn load(plane: &Plane, at: Position, source: Arc<Source>) -> Result<(Workspace, Attempt), Vec<Problem>> {
    let refused = match compile(plane, &at, source.clone(), Otherwise::Refuse).await {
        Ok(compiled) => return Ok(compiled),
        Err(refused) => refused,
    };
    if refused.iter().any(|problem| problem.reason == CRASHED_APPLYING)
        && let Some((before, source)) = last_good_before(plane, &at.workspace).await
        && let Ok(compiled) = compile(plane, &before, Arc::new(source), Otherwise::Refuse).await
    {
        let workspace = at.workspace;
        tracing::error!(workspace, "the last good configuration ends this process: the one before is used");
        return Ok(compiled);
    }
    compile(plane, &at, source, Otherwise::LeaveOut).await
}

/// The revision that was served before the last good one.
async fn last_good_before(plane: &Plane, workspace: &str) -> Option<(Position, Source)> {
    let (plane, workspace) = (plane.clone(), workspace.to_owned());
    tokio::task::spawn_blocking(move || plane.last_good.before(&workspace, &plane.ring)).await.ok().flatten()
}

/// What is done with a revision that cannot be served whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Otherwise {
    Refuse,
    /// What is good is served, where there is nothing to fall back to (R06).
    LeaveOut,
}

/// A revision that can be served. Until the attempt is dropped, the death of the process counts against the revision.
type Compiled = Result<(Workspace, Attempt), Vec<Problem>>;

/// Compiles on a thread of its own: one that does not end in time is left to itself, and holds up neither what comes after it nor the end
/// of the process.
pub(crate) async fn compile(plane: &Plane, at: &Position, source: Arc<Source>, otherwise: Otherwise) -> Compiled {
    let late = |resource: &str, message: &str| {
        let resource = if resource.is_empty() { &at.workspace } else { resource };
        Err(vec![problem(resource, COMPILE_TIMEOUT, message.to_owned())])
    };
    let Ok(place) = plane.compilations.places.clone().try_acquire_owned() else {
        return late("", "too many revisions hang that were compiled before; restart this data plane");
    };
    let (tell, told) = oneshot::channel();
    let at_work = Arc::<Mutex<String>>::default();
    let work = Work { plane: plane.clone(), at: at.clone(), source, otherwise, at_work: at_work.clone() };
    let started = plane.compilations.threads.start(Box::new(move || {
        let compiled = work.compile();
        drop(place);
        // Nobody waits for what took too long: with it goes the mark that the process has not survived it.
        Box::new(move || drop(tell.send(compiled)))
    }));
    let compile_max = plane.settings.compile_max;
    match tokio::time::timeout(compile_max, told).await {
        Ok(Ok(compiled)) => compiled,
        Ok(Err(_panicked)) => {
            tracing::error!(workspace = at.workspace, ?started, "compiling a revision failed unexpectedly");
            let message = "compiling this revision failed unexpectedly; the log has the details".to_owned();
            Err(vec![problem(&at.workspace, "INTERNAL_ERROR", message)])
        }
        Err(_elapsed) => {
            let resource = at_work.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let message = format!(
                "compiling the revision was at this resource after {} ms, the most it may take",
                compile_max.as_millis()
            );
            late(&resource, &message)
        }
    }
}

/// One compilation.
struct Work {
    plane: Plane,
    at: Position,
    source: Arc<Source>,
    otherwise: Otherwise,
    /// The resource that is worked on.
    at_work: Arc<Mutex<String>>,
}

impl Work {
    fn compile(self) -> Compiled {
        let Self { plane, at, source, otherwise, at_work } = self;
        let runtime = plane.served.load();
        let previous = runtime.workspace(&at.workspace).map(Arc::as_ref);
        let (attempt, deadly) = begin(&plane, &at, previous, otherwise)?;
        let keys = plane.ring.keys_for(&source.data_key.key_id);
        let works_on = |resource: &str| {
            resource.clone_into(&mut at_work.lock().unwrap_or_else(PoisonError::into_inner));
            attempt.works_on(resource);
            plane.settings.inbox.compiles(resource);
        };
        let faulty = match otherwise {
            Otherwise::Refuse => Faulty::Refuse,
            Otherwise::LeaveOut => Faulty::LeaveOut(&deadly),
        };
        let with = With { keys: &keys, urls: &plane.urls, tokens: &plane.tokens, works_on: &works_on, faulty };
        runtime::compile(&at, &source, previous, with).map(|workspace| (workspace, attempt))
    }
}

/// Begins an attempt; with the resources that are not tried in it, because they have ended the process.
fn begin(
    plane: &Plane,
    at: &Position,
    previous: Option<&Workspace>,
    otherwise: Otherwise,
) -> Result<(Attempt, BTreeSet<String>), Vec<Problem>> {
    let deadly = match plane.applying.begin(at) {
        Ok(attempt) => return Ok((attempt, BTreeSet::new())),
        Err(deadly) => deadly,
    };
    let resources = deadly.resources();
    let nothing_is_lost = previous.is_none_or(|previous| previous.left_out.has_all(&resources));
    let wanted = otherwise == Otherwise::LeaveOut && nothing_is_lost;
    let attempt = wanted.then(|| plane.applying.begin_without(at, &deadly)).flatten();
    attempt.map(|attempt| (attempt, resources)).ok_or_else(|| vec![crashed(at, &deadly)])
}

fn crashed(at: &Position, deadly: &Deadly) -> Problem {
    let resource = if deadly.resource.is_empty() { &at.workspace } else { &deadly.resource };
    let message = "this data plane has died twice while it applied this revision, at this resource the second time; it is tried again by \
                   another build of it, and a newer revision by any";
    problem(resource, CRASHED_APPLYING, message.to_owned())
}

/// What is wrong with a resource or the whole of a revision.
pub(crate) fn problem(resource: &str, reason: &str, message: String) -> Problem {
    Problem { resource: resource.to_owned(), reason: reason.to_owned(), message, ..Problem::default() }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};

    use super::*;

    /// Has a thread do something; which one did it.
    fn did(threads: &Arc<Threads>, work: impl FnOnce() + Send + 'static) -> mpsc::Receiver<ThreadId> {
        let (tell, told) = mpsc::sync_channel(1);
        let task = move || -> Telling {
            work();
            Box::new(move || tell.send(thread::current().id()).unwrap_or_default())
        };
        threads.start(Box::new(task)).unwrap();
        told
    }

    #[test]
    fn one_thread_does_one_after_the_other_and_who_hangs_or_panics_holds_up_nobody() {
        let threads = Arc::new(Threads::new(Duration::from_secs(1000)));
        let first = did(&threads, || ()).recv().unwrap();
        assert!((0..100).all(|_| did(&threads, || ()).recv() == Ok(first)), "the same one each time");
        let (let_go, held) = mpsc::sync_channel::<()>(1);
        let (begins, began) = mpsc::sync_channel(1);
        let hangs = did(&threads, move || {
            begins.send(()).unwrap();
            held.recv().unwrap_or_default();
        });
        began.recv().unwrap();
        let second = did(&threads, || ()).recv().unwrap();
        assert_ne!(second, first);
        assert!(did(&threads, || panic!("on purpose")).recv().is_err());
        assert!(![first, second].contains(&did(&threads, || ()).recv().unwrap()));
        drop(let_go);
        assert_eq!(hangs.recv(), Ok(first));
        assert_eq!(threads.lock().waiting, 2, "it waits again, as does the last one");
    }

    #[test]
    fn a_thread_that_has_nothing_to_do_ends_and_another_one_goes_on() {
        // It is dropped with its thread.
        thread_local!(static ENDS: RefCell<Option<mpsc::SyncSender<()>>> = const { RefCell::new(None) });
        let threads = Arc::new(Threads::new(Duration::from_millis(1)));
        for _ in 0..3 {
            let (ends, ended) = mpsc::sync_channel(1);
            did(&threads, move || ENDS.set(Some(ends))).recv().unwrap();
            assert_eq!(ended.recv(), Err(mpsc::RecvError));
        }
        assert_eq!(threads.lock().waiting, 0);
    }
}
