//! The snippets that a document's templates name, and those that these name (D26). Hides where they are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_core::template::Snippets;
use sluice_core::wire::References as _;
use sluice_proto::admin::v1::Snippet;
use sluice_proto::sync::v1::resource::Document;

use crate::error::Failure;
use crate::names::workspace_name;
use crate::resource::Resource as _;
use crate::store::Transaction;
use crate::stored::Stored;
use crate::together::in_force;

/// Which text of a snippet counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Its draft: what authors see while they write.
    Draft,
    /// What is in force: what data planes compile.
    InForce,
}

/// The name of a snippet.
pub(crate) fn name(workspace: &str, id: &str) -> String {
    format!("{}/{}/{id}", workspace_name(workspace), Snippet::COLLECTION)
}

/// Reads these snippets and all that they name. One that is not there is left out: whoever compiles finds that out.
pub(crate) async fn load(
    tx: &mut Transaction,
    workspace: &str,
    ids: Vec<String>,
    reading: Reading,
) -> Result<Arc<Snippets>, Failure> {
    let mut found = Snippets::new();
    for (id, snippet) in documents(tx, workspace, ids, reading).await? {
        found.set(&id, &snippet.text);
    }
    Ok(Arc::new(found))
}

/// Reads what [`load`] reads, by their ids.
pub(crate) async fn documents(
    tx: &mut Transaction,
    workspace: &str,
    mut ids: Vec<String>,
    reading: Reading,
) -> Result<BTreeMap<String, Snippet>, Failure> {
    let mut found = BTreeMap::new();
    while let Some(id) = ids.pop() {
        if found.contains_key(&id) {
            continue;
        }
        let Some(snippet) = read(tx, workspace, &name(workspace, &id), reading).await? else { continue };
        ids.extend(snippet.snippets());
        found.insert(id, snippet);
    }
    Ok(found)
}

async fn read(tx: &mut Transaction, workspace: &str, name: &str, reading: Reading) -> Result<Option<Snippet>, Failure> {
    Ok(match reading {
        Reading::Draft => match tx.document(workspace, name).await? {
            Some(row) if row.delete_time == 0 => Some(Stored::<Snippet>::of(row)?.draft),
            Some(_) | None => None,
        },
        Reading::InForce => match in_force(tx, workspace, name).await? {
            Some(Document::Snippet(snippet)) => Some(snippet),
            Some(_) | None => None,
        },
    })
}
