//! Deliveries: read, listed, watched, and steered on the data plane that works on them.

use std::sync::Arc;

use prost::Message as _;
use sluice_proto::admin::v1::delivery_service_server::DeliveryService;
use sluice_proto::admin::v1::{
    CancelDeliveryRequest, Delivery, DeliveryState, GetDeliveryRequest, ListDeliveriesRequest, ListDeliveriesResponse,
    ReplayDeliveriesRequest, ReplayDeliveriesResponse, RetryDeliveryRequest, WatchDeliveriesRequest,
    WatchDeliveriesResponse,
};
use sluice_proto::sync::v1::command::Kind;
use sluice_proto::sync::v1::command_result::Outcome;
use sluice_proto::sync::v1::{CancelJob, RetryJob};
use tonic::{Request, Response, async_trait};

use super::{Answer, Services, pack};
use crate::call::{Begun, Call};
use crate::commands::ask;
use crate::delivery_filter::selection;
use crate::error::Failure;
use crate::names;
use crate::paging::List;
use crate::replay;
use crate::reports::EXCHANGE;
use crate::shared::Shared;
use crate::store::{OutcomeRow, Place, Selection, StoreError, Transaction};
use crate::watching::{Feed, Watched, Watcher};

#[async_trait]
impl DeliveryService for Services {
    async fn get_delivery(&self, request: Request<GetDeliveryRequest>) -> Answer<Delivery> {
        pack(get(&self.0, &request.get_ref().name).await)
    }

    async fn list_deliveries(&self, request: Request<ListDeliveriesRequest>) -> Answer<ListDeliveriesResponse> {
        pack(list(&self.0, request.get_ref()).await)
    }

    type WatchDeliveriesStream = Watched<WatchDeliveriesResponse>;

    async fn watch_deliveries(&self, request: Request<WatchDeliveriesRequest>) -> Answer<Self::WatchDeliveriesStream> {
        Ok(watch(&self.0, request.into_inner()).await?)
    }

    async fn retry_delivery(&self, request: Request<RetryDeliveryRequest>) -> Answer<Delivery> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(retry(&self.0, call, asked.name).await)
    }

    async fn cancel_delivery(&self, request: Request<CancelDeliveryRequest>) -> Answer<Delivery> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(cancel(&self.0, call, asked.name).await)
    }

    async fn replay_deliveries(&self, request: Request<ReplayDeliveriesRequest>) -> Answer<ReplayDeliveriesResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(replay::start(&self.0, call, asked).await)
    }
}

fn decode(body: &[u8], name: impl std::fmt::Display) -> Result<Delivery, Failure> {
    Delivery::decode(body).map_err(|error| Failure::Internal(format!("stored delivery {name}: {error}")))
}

/// A delivery with everything that is kept of it.
async fn get(shared: &Shared, name: &str) -> Result<Delivery, Failure> {
    let name = names::parse(name, "deliveries", "name")?;
    let mut tx = shared.store.read().await?;
    let gone = || Failure::NotFound(name.full.clone());
    let workspace = tx.workspace(&name.workspace).await?.ok_or_else(gone)?;
    let row = tx.delivery(&name.workspace, &name.full).await?.ok_or_else(gone)?;
    let mut delivery = decode(&row.body, &name.full)?;
    let exchanges = tx.exchanges(&name.full).await?;
    if !exchanges.is_empty() {
        let vault = shared.secrets.vault(&workspace)?;
        for (number, sealed) in exchanges {
            let opened = vault.open(&name.full, EXCHANGE, number, sealed)?;
            let exchange = decode(&opened, &name.full)?;
            delivery.request = delivery.request.or(exchange.request);
            let response = exchange.attempts.into_iter().next().and_then(|attempt| attempt.response);
            if let Some(attempt) = delivery.attempts.iter_mut().find(|attempt| i64::from(attempt.number) == number) {
                attempt.response = response;
            }
        }
    }
    Ok(delivery)
}

async fn retry(shared: &Shared, call: Call, name: String) -> Result<Delivery, Failure> {
    if let Some(answer) = call.known(shared).await? {
        return Ok(answer);
    }
    let delivery = get(shared, &name).await?;
    match delivery.state() {
        DeliveryState::Delivered | DeliveryState::Skipped | DeliveryState::Cancelled => {
            Err(Failure::DeliveryEnded(name))
        }
        DeliveryState::Unspecified | DeliveryState::Dead | DeliveryState::Waiting => {
            steer(shared, call, delivery, Kind::Retry(RetryJob { delivery: name })).await
        }
    }
}

async fn cancel(shared: &Shared, call: Call, name: String) -> Result<Delivery, Failure> {
    if let Some(answer) = call.known(shared).await? {
        return Ok(answer);
    }
    let delivery = get(shared, &name).await?;
    match delivery.state() {
        DeliveryState::Cancelled => Ok(delivery),
        DeliveryState::Delivered | DeliveryState::Skipped | DeliveryState::Dead => Err(Failure::DeliveryEnded(name)),
        DeliveryState::Unspecified | DeliveryState::Waiting => {
            steer(shared, call, delivery, Kind::Cancel(CancelJob { delivery: name })).await
        }
    }
}

/// Has the data plane that works on a delivery change it; the record follows with its next report.
async fn steer(shared: &Shared, call: Call, delivery: Delivery, kind: Kind) -> Result<Delivery, Failure> {
    if call.validate_only {
        return Ok(delivery);
    }
    match ask(shared, &delivery.data_plane, &delivery.name, kind).await? {
        Outcome::Delivery(steered) => {
            let steered = Delivery { data_plane: delivery.data_plane, ..steered };
            match call.begin(shared).await? {
                Begun::New(change) => change.finish(shared, steered).await,
                Begun::Known(answer) => Ok(answer),
            }
        }
        Outcome::Error(_)
        | Outcome::Replayed(_)
        | Outcome::Capture(_)
        | Outcome::TestedRequest(_)
        | Outcome::TestedConnection(_)
        | Outcome::Taken(_)
        | Outcome::Drained(_) => Err(Failure::Internal("a command was answered with something else".to_owned())),
    }
}

async fn list(shared: &Shared, asked: &ListDeliveriesRequest) -> Result<ListDeliveriesResponse, Failure> {
    let workspace = names::workspace_id(&asked.parent, "parent")?;
    let mut tx = shared.store.read().await?;
    let uid = tx.workspace(&workspace).await?.ok_or_else(|| Failure::NotFound(asked.parent.clone()))?.uid;
    let filter = asked.filter.clone().unwrap_or_default();
    let selection = selection(&filter, &workspace)?;
    let scope = hex::encode(filter.encode_to_vec());
    let list = List::new(&shared.secrets, &["deliveries", &uid, &scope]);
    let page = list.page(asked.page_size, &asked.page_token)?;
    let after = page.after.as_deref().map_or(Some(Place::NEWEST), Place::parse).ok_or(Failure::PageToken)?;
    let mut rows = tx.deliveries(&workspace, &selection, after, page.limit()).await?;
    let next_page_token = list.cut(&page, &mut rows, |row| row.body.len(), |row| row.place.to_string());
    let deliveries = rows.iter().map(|row| decode(&row.body, row.place)).collect::<Result<_, _>>()?;
    Ok(ListDeliveriesResponse { deliveries, next_page_token })
}

async fn watch(
    shared: &Arc<Shared>,
    asked: WatchDeliveriesRequest,
) -> Result<Response<Watched<WatchDeliveriesResponse>>, Failure> {
    let workspace = names::workspace_id(&asked.parent, "parent")?;
    let row = shared.store.read().await?.workspace(&workspace).await?;
    let uid = row.ok_or(Failure::NotFound(asked.parent))?.uid;
    let filter = asked.filter.unwrap_or_default();
    let selection = selection(&filter, &workspace)?;
    let filter = hex::encode(filter.encode_to_vec());
    let feed = Deliveries { workspace: workspace.clone(), selection, uid, filter };
    let given = feed.list(shared).position(&asked.resume_token, "resume_token")?;
    let watcher = Watcher::new(shared.clone(), workspace, feed);
    let position = match given {
        Some(position) => position,
        None => shared.store.read().await?.outcome_sequence().await?,
    };
    watcher.start(position)
}

/// The deliveries of a workspace that match.
struct Deliveries {
    workspace: String,
    uid: String,
    selection: Selection,
    /// What the caller asked for, which a resume token is bound to.
    filter: String,
}

impl Deliveries {
    fn list<'a>(&'a self, shared: &'a Shared) -> List<'a> {
        List::new(&shared.secrets, &["watched deliveries", &self.uid, &self.filter])
    }
}

impl Feed for Deliveries {
    type Message = WatchDeliveriesResponse;

    async fn read(&self, tx: &mut Transaction, after: i64, limit: i64) -> Result<Vec<OutcomeRow>, StoreError> {
        tx.deliveries_changed(&self.workspace, &self.selection, after, limit).await
    }

    fn message(&self, shared: &Shared, row: &OutcomeRow) -> Result<WatchDeliveriesResponse, Failure> {
        let delivery = Some(decode(&row.body, row.sequence)?);
        Ok(WatchDeliveriesResponse { delivery, resume_token: self.list(shared).token(&row.sequence.to_string()) })
    }
}
