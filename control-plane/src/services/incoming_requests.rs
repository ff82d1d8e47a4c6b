//! Incoming requests: the triggers that were accepted.

use prost::Message as _;
use sluice_core::validate::Violation;
use sluice_proto::admin::v1::incoming_request_service_server::IncomingRequestService;
use sluice_proto::admin::v1::{
    GetIncomingRequestRequest, IncomingRequest, ListIncomingRequestsRequest, ListIncomingRequestsResponse,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::delivery_filter::accepted;
use crate::error::{Failure, violation};
use crate::names;
use crate::scan::{self, Scan};
use crate::shared::Shared;
use crate::store::{IncomingSelection, Place};

#[async_trait]
impl IncomingRequestService for Services {
    async fn get_incoming_request(&self, request: Request<GetIncomingRequestRequest>) -> Answer<IncomingRequest> {
        pack(get(&self.0, &request.get_ref().name).await)
    }

    async fn list_incoming_requests(
        &self,
        request: Request<ListIncomingRequestsRequest>,
    ) -> Answer<ListIncomingRequestsResponse> {
        pack(list(&self.0, request.get_ref()).await)
    }
}

fn decode(body: &[u8]) -> Result<IncomingRequest, Failure> {
    IncomingRequest::decode(body).map_err(|error| Failure::Internal(format!("a stored incoming request: {error}")))
}

async fn get(shared: &Shared, name: &str) -> Result<IncomingRequest, Failure> {
    let name = names::parse(name, "incomingRequests", "name")?;
    let body = shared.store.read().await?.incoming_request(&name.workspace, &name.full).await?;
    decode(&body.ok_or(Failure::NotFound(name.full))?)
}

fn selection(asked: &ListIncomingRequestsRequest, workspace: &str) -> Result<IncomingSelection, Failure> {
    let mut found: Vec<Violation> = Vec::new();
    let incoming = &asked.incoming_integration;
    let ours = |name: names::Name| name.workspace == workspace;
    if !incoming.is_empty() && !names::parse(incoming, "incomingIntegrations", "").is_ok_and(ours) {
        let message = format!("must be `workspaces/{workspace}/incomingIntegrations/{{id}}`");
        found.push(violation("incoming_integration", "NAME_INVALID", message));
    }
    let accepted = accepted(asked.accepted_from.as_ref(), asked.accepted_before.as_ref()).unwrap_or_else(|broken| {
        found.push(broken);
        0..0
    });
    if !found.is_empty() {
        return Err(Failure::Fields(found));
    }
    Ok(IncomingSelection { incoming: incoming.clone(), accepted_from: accepted.start, accepted_before: accepted.end })
}

async fn list(shared: &Shared, asked: &ListIncomingRequestsRequest) -> Result<ListIncomingRequestsResponse, Failure> {
    let workspace = names::workspace_id(&asked.parent, "parent")?;
    let mut tx = shared.store.read().await?;
    let uid = tx.workspace(&workspace).await?.ok_or_else(|| Failure::NotFound(asked.parent.clone()))?.uid;
    let selection = selection(asked, &workspace)?;
    let (from, before) = (selection.accepted_from.to_string(), selection.accepted_before.to_string());
    let scope = ["incomingRequests", &uid, &selection.incoming, &from, &before];
    let mut scan = Scan::<IncomingRequest>::new(&shared.secrets, &scope, scan::asked!(asked))?;
    while let Some((position, limit)) = scan.next() {
        let none = if scan.descending { Place::NEWEST } else { Place::OLDEST };
        let after = position.map_or(Some(none), Place::parse).ok_or(Failure::PageToken)?;
        let rows = tx.incoming_requests(&workspace, &selection, (after, scan.descending), limit).await?;
        scan.read(rows.len(), limit);
        for row in rows {
            scan.offer(row.place.to_string(), decode(&row.body)?)?;
        }
    }
    let (incoming_requests, next_page_token) = scan.finish();
    Ok(ListIncomingRequestsResponse { incoming_requests, next_page_token })
}
