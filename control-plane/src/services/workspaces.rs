//! Workspaces: the tenant boundary, each with a data key and a number of its own.

use sluice_core::snapshot::digest;
use sluice_core::validate;
use sluice_core::validate::resource_id;
use sluice_proto::admin::v1::workspace_service_server::WorkspaceService;
use sluice_proto::admin::v1::{
    CreateWorkspaceRequest, DeleteWorkspaceRequest, DeleteWorkspaceResponse, GetWorkspaceRequest,
    ListWorkspacesRequest, ListWorkspacesResponse, UpdateWorkspaceRequest, Workspace,
};
use tonic::{Request, async_trait};
use uuid::Uuid;

use super::{Answer, Services, pack};
use crate::call::{Begun, Call, Change};
use crate::clock::timestamp;
use crate::error::{Failure, violation};
use crate::lifecycle::{USERS_NAMED, lock};
use crate::names::{workspace_id, workspace_name};
use crate::paging::List;
use crate::shared::Shared;
use crate::store::WorkspaceRow;
use crate::stored::etag;

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
}

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
    } else if change.tx.workspace(&id).await?.is_some() {
        return Err(Failure::Exists(workspace_name(&id)));
    }
    match &asked.workspace {
        Some(workspace) => change.found.extend(validate::workspace(workspace)),
        None => change.found.push(violation("workspace", "REQUIRED", "is required")),
    }
    change.refuse_broken()?;
    let key = shared.secrets.data_key_new(&workspace_name(&id))?;
    let row = WorkspaceRow {
        uid: Uuid::new_v4().to_string(),
        display_name: asked.workspace.unwrap_or_default().display_name,
        business_profile_id: change.tx.business_profile_id_next().await?,
        // A data plane may still hold the workspace that had this id before, and goes forward only.
        revision: change.tx.tombstone_take(&id).await?,
        digest: digest([].into_iter()).to_vec(),
        key_id: key.key_id,
        wrapped_key: key.ciphertext.into(),
        saves: 1,
        create_time: change.now,
        update_time: change.now,
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
    let row = shared.store.read().await?.workspace(&id).await?;
    row.as_ref().map(present).ok_or_else(|| Failure::NotFound(name.to_owned()))
}

async fn list(shared: &Shared, asked: &ListWorkspacesRequest) -> Result<ListWorkspacesResponse, Failure> {
    let list = List::new(&shared.secrets, &["workspaces"]);
    let page = list.page(asked.page_size, &asked.page_token)?;
    let after = page.after.as_deref().unwrap_or_default();
    let mut rows = shared.store.read().await?.workspaces(after, page.limit()).await?;
    let next_page_token = list.cut(&page, &mut rows, |row| row.display_name.len(), |row| row.id.clone());
    Ok(ListWorkspacesResponse { workspaces: rows.iter().map(present).collect(), next_page_token })
}

/// Takes the workspace and compares its etag.
async fn take(change: &mut Change, name: &str, id: &str, wanted_etag: &str) -> Result<WorkspaceRow, Failure> {
    let row = lock(change, id, name).await?;
    if !wanted_etag.is_empty() && wanted_etag != etag(&row.uid, row.saves) {
        return Err(Failure::EtagMismatch(name.to_owned()));
    }
    Ok(row)
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
    let row = take(&mut change, &asked.name, &id, &asked.etag).await?;
    let documents = change.tx.document_names(&id, USERS_NAMED).await?;
    if !documents.is_empty() {
        return Err(Failure::WorkspaceNotEmpty { name: asked.name.clone(), documents });
    }
    change.tx.workspace_delete(&row, change.now).await?;
    change.finish(shared, DeleteWorkspaceResponse {}).await
}
