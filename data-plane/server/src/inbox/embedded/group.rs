//! Commands on their way to the committer, and the group of them that shares a transaction.

use bytes::Bytes;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::super::{Accept, Accepted, Fence, Finish, Grant, Lane, Leased, Steer, bytes_of};
use crate::clock::UnixMillis;

/// Commands in one transaction.
const GROUP_OPS: usize = 512;
/// Accepted requests in one transaction.
const GROUP_ACCEPTS: usize = 256;
/// Bytes in one transaction; one command may exceed it alone.
const GROUP_BYTES: usize = 8 << 20;

/// Dropped, it answers "unavailable".
pub(super) type Reply<T> = oneshot::Sender<T>;

/// The leases of one renewal.
pub(super) type Leases = Vec<(Uuid, Fence)>;

/// What only the committer knows.
pub(super) enum Question {
    /// Since when is the longest waiting ready job of the lane ready?
    OldestReady(Lane),
    /// Under which epoch does somebody work on the job with this number?
    LeasedAs(i64),
}

/// Something to do in a transaction, and whom to tell.
pub(super) enum Command {
    Accept(Accept, Reply<Accepted>),
    Lease(Vec<Grant>, Reply<Vec<Leased>>),
    Renew(Leases, Reply<Vec<Uuid>>),
    Begin {
        id: Uuid,
        fence: Fence,
        rendered: Bytes,
        reply: Reply<bool>,
    },
    Finish {
        id: Uuid,
        fence: Fence,
        finish: Finish,
        reply: Reply<bool>,
    },
    Postpone {
        id: Uuid,
        fence: Fence,
        due: UnixMillis,
        reply: Reply<bool>,
    },
    Steer {
        id: Uuid,
        fence: Fence,
        steer: Steer,
        reply: Reply<bool>,
    },
    /// Answers whether more is left to trim.
    Trim {
        up_to: i64,
        reply: Reply<bool>,
    },
    Ask(Question, Reply<Option<i64>>),
    Close(Reply<()>),
}

/// The commands of one transaction, by kind. Within a group their order is free: nobody has been answered yet.
#[derive(Default)]
pub(super) struct Group {
    pub(super) accepts: Vec<(Accept, Reply<Accepted>)>,
    pub(super) renews: Vec<(Leases, Reply<Vec<Uuid>>)>,
    pub(super) begins: Vec<(Uuid, Fence, Bytes, Reply<bool>)>,
    pub(super) finishes: Vec<(Uuid, Fence, Finish, Reply<bool>)>,
    pub(super) postpones: Vec<(Uuid, Fence, UnixMillis, Reply<bool>)>,
    pub(super) steers: Vec<(Uuid, Fence, Steer, Reply<bool>)>,
    pub(super) trims: Vec<(i64, Reply<bool>)>,
    pub(super) leases: Vec<(Vec<Grant>, Reply<Vec<Leased>>)>,
    pub(super) questions: Vec<(Question, Reply<Option<i64>>)>,
    pub(super) close: Option<Reply<()>>,
    pub(super) ops: usize,
    pub(super) bytes: usize,
}

/// The answers to a group, each list in the order of the commands.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) accepts: Vec<Accepted>,
    pub(super) renews: Vec<Vec<Uuid>>,
    pub(super) begins: Vec<bool>,
    pub(super) finishes: Vec<bool>,
    pub(super) postpones: Vec<bool>,
    pub(super) steers: Vec<bool>,
    pub(super) trims: Vec<bool>,
    pub(super) leases: Vec<Vec<Leased>>,
    pub(super) questions: Vec<Option<i64>>,
}

impl Group {
    /// A crash before the commit.
    #[cfg(feature = "fault-injection")]
    pub(super) fn end_if_asked(&self, fault: Option<crate::inbox::Fault>) {
        use crate::Moment::{Keeping, Recording};
        let reached = [(Keeping, self.accepts.is_empty()), (Recording, self.finishes.is_empty())];
        let asked = |moment| fault == Some(crate::inbox::Fault::EndAt(moment));
        if reached.into_iter().any(|(moment, is_absent)| !is_absent && asked(moment)) {
            std::process::abort();
        }
    }

    pub(super) fn push(&mut self, command: Command) {
        self.ops += 1;
        match command {
            Command::Accept(accept, reply) => {
                self.bytes += bytes_of(&accept.jobs);
                self.accepts.push((accept, reply));
            }
            Command::Lease(grants, reply) => self.leases.push((grants, reply)),
            Command::Renew(leases, reply) => self.renews.push((leases, reply)),
            Command::Begin { id, fence, rendered, reply } => {
                self.bytes += rendered.len();
                self.begins.push((id, fence, rendered, reply));
            }
            Command::Finish { id, fence, finish, reply } => {
                self.bytes += finish.bytes();
                self.finishes.push((id, fence, finish, reply));
            }
            Command::Postpone { id, fence, due, reply } => self.postpones.push((id, fence, due, reply)),
            Command::Steer { id, fence, steer, reply } => {
                self.bytes += steer.report().len();
                self.steers.push((id, fence, steer, reply));
            }
            Command::Trim { up_to, reply } => self.trims.push((up_to, reply)),
            Command::Ask(question, reply) => self.questions.push((question, reply)),
            Command::Close(reply) => self.close = Some(reply),
        }
    }

    /// Gives everybody his answer, and back the jobs that nobody took.
    pub(super) fn answer(self, answers: Answers) -> Vec<Leased> {
        tell(self.accepts.into_iter().map(|a| a.1), answers.accepts);
        tell(self.renews.into_iter().map(|r| r.1), answers.renews);
        tell(self.begins.into_iter().map(|b| b.3), answers.begins);
        tell(self.finishes.into_iter().map(|f| f.3), answers.finishes);
        tell(self.postpones.into_iter().map(|p| p.3), answers.postpones);
        tell(self.steers.into_iter().map(|s| s.3), answers.steers);
        tell(self.trims.into_iter().map(|t| t.1), answers.trims);
        tell(self.questions.into_iter().map(|q| q.1), answers.questions);
        let leases = self.leases.into_iter().zip(answers.leases);
        leases.filter_map(|((_, reply), jobs)| reply.send(jobs).err()).flatten().collect()
    }

    /// There are requests to accept, and nothing else is asked.
    pub(super) fn has_accepts_alone(&self) -> bool {
        self.ops > 0 && self.ops == self.accepts.len() && self.close.is_none()
    }

    pub(super) fn is_full(&self) -> bool {
        self.ops >= GROUP_OPS
            || self.accepts.len() >= GROUP_ACCEPTS
            || self.bytes >= GROUP_BYTES
            || self.close.is_some()
    }
}

/// Tells everybody who still waits.
fn tell<T>(replies: impl IntoIterator<Item = Reply<T>>, answers: Vec<T>) {
    for (reply, answer) in replies.into_iter().zip(answers) {
        let _nobody_waits = reply.send(answer);
    }
}
