//! Data planes: which are connected and what they serve.

use prost::Message;
use sluice_proto::admin::v1::data_plane_service_server::DataPlaneService;
use sluice_proto::admin::v1::{ListDataPlanesRequest, ListDataPlanesResponse};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::error::Failure;
use crate::paging::List;

#[async_trait]
impl DataPlaneService for Services {
    async fn list_data_planes(&self, request: Request<ListDataPlanesRequest>) -> Answer<ListDataPlanesResponse> {
        pack(self.list(request.get_ref()))
    }
}

impl Services {
    fn list(&self, asked: &ListDataPlanesRequest) -> Result<ListDataPlanesResponse, Failure> {
        let list = List::new(&self.0.secrets, &["dataPlanes"]);
        let page = list.page(asked.page_size, &asked.page_token)?;
        let mut data_planes = self.0.data_planes.list(page.after.as_deref().unwrap_or_default(), page.limit());
        let next_page_token = list.cut(&page, &mut data_planes, Message::encoded_len, |plane| {
            plane.name.strip_prefix("dataPlanes/").unwrap_or_default().to_owned()
        });
        Ok(ListDataPlanesResponse { data_planes, next_page_token })
    }
}
