//! Which data planes share the limits of the configuration (D10): those that are connected, and those that were until a moment ago,
//! which may be on their way back or go on without a control plane. Each is told how many there are that see a workspace it sees, too.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::data_planes::Registry;
use crate::enrolment::Scope;

/// How long one counts that is not connected any more.
pub(crate) const GONE_COUNTS: Duration = Duration::from_secs(60);
/// How often is looked who is there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What each of them sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// How many see everything.
    pub(crate) all: u32,
    /// What the others see.
    pub(crate) some: Arc<[Scope]>,
}

impl Members {
    /// How many share limits with one that sees this, itself included.
    pub(crate) fn beside(&self, scope: &Scope) -> u32 {
        let some = self.some.iter().filter(|other| other.overlaps(scope)).count();
        self.all.saturating_add(u32::try_from(some).unwrap_or(u32::MAX)).max(1)
    }
}

/// Counts them, every second, until the control plane stops.
pub(crate) fn watch(registry: Registry, stop: CancellationToken) -> watch::Receiver<Members> {
    let (tell, members) = watch::channel(registry.members());
    tokio::spawn(async move {
        let mut look = tokio::time::interval(LOOK_EVERY);
        while stop.run_until_cancelled(look.tick()).await.is_some() {
            let found = registry.members();
            tell.send_if_modified(|members| {
                let changed = *members != found;
                *members = found;
                changed
            });
        }
    });
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shares_a_workspace_shares_its_limits() {
        let only = |names: &[&str]| Scope::Only(Arc::new(names.iter().map(|name| (*name).to_owned()).collect()));
        let members = Members { all: 2, some: [only(&["a", "b"]), only(&["b"]), only(&["c"])].into() };
        assert_eq!(members.beside(&Scope::All), 5);
        assert_eq!(members.beside(&only(&["a", "b"])), 4);
        assert_eq!(members.beside(&only(&["c"])), 3);
        assert_eq!(Members::default().beside(&Scope::All), 1, "itself");
    }
}
