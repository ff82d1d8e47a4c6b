//! The moments at which a crash could leave half of something. Tests end the process at each; in every other build a moment is nothing.

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A change, its audit entry and its remembered answer are written and not durable.
    ChangeWritten,
    /// They are durable; nobody was answered or woken.
    ChangeCommitted,
    /// The audit entry of a refused call is written and not durable.
    RefusalWritten,
    /// A report of a data plane is written and not durable.
    ReportWritten,
    /// It is durable and not acknowledged.
    ReportCommitted,
}

/// Where a test ends the process.
#[cfg(feature = "fault-injection")]
#[derive(Clone, Debug)]
pub struct Crash {
    /// At this moment.
    pub at: Moment,
    /// Of a call whose gRPC path ends with this; reports have none.
    pub method: String,
}

impl crate::settings::Settings {
    /// The moment has come, of the call with this gRPC path.
    #[cfg(feature = "fault-injection")]
    pub(crate) fn reached(&self, moment: Moment, method: &str) {
        if self.crash.as_ref().is_some_and(|crash| crash.at == moment && method.ends_with(&crash.method)) {
            std::process::abort();
        }
    }

    /// The moment has come, of the call with this gRPC path.
    #[cfg(not(feature = "fault-injection"))]
    pub(crate) fn reached(&self, _moment: Moment, _method: &str) {}
}
