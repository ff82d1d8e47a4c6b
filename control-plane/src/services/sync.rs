//! What data planes call: configuration down, outcomes up.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::Map;
use sluice_proto::sync::v1::sync_service_server::SyncService;
use sluice_proto::sync::v1::{ReportRequest, ReportResponse, SyncRequest, SyncResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};
use tracing::Instrument as _;

use super::{Answer, Services, rights};
use crate::enrolment::Rights;
use crate::error::Failure;
use crate::metrics::{StoreUse, StreamEnd};
use crate::session::Boxed;
use crate::shared::Shared;
use crate::{reports, session};

/// Messages that wait for a data plane that reads slowly; everything else is made when there is room.
const AHEAD: usize = 4;

#[async_trait]
impl SyncService for Services {
    type SyncStream = Map<ReceiverStream<Boxed>, fn(Boxed) -> Result<SyncResponse, Status>>;

    async fn sync(&self, request: Request<Streaming<SyncRequest>>) -> Answer<Self::SyncStream> {
        let place = self.0.stream_place()?;
        self.0.begin_stream().inspect_err(|_full| self.0.metrics.stream_ended(StreamEnd::TurnedAway))?;
        let (out, answers) = mpsc::channel(AHEAD);
        let (shared, rights) = (self.0.clone(), rights(&request)?);
        let work = async move {
            let ended = tokio::select! {
                ended = session::run(shared, rights, request.into_inner(), out.clone()) => ended,
                () = out.closed() => Ok(()),
            };
            if let Err(status) = ended {
                // Nobody reads it when the data plane is gone. One that does not read keeps its place, and what waits for it, until its
                // connection ends: so both stay within the limit of streams (A17).
                let _ = out.send(Box::new(Err(status))).await;
            }
            drop(place);
        };
        tokio::spawn(work.in_current_span());
        Ok(Response::new(ReceiverStream::new(answers).map(|boxed| *boxed)))
    }

    type ReportStream = ReceiverStream<Result<ReportResponse, Status>>;

    async fn report(&self, request: Request<Streaming<ReportRequest>>) -> Answer<Self::ReportStream> {
        let place = self.0.stream_place()?;
        let (out, answers) = mpsc::channel(AHEAD);
        let (shared, rights) = (self.0.clone(), rights(&request)?);
        let work = async move {
            if let Err(status) = listen(&shared, &rights, request.into_inner(), &out).await {
                // Nobody reads it when the data plane is gone.
                let _ = out.send(Err(status)).await;
            }
            drop(place);
        };
        tokio::spawn(work.in_current_span());
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// Stores report after report and acknowledges each when it is durable.
async fn listen(
    shared: &Arc<Shared>,
    rights: &Rights,
    mut reports: Streaming<ReportRequest>,
    out: &mpsc::Sender<Result<ReportResponse, Status>>,
) -> Result<(), Status> {
    loop {
        let report = tokio::select! {
            report = reports.message() => report?,
            () = shared.stop.cancelled() => return Err(Failure::Stopping.into()),
            () = out.closed() => return Ok(()),
        };
        let Some(report) = report else { return Ok(()) };
        rights.check(shared).await?;
        rights.check_id(&report.data_plane_id)?;
        let sequence = report.sequence;
        reports::store(shared, &rights.scope, report).await.inspect_err(|failure| {
            if matches!(failure, Failure::Store(_)) {
                shared.metrics.store_failed(StoreUse::Report);
            }
        })?;
        if out.send(Ok(ReportResponse { sequence })).await.is_err() {
            return Ok(());
        }
    }
}
