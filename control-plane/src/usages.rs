//! Who uses a document and what it uses.

use sluice_proto::admin::v1::{FindUsagesRequest, FindUsagesResponse, Usage, UsageDirection};

use crate::error::Failure;
use crate::names;
use crate::paging::List;
use crate::shared::Shared;
use crate::store::UsageRow;

/// One page of usages.
pub(crate) async fn find(shared: &Shared, asked: &FindUsagesRequest) -> Result<FindUsagesResponse, Failure> {
    let Some((workspace, ..)) = names::split(&asked.name) else {
        return Err(Failure::field("name", "NAME_INVALID", "must be `workspaces/{workspace}/{collection}/{id}`"));
    };
    let mut tx = shared.store.read().await?;
    let row = tx.document(workspace, &asked.name).await?.ok_or_else(|| Failure::NotFound(asked.name.clone()))?;
    let direction = match asked.direction() {
        UsageDirection::Unspecified => {
            return Err(Failure::field("direction", "REQUIRED", "one of USED_BY, USES is required"));
        }
        direction @ (UsageDirection::UsedBy | UsageDirection::Uses) => direction,
    };
    let list = List::new(&shared.secrets, &["usages", &row.uid, direction.as_str_name()]);
    let page = list.page(asked.page_size, &asked.page_token)?;
    let after = page.after.as_deref().unwrap_or_default();
    let mut rows = match direction {
        UsageDirection::Uses => tx.usages_by(&asked.name, after, page.limit()).await?,
        UsageDirection::UsedBy | UsageDirection::Unspecified => tx.usages_of(&asked.name, after, page.limit()).await?,
    };
    let next_page_token = list.cut(&page, &mut rows, |row| row.name.len(), |row| row.name.clone());
    let usage = |UsageRow { name, in_draft, in_force }| Usage { name, in_draft, in_force };
    Ok(FindUsagesResponse { usages: rows.into_iter().map(usage).collect(), next_page_token })
}
