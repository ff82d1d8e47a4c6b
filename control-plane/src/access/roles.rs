//! Permissions, the roles that come with the program (F30, F41), and what a list of grants allows.
//!
//! Grants are stored as a text of words: a permission, or `@role` for a built-in role, so that a newer program's roles are in force
//! for keys that an older one made.

use std::collections::BTreeSet;

/// Lets a sender log in at a data plane and trigger endpoints that ask for a token (D14). No method of this API asks for it, and
/// whoever may make keys may give it.
pub(crate) const WEBHOOK: &str = "INCOMING_WEBHOOK_EXECUTE";

/// A role that comes with the program.
#[derive(Debug)]
pub(crate) struct BuiltIn {
    pub(crate) id: &'static str,
    pub(crate) display_name: &'static str,
    /// For keys of the server only.
    pub(crate) server_only: bool,
    /// Patterns, in which one `*` stands for anything.
    given: &'static [&'static str],
    /// Patterns of what is not given all the same.
    taken: &'static [&'static str],
}

/// What only roles that name it have: access itself, connections with their secrets, the server, and the workspace as a whole.
const RESERVED: &[&str] = &[
    "connections.*",
    "secrets.*",
    "apiKeys.*",
    "roles.*",
    "serviceAccounts.*",
    "auditEntries.*",
    "masterKeys.*",
    "dataPlanes.*",
    "joinTokens.*",
    "sync.*",
    "workspaces.create",
    "workspaces.update",
    "workspaces.delete",
];

macro_rules! role {
    ($id:literal, $display_name:literal, [$($given:literal),*], $taken:expr) => {
        BuiltIn { id: $id, display_name: $display_name, server_only: false, given: &[$($given),*], taken: $taken }
    };
}

/// In order of their ids.
pub(crate) const BUILT_IN: &[BuiltIn] = &[
    role!("admin", "Administrator", ["*"], &["sync.*", WEBHOOK]),
    role!("auditor", "Auditor", ["auditEntries.*"], &[]),
    role!(
        "connection-creator",
        "Creates connections",
        ["connections.get", "connections.list", "connections.create"],
        &[]
    ),
    role!(
        "connection-deleter",
        "Deletes connections",
        ["connections.get", "connections.list", "connections.delete"],
        &[]
    ),
    role!(
        "connection-editor",
        "Edits connections",
        ["connections.get", "connections.list", "connections.update", "secrets.*"],
        &[]
    ),
    role!("connection-executor", "Uses connections", ["connections.get", "connections.list", "connections.test"], &[]),
    role!("connection-reader", "Sees connections", ["connections.get", "connections.list", "secrets.get"], &[]),
    BuiltIn { id: "data-plane", display_name: "Data plane", server_only: true, given: &["sync.*"], taken: &[] },
    role!(
        "editor",
        "Editor",
        [
            "*.get",
            "*.list",
            "*.watch",
            "*.findUsages",
            "*.waitServed",
            "*.create",
            "*.update",
            "*.delete",
            "tests.send"
        ],
        RESERVED
    ),
    role!("event-sender", "Submits events", ["events.submit"], &[]),
    role!(
        "operator",
        "Operator",
        ["*.get", "*.list", "*.watch", "*.findUsages", "*.waitServed", "deliveries.*", "operations.*"],
        RESERVED
    ),
    role!(
        "publisher",
        "Publisher",
        ["*.get", "*.list", "*.watch", "*.findUsages", "*.waitServed", "*.publish", "*.rollback"],
        RESERVED
    ),
    role!("viewer", "Viewer", ["*.get", "*.list", "*.watch", "*.findUsages", "*.waitServed"], RESERVED),
    role!("webhook-sender", "Triggers endpoints", ["INCOMING_WEBHOOK_EXECUTE"], &[]),
];

impl BuiltIn {
    fn allows(&self, permission: &str) -> bool {
        let any = |patterns: &[&str]| patterns.iter().any(|pattern| matches(pattern, permission));
        any(self.given) && !any(self.taken)
    }

    /// Everything it allows.
    pub(crate) fn permissions(&self) -> Vec<String> {
        permissions().into_iter().filter(|permission| self.allows(permission)).map(str::to_owned).collect()
    }
}

/// The built-in role with this id.
pub(crate) fn built_in(id: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|role| role.id == id)
}

/// Every permission there is.
pub(crate) fn permissions() -> BTreeSet<&'static str> {
    sluice_proto::PERMISSIONS.iter().map(|(_, permission)| *permission).chain([WEBHOOK]).collect()
}

/// Whether these grants allow it.
pub(crate) fn allows(grants: &str, permission: &str) -> bool {
    grants.split(' ').any(|grant| match grant.strip_prefix('@') {
        Some(role) => built_in(role).is_some_and(|role| role.allows(permission)),
        None => !grant.is_empty() && grant == permission,
    })
}

/// Everything these grants allow.
pub(crate) fn allowed(grants: &str) -> Vec<&'static str> {
    permissions().into_iter().filter(|permission| allows(grants, permission)).collect()
}

fn matches(pattern: &str, permission: &str) -> bool {
    match pattern.split_once('*') {
        Some((head, tail)) => {
            permission.len() >= head.len() + tail.len() && permission.starts_with(head) && permission.ends_with(tail)
        }
        None => permission == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(allows("@admin", "connections.create") && allows("@admin", "workspaces.list"));
        assert!(!allows("@admin", "sync.configuration") && !allows("@admin", "sync.report"));
        assert!(allows("@data-plane", "sync.report") && !allows("@data-plane", "connections.get"));
        assert!(!allows("@data-plane", "synchronise"));
        assert!(allows("connections.get", "connections.get") && !allows("connections.get", "connections.getAll"));
        assert!(allows("@auditor connections.get", "connections.get") && !allows("@none x", "connections.get"));
        assert!(!allows("", "connections.get") && !allows("*", "connections.get") && !allows("", ""));
        assert!(matches("*.get", "a.get") && !matches("*.get", "a.gets") && !matches("ab*bc", "abc"));
    }

    #[test]
    fn every_admin_method_is_for_admins_and_every_sync_method_for_data_planes() {
        for (method, permission) in sluice_proto::PERMISSIONS {
            let sync = method.starts_with("/sluice.sync.");
            assert_eq!((allows("@admin", permission), allows("@data-plane", permission)), (!sync, sync), "{method}");
        }
    }

    #[test]
    fn roles_are_in_order_and_only_administrators_decide_about_access() {
        assert!(BUILT_IN.windows(2).all(|two| two[0].id < two[1].id));
        for role in BUILT_IN.iter().filter(|role| role.id != "admin") {
            let access = ["apiKeys.", "roles.", "serviceAccounts.", "masterKeys.", "workspaces.delete"];
            let permissions = role.permissions();
            assert!(!permissions.iter().any(|one| access.iter().any(|prefix| one.starts_with(prefix))), "{}", role.id);
        }
        assert!(allows("@webhook-sender", WEBHOOK) && !allows("@admin", WEBHOOK));
    }
}
