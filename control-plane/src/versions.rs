//! The numbered versions of a document, the same for all kinds that are published: listed, read, compared with each other and
//! with the draft, and brought back.

use prost::Message as _;
use sluice_proto::admin::v1::{FieldChange, RollbackVersionResponse, Version};

use crate::call::{Begun, Call};
use crate::clock::timestamp;
use crate::error::Failure;
use crate::fields::{differences, tree};
use crate::lifecycle::{READ_AT_ONCE, lock, save, settle, shown};
use crate::listing::{Listing, Query};
use crate::names::{self, Name};
use crate::publish::put_in_force;
use crate::resource::{Stamp, Versioned};
use crate::shared::Shared;
use crate::store::{Transaction, VersionRow};
use crate::stored::{Stored, decode, drop_icon};

/// What lists show.
const VERSION: &str = "sluice.admin.v1.Version";

/// Reads `{document}/versions/{number}`; `field` is where it was given.
pub(crate) fn split<'a>(name: &'a str, field: &str) -> Result<(&'a str, i64), Failure> {
    let parts = name.rsplit_once("/versions/");
    let number = |text: &str| text.parse().ok().filter(|number: &i64| *number > 0 && number.to_string() == text);
    parts.and_then(|(document, text)| Some((document, number(text)?))).ok_or_else(|| {
        let message = "must be `workspaces/{workspace}/{collection}/{id}/versions/{number}`";
        Failure::field(field, "NAME_INVALID", message)
    })
}

/// The versions of `parent`, and the token of the next page. There are as many as are kept, so all of them are looked at.
pub(crate) async fn list<R: Versioned>(
    shared: &Shared,
    parent: &str,
    query: Query<'_>,
) -> Result<(Vec<Version>, String), Failure> {
    let name = names::parse(parent, R::COLLECTION, "parent")?;
    let mut tx = shared.store.read().await?;
    let stored = Stored::<R>::find(&mut tx, &name, "").await?;
    let mut listing = Listing::new(&shared.secrets, VERSION, &["versions", &stored.row.uid], query)?;
    let mut before = i64::MAX;
    loop {
        let rows = tx.versions(&name.full, before, READ_AT_ONCE).await?;
        let Some(last) = rows.last().map(|row| row.version) else { break };
        for row in rows {
            let shown = present(&stored, &row);
            listing.offer(&shown.name.clone(), &tree(VERSION, &shown)?, shown.encoded_len(), shown);
        }
        before = last;
    }
    Ok(listing.finish())
}

/// One version with its document.
pub(crate) async fn get<R: Versioned>(shared: &Shared, document: &str, number: i64) -> Result<Version, Failure> {
    let name = names::parse(document, R::COLLECTION, "name")?;
    let mut tx = shared.store.read().await?;
    let stored = Stored::<R>::find(&mut tx, &name, "").await?;
    let row = version(&mut tx, &name, number).await?;
    let document = decode::<R>(&row.resource)?.0.into_versioned();
    Ok(Version { document: Some(document), ..present(&stored, &row) })
}

/// What differs between two versions; the draft is number 0.
pub(crate) async fn diff<R: Versioned>(
    shared: &Shared,
    document: &str,
    [from, to]: [i64; 2],
) -> Result<Vec<FieldChange>, Failure> {
    let name = names::parse(document, R::COLLECTION, "name")?;
    let mut tx = shared.store.read().await?;
    let stored = Stored::<R>::find(&mut tx, &name, "").await?;
    let mut sides = Vec::new();
    for (field, number) in [("from_version", from), ("to_version", to)] {
        let document = match number {
            0 => {
                let mut draft = stored.draft.clone();
                drop_icon(&mut draft);
                draft
            }
            1.. => content::<R>(&mut tx, &name, number).await?,
            _ => return Err(Failure::field(field, "OUT_OF_RANGE", "must be the number of a version, or 0: the draft")),
        };
        sides.push(tree(R::MESSAGE, &document)?);
    }
    Ok(sides.first().zip(sides.last()).map(|(old, new)| differences(old, new)).unwrap_or_default())
}

/// Makes the draft equal to a version and, if asked, puts it in force under the next number.
pub(crate) async fn rollback<R: Versioned>(
    shared: &Shared,
    call: Call,
    (document, number): (&str, i64),
    etag: &str,
    publish: bool,
) -> Result<RollbackVersionResponse, Failure> {
    let name = names::parse(document, R::COLLECTION, "name")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let mut workspace = lock(&mut change, &name.workspace, &name.full).await?;
    let mut stored = Stored::<R>::load(&mut change.tx, &name, etag).await?;
    let mut wanted = content::<R>(&mut change.tx, &name, number).await?;
    // An icon is no part of versions.
    if R::MUTABLE.contains(&"icon") {
        wanted.copy("icon", &stored.draft);
    }
    let before = Some((&stored.draft, stored.secrets.as_slice()));
    let (draft, taken) = settle(shared, &mut change, &name, wanted, before).await?;
    if draft != stored.draft {
        save(shared, &mut change, &mut workspace, &mut stored, draft, taken).await?;
    }
    if publish {
        put_in_force(shared, &mut change, &mut workspace, &mut stored).await?;
    }
    let document = Some(shown(&change, &stored).into_versioned());
    change.finish(shared, RollbackVersionResponse { document }).await
}

async fn version(tx: &mut Transaction, name: &Name, number: i64) -> Result<VersionRow, Failure> {
    if let Some(row) = tx.version(&name.full, number).await? {
        return Ok(row);
    }
    let named = format!("{}/versions/{number}", name.full);
    let was_there = tx.document(&name.workspace, &name.full).await?.is_some_and(|row| number <= row.last_version);
    Err(if was_there { Failure::VersionNotKept(named) } else { Failure::NotFound(named) })
}

/// The document of a version without what the server writes into it.
pub(crate) async fn content<R: Versioned>(tx: &mut Transaction, name: &Name, number: i64) -> Result<R, Failure> {
    let row = version(tx, name, number).await?;
    let (mut document, _) = decode::<R>(&row.resource)?;
    document.stamp(Stamp::default());
    document.embed(Vec::new());
    Ok(document)
}

fn present<R: Versioned>(stored: &Stored<R>, row: &VersionRow) -> Version {
    Version {
        name: format!("{}/versions/{}", stored.row.name, row.version),
        number: row.version,
        create_time: Some(timestamp(row.create_time)),
        in_force: row.version == stored.row.published_version,
        document: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_versions() {
        assert_eq!(split("workspaces/abc/workflows/flow/versions/12", "name").unwrap().1, 12);
        for bad in
            ["", "workspaces/abc/workflows/flow", "x/versions/", "x/versions/0", "x/versions/-1", "x/versions/01"]
        {
            assert!(split(bad, "name").is_err(), "{bad}");
        }
    }
}
