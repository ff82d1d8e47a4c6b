//! Bugs on purpose.

/// A bug a crash test must notice. Never compiled into a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The key is committed in a transaction of its own before the jobs: a crash between loses the request (I2).
    KeyBeforeJobs,
    /// Requests are answered before the commit: a crash between loses what was answered 200 (I1).
    AnswerBeforeCommit,
    /// The process ends: no bug, a crash.
    EndAt(crate::Moment),
    /// Compiling a resource whose name ends with this never ends.
    HangAt(&'static str),
}

impl Fault {
    /// Compiling this resource never ends.
    pub(crate) fn hangs_at(self, resource: &str) -> bool {
        match self {
            Self::HangAt(end) => resource.ends_with(end),
            Self::KeyBeforeJobs | Self::AnswerBeforeCommit | Self::EndAt(_) => false,
        }
    }
}
