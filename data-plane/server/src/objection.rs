//! What is refused of a revision that comes before it is even compiled: it would go back, it is of another history under the same number,
//! or it would take most of the workspace away (R07, R08 of sync). What is served stays.

use sluice_core::snapshot;
use sluice_proto::admin::v1::Problem;

use crate::runtime::{DATA_KEY_UNREADABLE, Position, Source, Workspace};

/// A newer revision of the same store is served.
pub const REVISION_BACKWARDS: &str = "REVISION_BACKWARDS";
/// Another content is served under the same number of the same store.
pub const REVISION_FORKED: &str = "REVISION_FORKED";
/// Most of what is served would be gone, and nobody has confirmed it.
pub const MASS_DELETE_GUARD: &str = "MASS_DELETE_GUARD";
/// Compiling it took too long.
pub const COMPILE_TIMEOUT: &str = "COMPILE_TIMEOUT";
/// The process has died of it.
pub const CRASHED_APPLYING: &str = "CRASHED_APPLYING";

/// Why what came is not taken in place of what is `held`, if so.
pub fn to(came: &Position, source: &Source, held: &Workspace, allow_mass_delete: bool) -> Option<Problem> {
    let is_same_store = held.store_epoch == came.store_epoch;
    let (reason, message) = if is_same_store && held.revision > came.revision {
        let message = "a newer revision of the same store is served already: the store was set back".to_owned();
        (REVISION_BACKWARDS, message)
    } else if is_same_store && held.revision == came.revision && held.digest.as_slice() != came.digest {
        let message = "another content is served already under this number of the same store".to_owned();
        (REVISION_FORKED, message)
    } else {
        let gone = snapshot::takes_most(held.names(), &source.resources).filter(|_| !allow_mass_delete)?;
        let of = held.names().count();
        let message = format!(
            "it would take away {gone} of the {of} resources that are served; confirm it with WorkspaceService.ConfirmDeletions"
        );
        (MASS_DELETE_GUARD, message)
    };
    Some(Problem { resource: came.workspace.clone(), reason: reason.to_owned(), message, ..Problem::default() })
}

/// Under which of a closed list of labels a refusal is counted.
pub fn label(problems: &[Problem]) -> &'static str {
    let reasons = [
        (REVISION_BACKWARDS, "backwards"),
        (REVISION_FORKED, "forked"),
        (MASS_DELETE_GUARD, "mass_delete"),
        (CRASHED_APPLYING, "crashed"),
        (COMPILE_TIMEOUT, "timeout"),
        (DATA_KEY_UNREADABLE, "data_key"),
    ];
    let told = |reason: &str| problems.iter().any(|problem| problem.reason == reason);
    reasons.iter().find(|(reason, _)| told(reason)).map_or("invalid", |(_, label)| label)
}
