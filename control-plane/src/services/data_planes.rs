//! Data planes: which are connected and what they serve.

use prost::Message;
use sluice_proto::admin::v1::data_plane_service_server::DataPlaneService;
use sluice_proto::admin::v1::{ListDataPlanesRequest, ListDataPlanesResponse};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::error::Failure;
use crate::fields::tree;
use crate::lifecycle::READ_AT_ONCE;
use crate::listing::{Listing, Query};

const KIND: &str = "sluice.admin.v1.DataPlane";
/// What the names of data planes begin with.
const PREFIX: &str = "dataPlanes/";

#[async_trait]
impl DataPlaneService for Services {
    async fn list_data_planes(&self, request: Request<ListDataPlanesRequest>) -> Answer<ListDataPlanesResponse> {
        pack(self.list(request.get_ref()))
    }
}

impl Services {
    fn list(&self, asked: &ListDataPlanesRequest) -> Result<ListDataPlanesResponse, Failure> {
        let query = Query {
            page_size: asked.page_size,
            page_token: &asked.page_token,
            filter: &asked.filter,
            order_by: &asked.order_by,
            show_deleted: false,
        };
        let mut listing = Listing::new(&self.0.secrets, KIND, &["dataPlanes"], query)?;
        let mut after = listing.by_name().unwrap_or_default().to_owned();
        loop {
            let planes = self.0.data_planes.list(after.strip_prefix(PREFIX).unwrap_or_default(), READ_AT_ONCE);
            let Some(last) = planes.last().map(|plane| plane.name.clone()) else { break };
            for plane in planes {
                listing.offer(&plane.name.clone(), &tree(KIND, &plane)?, plane.encoded_len(), plane);
            }
            if listing.by_name().is_some() && listing.is_full() {
                break;
            }
            after = last;
        }
        let (data_planes, next_page_token) = listing.finish();
        Ok(ListDataPlanesResponse { data_planes, next_page_token })
    }
}
