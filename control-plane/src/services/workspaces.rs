//! Workspaces: the tenant boundary, each with a data key and a number of its own.

use prost::Message as _;
use sluice_core::snapshot::digest;
use sluice_core::validate;
use sluice_core::validate::resource_id;
use sluice_proto::admin::v1::workspace_service_server::WorkspaceService;
use sluice_proto::admin::v1::{
    ConfirmDeletionsRequest, ConfirmDeletionsResponse, CreateWorkspaceRequest, DeleteWorkspaceRequest,
    DeleteWorkspaceResponse, GetWorkspaceRequest, ListWorkspacesRequest, ListWorkspacesResponse, RotateDataKeyRequest,
    RotateDataKeyResponse, UndeleteWorkspaceRequest, UpdateWorkspaceRequest, Workspace,
};
use tonic::{Request, async_trait};
use uuid::Uuid;

use super::{Answer, Services, pack};
use crate::call::{Begun, Call, Change};
use crate::clock::timestamp;
use crate::data_keys;
use crate::error::{Failure, violation};
use crate::fields::tree;
use crate::levels::FIRST;
use crate::lifecycle::{READ_AT_ONCE, USERS_NAMED, lock};
use crate::listing::{Listing, query};
use crate::names::{workspace_id, workspace_name};
use crate::publish::commit_revision;
use crate::serving::revision_of;
use crate::shared::Shared;
use crate::store::WorkspaceRow;
use crate::stored::{delete_time, etag, purge_time};

#[async_trait]
impl WorkspaceService for Services {
    async fn create_workspace(&self, request: Request<CreateWorkspaceRequest>) -> Answer<Workspace> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(create(&self.0, call, asked).await)
    }

    async fn get_workspace(&self, request: Request<GetWorkspaceRequest>) -> Answer<Workspace> {
        pack(get(&self.0, &request.get_ref().name).await)
    }

    async fn list_workspaces(&self, request: Request<ListWorkspacesRequest>) -> Answer<ListWorkspacesResponse> {
        pack(list(&self.0, request.get_ref()).await)
    }

    async fn update_workspace(&self, request: Request<UpdateWorkspaceRequest>) -> Answer<Workspace> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(update(&self.0, call, asked).await)
    }

    async fn delete_workspace(&self, request: Request<DeleteWorkspaceRequest>) -> Answer<DeleteWorkspaceResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(delete(&self.0, call, &asked).await)
    }

    async fn undelete_workspace(&self, request: Request<UndeleteWorkspaceRequest>) -> Answer<Workspace> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(undelete(&self.0, call, &asked).await)
    }

    async fn rotate_data_key(&self, request: Request<RotateDataKeyRequest>) -> Answer<RotateDataKeyResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(data_keys::rotate(&self.0, call, &asked).await)
    }

    async fn confirm_deletions(&self, request: Request<ConfirmDeletionsRequest>) -> Answer<ConfirmDeletionsResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(confirm_deletions(&self.0, call, &asked).await)
    }
}

/// The full name of the message.
const MESSAGE: &str = "sluice.admin.v1.Workspace";

fn present(row: &WorkspaceRow) -> Workspace {
    Workspace {
        name: workspace_name(&row.id),
        uid: row.uid.clone(),
        etag: etag(&row.uid, row.saves),
        display_name: row.display_name.clone(),
        business_profile_id: row.business_profile_id,
        revision: row.revision,
        create_time: Some(timestamp(row.create_time)),
        update_time: Some(timestamp(row.update_time)),
        delete_time: delete_time(row.delete_time),
        purge_time: purge_time(row.delete_time),
    }
}

async fn create(shared: &Shared, call: Call, asked: CreateWorkspaceRequest) -> Result<Workspace, Failure> {
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let id = if asked.workspace_id.is_empty() { format!("w-{}", Uuid::new_v4().simple()) } else { asked.workspace_id };
    if let Err(message) = resource_id(&id) {
        change.found.push(violation("workspace_id", "ID_INVALID", message));
    } else if let Some(row) = change.tx.workspace_or_deleted(&id).await? {
        let name = workspace_name(&id);
        return Err(if row.delete_time > 0 { Failure::Deleted(name) } else { Failure::Exists(name) });
    }
    match &asked.workspace {
        Some(workspace) => change.found.extend(validate::workspace(workspace)),
        None => change.found.push(violation("workspace", "REQUIRED", "is required")),
    }
    change.refuse_broken()?;
    let row = WorkspaceRow {
        uid: Uuid::new_v4().to_string(),
        display_name: asked.workspace.unwrap_or_default().display_name,
        business_profile_id: change.tx.business_profile_id_next().await?,
        // A data plane may still hold the workspace that had this id before, and goes forward only.
        revision: change.tx.tombstone_take(&id).await?,
        digest: digest([].into_iter()).to_vec(),
        data_key: shared.secrets.data_key_new(&workspace_name(&id))?,
        old_data_key: None,
        saves: 1,
        create_time: change.now,
        update_time: change.now,
        delete_time: 0,
        seen_ahead: 0,
        config_level: FIRST,
        id,
    };
    change.tx.workspace_insert(&row).await?;
    let mut answer = present(&row);
    if change.validate_only() {
        answer = Workspace { name: answer.name, display_name: answer.display_name, ..Workspace::default() };
    }
    change.finish(shared, answer).await
}

async fn get(shared: &Shared, name: &str) -> Result<Workspace, Failure> {
    let id = workspace_id(name, "name")?;
    let row = shared.store.read().await?.workspace_or_deleted(&id).await?;
    row.as_ref().map(present).ok_or_else(|| Failure::NotFound(name.to_owned()))
}

async fn list(shared: &Shared, asked: &ListWorkspacesRequest) -> Result<ListWorkspacesResponse, Failure> {
    let mut listing = Listing::new(&shared.secrets, MESSAGE, &["workspaces"], query!(asked))?;
    let mut tx = shared.store.read().await?;
    let mut after = listing.by_name().and_then(|name| name.strip_prefix("workspaces/")).unwrap_or_default().to_owned();
    loop {
        let rows = tx.workspaces(&after, asked.show_deleted, READ_AT_ONCE).await?;
        let Some(last) = rows.last().map(|row| row.id.clone()) else { break };
        for workspace in rows.iter().map(present) {
            listing.offer(&workspace.name.clone(), &tree(MESSAGE, &workspace)?, workspace.encoded_len(), workspace);
        }
        if listing.by_name().is_some() && listing.is_full() {
            break;
        }
        after = last;
    }
    let (workspaces, next_page_token) = listing.finish();
    Ok(ListWorkspacesResponse { workspaces, next_page_token })
}

/// Takes the workspace and compares its etag.
async fn take(change: &mut Change, name: &str, id: &str, wanted_etag: &str) -> Result<WorkspaceRow, Failure> {
    let row = lock(change, id, name).await?;
    refuse_stale(&row, name, wanted_etag)?;
    Ok(row)
}

fn refuse_stale(row: &WorkspaceRow, name: &str, wanted_etag: &str) -> Result<(), Failure> {
    let is_current = wanted_etag.is_empty() || wanted_etag == etag(&row.uid, row.saves);
    if is_current { Ok(()) } else { Err(Failure::EtagMismatch(name.to_owned())) }
}

async fn update(shared: &Shared, call: Call, asked: UpdateWorkspaceRequest) -> Result<Workspace, Failure> {
    let wanted = asked.workspace.ok_or_else(|| Failure::field("workspace", "REQUIRED", "is required"))?;
    let id = workspace_id(&wanted.name, "name")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let mut row = take(&mut change, &wanted.name, &id, &wanted.etag).await?;
    change.found.extend(validate::workspace(&wanted));
    let paths = asked.update_mask.unwrap_or_default().paths;
    for path in paths.iter().filter(|path| !["display_name", "*"].contains(&path.as_str())) {
        let message = format!("`{path}` is not a field that can be changed; that is display_name");
        change.found.push(violation("update_mask", "PATH_INVALID", message));
    }
    change.refuse_broken()?;
    if row.display_name != wanted.display_name {
        row.display_name = wanted.display_name;
        row.saves += 1;
        row.update_time = change.now;
        change.tx.workspace_update(&row).await?;
    }
    let mut answer = present(&row);
    if change.validate_only() {
        answer.etag.clear();
    }
    change.finish(shared, answer).await
}

async fn delete(
    shared: &Shared,
    call: Call,
    asked: &DeleteWorkspaceRequest,
) -> Result<DeleteWorkspaceResponse, Failure> {
    let id = workspace_id(&asked.name, "name")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let mut row = take(&mut change, &asked.name, &id, &asked.etag).await?;
    let documents = change.tx.document_names(&id, USERS_NAMED).await?;
    if !documents.is_empty() {
        return Err(Failure::WorkspaceNotEmpty { name: asked.name.clone(), documents });
    }
    (row.delete_time, row.update_time, row.saves) = (change.now, change.now, row.saves + 1);
    change.tx.workspace_update(&row).await?;
    change.finish(shared, DeleteWorkspaceResponse {}).await
}

async fn undelete(shared: &Shared, call: Call, asked: &UndeleteWorkspaceRequest) -> Result<Workspace, Failure> {
    let id = workspace_id(&asked.name, "name")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let row = change.tx.workspace_locked(&id).await?;
    let mut row = row.ok_or_else(|| Failure::NotFound(asked.name.clone()))?;
    refuse_stale(&row, &asked.name, &asked.etag)?;
    if row.delete_time == 0 {
        return Err(Failure::Exists(asked.name.clone()));
    }
    (row.delete_time, row.update_time, row.saves) = (0, change.now, row.saves + 1);
    // Data planes have dropped it and take it again as something new.
    commit_revision(&mut change.tx, &mut row, Vec::new(), Vec::new(), change.now).await?;
    let mut answer = present(&row);
    if change.validate_only() {
        answer.etag.clear();
    }
    change.finish(shared, answer).await
}

/// Lets data planes take a revision that takes most of the workspace away.
async fn confirm_deletions(
    shared: &Shared,
    call: Call,
    asked: &ConfirmDeletionsRequest,
) -> Result<ConfirmDeletionsResponse, Failure> {
    let id = workspace_id(&asked.name, "name")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let newest = lock(&mut change, &id, &asked.name).await?.revision;
    let revision = revision_of(asked.revision, newest)?;
    change.tx.deletes_confirm(&id, revision).await?;
    change.finish(shared, ConfirmDeletionsResponse { revision }).await
}
