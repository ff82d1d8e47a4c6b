//! Snippets: drafts and published versions.

use sluice_proto::admin::v1::snippet_service_server::SnippetService;
use sluice_proto::admin::v1::{
    CreateSnippetRequest, DeleteSnippetRequest, DeleteSnippetResponse, GetSnippetRequest, ListSnippetsRequest,
    ListSnippetsResponse, PublishSnippetRequest, Snippet, UndeleteSnippetRequest, UnpublishSnippetRequest,
    UpdateSnippetRequest,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::call::Call;
use crate::lifecycle::{create, delete, get, list, undelete, update};
use crate::listing::query;
use crate::publish::{publish, unpublish};

#[async_trait]
impl SnippetService for Services {
    async fn create_snippet(&self, request: Request<CreateSnippetRequest>) -> Answer<Snippet> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(create(&self.0, call, &asked.parent, &asked.snippet_id, asked.snippet).await)
    }

    async fn get_snippet(&self, request: Request<GetSnippetRequest>) -> Answer<Snippet> {
        pack(get(&self.0, &request.get_ref().name).await)
    }

    async fn list_snippets(&self, request: Request<ListSnippetsRequest>) -> Answer<ListSnippetsResponse> {
        let asked = request.get_ref();
        let listed = list(&self.0, &asked.parent, query!(asked)).await;
        pack(listed.map(|(snippets, next_page_token)| ListSnippetsResponse { snippets, next_page_token }))
    }

    async fn update_snippet(&self, request: Request<UpdateSnippetRequest>) -> Answer<Snippet> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(update(&self.0, call, asked.snippet, asked.update_mask).await)
    }

    async fn delete_snippet(&self, request: Request<DeleteSnippetRequest>) -> Answer<DeleteSnippetResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(delete::<Snippet, _>(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn undelete_snippet(&self, request: Request<UndeleteSnippetRequest>) -> Answer<Snippet> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(undelete(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn publish_snippet(&self, request: Request<PublishSnippetRequest>) -> Answer<Snippet> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(publish(&self.0, call, &asked.name, &asked.etag).await)
    }

    async fn unpublish_snippet(&self, request: Request<UnpublishSnippetRequest>) -> Answer<Snippet> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(unpublish(&self.0, call, &asked.name, &asked.etag).await)
    }
}
