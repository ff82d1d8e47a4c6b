//! The forms of schema templates, as integrations take them (D25): drafts while authors write, the version in force when an
//! integration is published. Hides where they are kept.

use sluice_proto::admin::v1::{SchemaField, SchemaTemplate};

use crate::error::Failure;
use crate::names;
use crate::resource::Resource as _;
use crate::store::Transaction;
use crate::stored::{Stored, decode};

/// A form as an integration is published with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Form {
    /// The version of the schema template; 0: there is none.
    pub(crate) version: i64,
    /// Its fields.
    pub(crate) fields: Vec<SchemaField>,
}

/// The fields of the draft of the schema template among `references`; none when there is no such reference or it leads nowhere,
/// which is refused by whoever checks references.
pub(crate) async fn of_draft(
    tx: &mut Transaction,
    workspace: &str,
    references: &[(String, String)],
) -> Result<Vec<SchemaField>, Failure> {
    let is_schema = |name: &str| names::split(name).is_some_and(|(_, kind, _)| kind == SchemaTemplate::COLLECTION);
    let Some((_, name)) = references.iter().find(|(_, name)| is_schema(name)) else { return Ok(Vec::new()) };
    Ok(match tx.document(workspace, name).await? {
        Some(row) if row.delete_time == 0 => Stored::<SchemaTemplate>::of(row)?.draft.fields,
        Some(_) | None => Vec::new(),
    })
}

/// The form that the schema template `name` has in force; the default for no name, and for one that is not published.
pub(crate) async fn in_force(tx: &mut Transaction, workspace: &str, name: &str) -> Result<Form, Failure> {
    if name.is_empty() {
        return Ok(Form::default());
    }
    let version = tx.document(workspace, name).await?.map_or(0, |row| row.published_version);
    let Some(row) = tx.version(name, version).await? else { return Ok(Form::default()) };
    Ok(Form { version, fields: decode::<SchemaTemplate>(&row.resource)?.0.fields })
}
