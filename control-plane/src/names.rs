//! Resource names: `workspaces/{workspace}` and `workspaces/{workspace}/{collection}/{id}`.

use sluice_core::validate::resource_id;

use crate::error::Failure;

/// A resource inside a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// The id of the workspace.
    pub(crate) workspace: String,
    /// The whole name.
    pub(crate) full: String,
}

/// The name of the workspace with this id.
pub(crate) fn workspace_name(id: &str) -> String {
    format!("workspaces/{id}")
}

/// The id in `workspaces/{workspace}`; `field` is where the name was given.
pub(crate) fn workspace_id(name: &str, field: &str) -> Result<String, Failure> {
    match name.strip_prefix("workspaces/") {
        Some(id) if resource_id(id).is_ok() => Ok(id.to_owned()),
        _ => Err(Failure::field(field, "NAME_INVALID", "must be `workspaces/{workspace}`")),
    }
}

/// Reads `workspaces/{workspace}/{collection}/{id}`; `field` is where it was given. What the id looks like is left to who made it.
pub(crate) fn parse(name: &str, collection: &str, field: &str) -> Result<Name, Failure> {
    split(name).filter(|(_, found, _)| *found == collection).map_or_else(
        || {
            let message = format!("must be `workspaces/{{workspace}}/{collection}/{{id}}`");
            Err(Failure::field(field, "NAME_INVALID", message))
        },
        |(workspace, _, _)| Ok(Name { workspace: workspace.to_owned(), full: name.to_owned() }),
    )
}

/// Workspace, collection and id of a name.
pub(crate) fn split(name: &str) -> Option<(&str, &str, &str)> {
    let (workspace, rest) = name.strip_prefix("workspaces/")?.split_once('/')?;
    let (collection, id) = rest.split_once('/')?;
    let plain =
        !id.is_empty() && id.len() <= 128 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    (resource_id(workspace).is_ok() && plain).then_some((workspace, collection, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = parse("workspaces/abc/connections/crm", "connections", "name").unwrap();
        assert_eq!((name.workspace.as_str(), name.full.as_str()), ("abc", "workspaces/abc/connections/crm"));
        let ids = ["", "/", "a/b", "x'; DROP TABLE document;--", "a\0b", "ä", "\u{202e}abc"];
        for bad in ids.map(|id| format!("workspaces/abc/connections/{id}")).iter().map(String::as_str).chain([
            "",
            "workspaces/abc",
            "workspaces/abc/workflows/crm",
            "workspaces//connections/crm",
            "workspaces/ABC/connections/crm",
            "/workspaces/abc/connections/crm",
        ]) {
            assert!(parse(bad, "connections", "name").is_err(), "{bad:?}");
        }
        assert_eq!(workspace_id("workspaces/abc", "name").unwrap(), "abc");
        for bad in ["", "abc", "workspaces/", "workspaces/abc/", "workspaces/-", "workspaces/abc/x/y"] {
            assert!(workspace_id(bad, "name").is_err(), "{bad:?}");
        }
    }
}
