//! Deliveries that have ended.

use prost::Message as _;
use sluice_proto::admin::v1::delivery_service_server::DeliveryService;
use sluice_proto::admin::v1::{Delivery, GetDeliveryRequest, ListDeliveriesRequest, ListDeliveriesResponse};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::error::Failure;
use crate::names;
use crate::paging::List;
use crate::shared::Shared;
use crate::store::OutcomeRow;

#[async_trait]
impl DeliveryService for Services {
    async fn get_delivery(&self, request: Request<GetDeliveryRequest>) -> Answer<Delivery> {
        pack(get(&self.0, &request.get_ref().name).await)
    }

    async fn list_deliveries(&self, request: Request<ListDeliveriesRequest>) -> Answer<ListDeliveriesResponse> {
        pack(list(&self.0, request.get_ref()).await)
    }
}

fn decode(row: &OutcomeRow) -> Result<Delivery, Failure> {
    Delivery::decode(row.body.as_slice())
        .map_err(|error| Failure::Internal(format!("stored delivery {}: {error}", row.sequence)))
}

async fn get(shared: &Shared, name: &str) -> Result<Delivery, Failure> {
    let name = names::parse(name, "deliveries", "name")?;
    let row = shared.store.read().await?.delivery(&name.workspace, &name.full).await?;
    decode(&row.ok_or(Failure::NotFound(name.full))?)
}

async fn list(shared: &Shared, asked: &ListDeliveriesRequest) -> Result<ListDeliveriesResponse, Failure> {
    let workspace = names::workspace_id(&asked.parent, "parent")?;
    let mut tx = shared.store.read().await?;
    let uid = tx.workspace(&workspace).await?.ok_or_else(|| Failure::NotFound(asked.parent.clone()))?.uid;
    if sluice_proto::admin::v1::DeliveryState::try_from(asked.state).is_err() {
        return Err(Failure::field("state", "UNKNOWN", format!("{} is no state of a delivery", asked.state)));
    }
    let list_state = asked.state.to_string();
    let list = List::new(&shared.secrets, &["deliveries", &uid, &list_state]);
    let page = list.page(asked.page_size, &asked.page_token)?;
    let before = page.after.as_deref().map_or(Ok(i64::MAX), str::parse).map_err(|_| Failure::PageToken)?;
    let mut rows = tx.deliveries(&workspace, asked.state, before, page.limit()).await?;
    let next_page_token = list.cut(&page, &mut rows, |row| row.body.len(), |row| row.sequence.to_string());
    let deliveries = rows.iter().map(decode).collect::<Result<_, _>>()?;
    Ok(ListDeliveriesResponse { deliveries, next_page_token })
}
