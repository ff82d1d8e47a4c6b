//! Events: response events listed and watched as they arrive, and what callers submit.

use prost::Message as _;
use sluice_proto::admin::v1::event_service_server::EventService;
use sluice_proto::admin::v1::{
    Event, ListEventsRequest, ListEventsResponse, SubmitBatchRequest, SubmitBatchResponse, SubmitEventRequest,
    SubmitEventResponse, WatchEventsRequest,
};
use tonic::{Request, Streaming, async_trait};

use super::{Answer, Services, pack};
use crate::error::Failure;
use crate::intake;
use crate::names;
use crate::scan::{self, Scan};
use crate::shared::Shared;
use crate::store::{OutcomeRow, StoreError, Transaction};
use crate::watching::{Feed, Watched, Watcher};

#[async_trait]
impl EventService for Services {
    async fn list_events(&self, request: Request<ListEventsRequest>) -> Answer<ListEventsResponse> {
        pack(list(&self.0, request.get_ref()).await)
    }

    type WatchEventsStream = Watched<Event>;

    async fn watch_events(&self, request: Request<WatchEventsRequest>) -> Answer<Self::WatchEventsStream> {
        let asked = request.into_inner();
        let workspace = names::workspace_id(&asked.parent, "parent")?;
        let events = Events { workspace: workspace.clone(), action: asked.action.clone() };
        let watcher = Watcher::new(self.0.clone(), workspace.clone(), events);
        Ok(watcher.start(start(&self.0, &workspace, &asked).await?)?)
    }

    async fn submit_event(&self, request: Request<SubmitEventRequest>) -> Answer<SubmitEventResponse> {
        pack(intake::submit(&self.0, request.into_inner()).await)
    }

    type SubmitBatchStream = Watched<SubmitBatchResponse>;

    async fn submit_batch(&self, request: Request<Streaming<SubmitBatchRequest>>) -> Answer<Self::SubmitBatchStream> {
        Ok(intake::batch(&self.0, request.into_inner()).await?)
    }
}

fn decode(row: &OutcomeRow) -> Result<Event, Failure> {
    Event::decode(row.body.as_slice())
        .map_err(|error| Failure::Internal(format!("stored event {}: {error}", row.sequence)))
}

async fn list(shared: &Shared, asked: &ListEventsRequest) -> Result<ListEventsResponse, Failure> {
    let workspace = names::workspace_id(&asked.parent, "parent")?;
    let mut tx = shared.store.read().await?;
    let uid = tx.workspace(&workspace).await?.ok_or_else(|| Failure::NotFound(asked.parent.clone()))?.uid;
    let mut scan = Scan::<Event>::new(&shared.secrets, &["events", &uid, &asked.action], scan::asked!(asked))?;
    while let Some((position, limit)) = scan.next() {
        let rows = match scan.descending {
            true => {
                let before = Scan::<Event>::number(position, i64::MAX)?;
                tx.events_before(&workspace, &asked.action, before, limit).await?
            }
            false => {
                let after = Scan::<Event>::number(position, i64::MIN)?;
                tx.events_after(&workspace, &asked.action, after, limit).await?
            }
        };
        scan.read(rows.len(), limit);
        for row in rows {
            scan.offer(row.sequence.to_string(), decode(&row)?)?;
        }
    }
    let (events, next_page_token) = scan.finish();
    Ok(ListEventsResponse { events, next_page_token })
}

/// Where a watcher begins.
async fn start(shared: &Shared, workspace: &str, asked: &WatchEventsRequest) -> Result<i64, Failure> {
    let mut tx = shared.store.read().await?;
    if tx.workspace(workspace).await?.is_none() {
        return Err(Failure::NotFound(asked.parent.clone()));
    }
    if asked.after.is_empty() {
        return Ok(tx.outcome_sequence().await?);
    }
    let after = names::parse(&asked.after, "events", "after")?;
    tx.event_sequence(workspace, &after.full).await?.ok_or(Failure::NotFound(after.full))
}

/// The events of a workspace with this action, or any.
struct Events {
    workspace: String,
    action: String,
}

impl Feed for Events {
    type Message = Event;

    async fn read(&self, tx: &mut Transaction, after: i64, limit: i64) -> Result<Vec<OutcomeRow>, StoreError> {
        tx.events_after(&self.workspace, &self.action, after, limit).await
    }

    fn message(&self, _: &Shared, row: &OutcomeRow) -> Result<Event, Failure> {
        decode(row)
    }
}
