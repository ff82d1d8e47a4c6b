//! The moments at which a crash could lose something or do it twice. Tests end the process at each; in every other build a moment is
//! nothing.

use crate::inbox::InboxSettings;

/// A moment in the life of a request and of what follows from it, or of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A request is read; nothing of it is kept.
    Received,
    /// It is being kept. Embedded: the transaction is not begun. Shared: the store has done it, and nobody here knows.
    Keeping,
    /// It is kept, durably; nobody was answered.
    Kept,
    /// One of its jobs is leased; nothing was done.
    Leased,
    /// An attempt is recorded as begun; no byte was sent.
    Begun,
    /// The destination has answered; nothing is recorded.
    Heard,
    /// The outcome is being recorded, as with [`Moment::Keeping`].
    Recording,
    /// It is recorded; the control plane was not told.
    Recorded,
    /// A revision is compiled; nothing of it is served.
    Applying,
}

impl InboxSettings {
    /// The moment has come.
    #[cfg(feature = "fault-injection")]
    pub(crate) fn reached(&self, moment: Moment) {
        if self.fault() == Some(crate::inbox::Fault::EndAt(moment)) {
            std::process::abort();
        }
    }

    /// The moment has come.
    #[cfg(not(feature = "fault-injection"))]
    pub(crate) fn reached(&self, _moment: Moment) {}

    /// A resource is being compiled.
    #[cfg(feature = "fault-injection")]
    pub(crate) fn compiles(&self, resource: &str) {
        while self.fault().is_some_and(|fault| fault.hangs_at(resource)) {
            std::thread::park();
        }
    }

    /// A resource is being compiled.
    #[cfg(not(feature = "fault-injection"))]
    pub(crate) fn compiles(&self, _resource: &str) {}
}
