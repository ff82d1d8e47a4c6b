//! What a certificate is good for: whose it is, whether it still counts, and which workspaces its data plane sees (A15).

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_tls::identity::Identity;

use super::GRACE;
use crate::error::{CertificateProblem, Failure};
use crate::names::workspace_name;
use crate::shared::Shared;
use crate::store::EnrolledRow;

/// The workspaces that a data plane sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All there are and will be.
    #[default]
    All,
    /// Those with these names.
    Only(Arc<BTreeSet<String>>),
}

impl Scope {
    /// As it is stored: ids, or `-` for all.
    pub(super) fn stored(text: &str) -> Self {
        match text {
            "-" => Self::All,
            ids => Self::Only(Arc::new(ids.split_ascii_whitespace().map(workspace_name).collect())),
        }
    }

    /// The other way round as [`Scope::names`].
    pub(crate) fn of_names(names: Vec<String>) -> Self {
        match names.as_slice() {
            [all] if *all == workspace_name("-") => Self::All,
            _ => Self::Only(Arc::new(names.into_iter().collect())),
        }
    }

    /// Whether the workspace with this name is one of them.
    pub(crate) fn sees(&self, workspace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(workspace),
        }
    }

    /// Whether there may be a workspace that both see.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Only(one), Self::Only(other)) => !one.is_disjoint(other),
            (Self::All, _) | (_, Self::All) => true,
        }
    }

    /// Their names, as they are asked for and shown.
    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::All => vec![workspace_name("-")],
            Self::Only(names) => names.iter().cloned().collect(),
        }
    }
}

/// Who a caller of the sync service is, and what it may see. A key of the one machine is nobody in particular and sees everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rights {
    identity: Option<Identity>,
    pub(crate) scope: Scope,
}

impl Rights {
    /// Who the certificate names; `None` for a key.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Refuses to speak for a data plane that the certificate does not name.
    pub(crate) fn check_id(&self, data_plane_id: &str) -> Result<(), Failure> {
        let is_other = self.identity.as_ref().is_some_and(|identity| identity.id != data_plane_id);
        if is_other { Err(Failure::CertificateInvalid(CertificateProblem::OtherId)) } else { Ok(()) }
    }

    /// Whether they still hold: a data plane may be deleted, and its certificate end, while a stream of it lives.
    pub(crate) async fn check(&self, shared: &Shared) -> Result<(), Failure> {
        match &self.identity {
            Some(identity) => authenticate(shared, identity, false).await.map(drop),
            None => Ok(()),
        }
    }
}

/// The rights of who has shown this certificate, which the authority vouches for; one that has just expired only for `renewing` it.
pub(crate) async fn authenticate(shared: &Shared, identity: &Identity, renewing: bool) -> Result<Rights, Failure> {
    let row = shared.store.read().await?.enrolled(&identity.id).await?;
    match problem(row.as_ref(), identity, shared.settings.clock.now(), renewing) {
        Some(problem) => Err(Failure::CertificateInvalid(problem)),
        None => Ok(Rights {
            identity: Some(identity.clone()),
            scope: Scope::stored(row.as_ref().map_or("", |row| row.workspaces.as_str())),
        }),
    }
}

fn problem(row: Option<&EnrolledRow>, identity: &Identity, now: i64, renewing: bool) -> Option<CertificateProblem> {
    let grace = if renewing { i64::try_from(GRACE.as_millis()).unwrap_or(i64::MAX) } else { 0 };
    if row.is_none_or(|row| row.enrolment != identity.enrolment) {
        Some(CertificateProblem::Revoked)
    } else if identity.end.saturating_add(grace) <= now {
        Some(CertificateProblem::Expired)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_counts_until_it_ends_and_for_renewing_for_a_week_more() {
        let row = EnrolledRow {
            id: "dp".to_owned(),
            enrolment: vec![1; 8],
            workspaces: "abc".to_owned(),
            enroll_time: 0,
            renew_time: 0,
            expire_time: 0,
        };
        let identity = Identity { id: "dp".to_owned(), enrolment: [1; 8], begin: 0, end: 1000 };
        let week = i64::try_from(GRACE.as_millis()).unwrap();
        for (now, renewing, expected) in [
            (999, false, None),
            (1000, false, Some(CertificateProblem::Expired)),
            (1000, true, None),
            (999 + week, true, None),
            (1000 + week, true, Some(CertificateProblem::Expired)),
        ] {
            assert_eq!(problem(Some(&row), &identity, now, renewing), expected, "{now} {renewing}");
        }
        let again = EnrolledRow { enrolment: vec![2; 8], ..row };
        for row in [Some(&again), None] {
            assert_eq!(problem(row, &identity, 5, true), Some(CertificateProblem::Revoked), "joined again, or gone");
        }
    }

    #[test]
    fn a_scope_is_read_as_it_is_stored() {
        assert!(Scope::stored("-").sees("workspaces/abc"));
        let two = Scope::stored("abc def");
        assert!(two.sees("workspaces/abc") && two.sees("workspaces/def"));
        for other in ["workspaces/ab", "workspaces/-", "", "abc"] {
            assert!(!two.sees(other) && !Scope::stored("").sees(other), "{other}");
        }
        assert_eq!(two.names(), ["workspaces/abc", "workspaces/def"]);
        assert_eq!(Scope::All.names(), ["workspaces/-"]);
        for scope in [Scope::All, two, Scope::stored("")] {
            assert_eq!(Scope::of_names(scope.names()).names(), scope.names());
        }
    }
}
