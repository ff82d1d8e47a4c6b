//! Versions, for every kind of resource that is published.

use sluice_proto::admin::v1::version_service_server::VersionService;
use sluice_proto::admin::v1::{
    DiffVersionsRequest, DiffVersionsResponse, GetVersionRequest, IncomingIntegration, ListVersionsRequest,
    ListVersionsResponse, OutgoingIntegration, RollbackVersionRequest, RollbackVersionResponse, SchemaTemplate,
    Snippet, Version, Workflow,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::call::Call;
use crate::error::Failure;
use crate::listing::Query;
use crate::names;
use crate::resource::{Resource as _, of_published_kind};
use crate::shared::Shared;
use crate::versions::{diff, get, list, rollback, split};

#[async_trait]
impl VersionService for Services {
    async fn list_versions(&self, request: Request<ListVersionsRequest>) -> Answer<ListVersionsResponse> {
        let asked = request.get_ref();
        let listed =
            of_published_kind!(collection(&asked.parent), list(&self.0, &asked.parent, query(asked)), "parent");
        pack(listed.map(|(versions, next_page_token)| ListVersionsResponse { versions, next_page_token }))
    }

    async fn get_version(&self, request: Request<GetVersionRequest>) -> Answer<Version> {
        let (document, number) = split(&request.get_ref().name, "name")?;
        pack(of_published_kind!(collection(document), get(&self.0, document, number), "name"))
    }

    async fn diff_versions(&self, request: Request<DiffVersionsRequest>) -> Answer<DiffVersionsResponse> {
        let asked = request.get_ref();
        let sides = [asked.from_version, asked.to_version];
        let changes = of_published_kind!(collection(&asked.name), diff(&self.0, &asked.name, sides), "name");
        pack(changes.map(|changes| DiffVersionsResponse { changes }))
    }

    async fn rollback_version(&self, request: Request<RollbackVersionRequest>) -> Answer<RollbackVersionResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(rolled_back(&self.0, call, &asked).await)
    }
}

async fn rolled_back(
    shared: &Shared,
    call: Call,
    asked: &RollbackVersionRequest,
) -> Result<RollbackVersionResponse, Failure> {
    let (document, number) = split(&asked.name, "name")?;
    let version = (document, number);
    of_published_kind!(collection(document), rollback(shared, call, version, &asked.etag, asked.publish), "name")
}

/// The newest come first unless another order is asked for.
fn query(asked: &ListVersionsRequest) -> Query<'_> {
    Query {
        page_size: asked.page_size,
        page_token: &asked.page_token,
        filter: &asked.filter,
        order_by: if asked.order_by.trim().is_empty() { "number desc" } else { &asked.order_by },
        show_deleted: false,
    }
}

fn collection(name: &str) -> Option<&str> {
    names::split(name).map(|(_, collection, _)| collection)
}
