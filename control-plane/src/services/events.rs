//! Response events: listed, and watched as they arrive.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use sluice_proto::admin::v1::event_service_server::EventService;
use sluice_proto::admin::v1::{Event, ListEventsRequest, ListEventsResponse, WatchEventsRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait};
use tracing::Instrument as _;

use super::{Answer, Services, pack};
use crate::error::Failure;
use crate::names;
use crate::paging::List;
use crate::shared::Shared;
use crate::store::OutcomeRow;

/// Events read at once for a watcher.
const BATCH: i64 = 100;
/// Events that wait for a watcher that reads slowly; the others stay in the store.
const AHEAD: usize = 16;
/// How often a watcher looks when nothing wakes it.
const EVERY: Duration = Duration::from_secs(5);

#[async_trait]
impl EventService for Services {
    async fn list_events(&self, request: Request<ListEventsRequest>) -> Answer<ListEventsResponse> {
        pack(list(&self.0, request.get_ref()).await)
    }

    type WatchEventsStream = ReceiverStream<Result<Event, Status>>;

    async fn watch_events(&self, request: Request<WatchEventsRequest>) -> Answer<Self::WatchEventsStream> {
        let place = self.0.stream_place()?;
        let watcher = Watcher::new(self.0.clone(), request.into_inner()).await?;
        let (out, events) = mpsc::channel(AHEAD);
        let work = async move {
            if let Err(failure) = watcher.run(&out).await {
                // Nobody reads it when the caller is gone.
                let _ = out.send(Err(failure.into())).await;
            }
            drop(place);
        };
        tokio::spawn(work.in_current_span());
        Ok(Response::new(ReceiverStream::new(events)))
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
    let list = List::new(&shared.secrets, &["events", &uid, &asked.action]);
    let page = list.page(asked.page_size, &asked.page_token)?;
    let before = page.after.as_deref().map_or(Ok(i64::MAX), str::parse).map_err(|_| Failure::PageToken)?;
    let mut rows = tx.events_before(&workspace, &asked.action, before, page.limit()).await?;
    let next_page_token = list.cut(&page, &mut rows, |row| row.body.len(), |row| row.sequence.to_string());
    Ok(ListEventsResponse { events: rows.iter().map(decode).collect::<Result<_, _>>()?, next_page_token })
}

/// Sends events as they arrive. Between two reads it holds a position and nothing else.
struct Watcher {
    shared: Arc<Shared>,
    wake: tokio::sync::watch::Receiver<()>,
    parent: String,
    workspace: String,
    action: String,
    position: i64,
}

impl Watcher {
    async fn new(shared: Arc<Shared>, asked: WatchEventsRequest) -> Result<Self, Failure> {
        let workspace = names::workspace_id(&asked.parent, "parent")?;
        let wake = shared.outcomes.subscribe();
        let mut tx = shared.store.read().await?;
        if tx.workspace(&workspace).await?.is_none() {
            return Err(Failure::NotFound(asked.parent));
        }
        let position = if asked.after.is_empty() {
            tx.outcome_sequence().await?
        } else {
            let after = names::parse(&asked.after, "events", "after")?;
            let position = tx.event_sequence(&workspace, &after.full).await?;
            position.ok_or(Failure::NotFound(after.full))?
        };
        drop(tx);
        Ok(Self { shared, wake, parent: asked.parent, workspace, action: asked.action, position })
    }

    async fn run(mut self, out: &mpsc::Sender<Result<Event, Status>>) -> Result<(), Failure> {
        let stop = self.shared.stop.clone();
        loop {
            let rows = self.read().await?;
            let more = i64::try_from(rows.len()).is_ok_and(|read| read == BATCH);
            for row in rows {
                let event = decode(&row)?;
                tokio::select! {
                    () = stop.cancelled() => return Err(Failure::Stopping),
                    sent = out.send(Ok(event)) => if sent.is_err() {
                        return Ok(());
                    },
                }
                self.position = row.sequence;
            }
            if !more {
                tokio::select! {
                    () = stop.cancelled() => return Err(Failure::Stopping),
                    () = out.closed() => return Ok(()),
                    _ = self.wake.changed() => {}
                    () = tokio::time::sleep(EVERY) => {}
                }
            }
        }
    }

    async fn read(&mut self) -> Result<Vec<OutcomeRow>, Failure> {
        let mut tx = self.shared.store.read().await?;
        if tx.workspace(&self.workspace).await?.is_none() {
            return Err(Failure::NotFound(self.parent.clone()));
        }
        Ok(tx.events_after(&self.workspace, &self.action, self.position, BATCH).await?)
    }
}
