//! Why a filter holds or does not: each condition by itself, with what it looked at, for authors.

use super::{Clause, Filter, Operator, Scalar};
use crate::cause::Cause;
use crate::path::{Found, Path};

/// What came of one condition.
#[derive(Clone, Debug)]
pub struct Explained<'f, 'e> {
    /// Its place, as the contract's fields lead to it: `all.filters[1].not.condition`.
    pub place: String,
    /// What it looks at.
    pub path: &'f Path,
    /// It holds by itself; a `not` around it is not counted.
    pub holds: bool,
    /// What is there.
    pub found: Vec<Found<'e>>,
}

impl Filter {
    /// Every condition, in the order of the filter.
    pub fn explain<'f, 'e>(&'f self, cause: impl Into<Cause<'e>>) -> Vec<Explained<'f, 'e>> {
        let mut explained = Vec::new();
        walk(self.clause(), cause.into(), "", &mut explained);
        explained
    }
}

fn walk<'f, 'e>(clause: &'f Clause, cause: Cause<'e>, within: &str, explained: &mut Vec<Explained<'f, 'e>>) {
    match clause {
        Clause::All(members) => walk_group("all", members, cause, within, explained),
        Clause::Any(members) => walk_group("any", members, cause, within, explained),
        Clause::Not(inner) => walk(inner, cause, &format!("{within}not."), explained),
        Clause::Condition { path, operator } => {
            let found = path.resolve(cause);
            let holds = operator.holds_for(&found);
            explained.push(Explained { place: format!("{within}condition"), path, holds, found });
        }
    }
}

fn walk_group<'f, 'e>(
    name: &str,
    members: &'f [Clause],
    cause: Cause<'e>,
    within: &str,
    explained: &mut Vec<Explained<'f, 'e>>,
) {
    for (index, member) in members.iter().enumerate() {
        walk(member, cause, &format!("{within}{name}.filters[{index}]."), explained);
    }
}

impl Operator {
    /// Whether it holds for what a path leads to.
    pub(super) fn holds_for(&self, found: &[Found<'_>]) -> bool {
        match self {
            Self::DoesNotExist => found.is_empty(),
            _ => found.iter().any(|found| self.holds(Scalar::of(found))),
        }
    }
}
