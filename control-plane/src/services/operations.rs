//! Operations: read, cancelled and followed.

use std::sync::Arc;

use sluice_proto::admin::v1::operation::State;
use sluice_proto::admin::v1::operation_service_server::OperationService;
use sluice_proto::admin::v1::{
    CancelOperationRequest, GetOperationRequest, ListOperationsRequest, ListOperationsResponse, Operation,
    WatchOperationRequest,
};
use tonic::{Request, Response, async_trait};

use super::{Answer, Services, pack};
use crate::call::{Begun, Call};
use crate::error::Failure;
use crate::names;
use crate::operations::present;
use crate::scan::{self, Scan};
use crate::shared::Shared;
use crate::store::OperationKind;
use crate::wakes::Topic;
use crate::watching::{EVERY, Watched, watched};

#[async_trait]
impl OperationService for Services {
    async fn get_operation(&self, request: Request<GetOperationRequest>) -> Answer<Operation> {
        pack(get(&self.0, &request.get_ref().name).await)
    }

    async fn list_operations(&self, request: Request<ListOperationsRequest>) -> Answer<ListOperationsResponse> {
        pack(list(&self.0, request.get_ref()).await)
    }

    async fn cancel_operation(&self, request: Request<CancelOperationRequest>) -> Answer<Operation> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(cancel(&self.0, call, &asked.name).await)
    }

    type WatchOperationStream = Watched<Operation>;

    async fn watch_operation(&self, request: Request<WatchOperationRequest>) -> Answer<Self::WatchOperationStream> {
        Ok(watch(self.0.clone(), request.into_inner().name).await?)
    }
}

async fn get(shared: &Shared, name: &str) -> Result<Operation, Failure> {
    let name = names::parse(name, "operations", "name")?;
    let row = shared.store.read().await?.operation(&name.workspace, &name.full).await?;
    present(&row.ok_or(Failure::NotFound(name.full))?)
}

async fn list(shared: &Shared, asked: &ListOperationsRequest) -> Result<ListOperationsResponse, Failure> {
    let workspace = names::workspace_id(&asked.parent, "parent")?;
    let mut tx = shared.store.read().await?;
    let uid = tx.workspace(&workspace).await?.ok_or_else(|| Failure::NotFound(asked.parent.clone()))?.uid;
    let mut scan = Scan::<Operation>::new(&shared.secrets, &["operations", &uid], scan::asked!(asked))?;
    while let Some((position, limit)) = scan.next() {
        let none = if scan.descending { i64::MAX } else { i64::MIN };
        let position = Scan::<Operation>::number(position, none)?;
        let rows = tx.operations(&workspace, (position, scan.descending), limit).await?;
        scan.read(rows.len(), limit);
        for row in rows {
            scan.offer(row.sequence.to_string(), present(&row)?)?;
        }
    }
    let (operations, next_page_token) = scan.finish();
    Ok(ListOperationsResponse { operations, next_page_token })
}

async fn cancel(shared: &Shared, call: Call, name: &str) -> Result<Operation, Failure> {
    let parsed = names::parse(name, "operations", "name")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let gone = || Failure::NotFound(parsed.full.clone());
    let row = change.tx.operation(&parsed.workspace, &parsed.full).await?.ok_or_else(gone)?;
    match row.kind {
        OperationKind::Replay => {
            let states = (State::Running as i64, State::Cancelling as i64);
            change.tx.operation_state(&parsed.full, states, change.now, 0).await?;
        }
        // Half of it would keep the old key for ever.
        OperationKind::DataKeyRotation => {}
    }
    let row = change.tx.operation(&parsed.workspace, &parsed.full).await?.ok_or_else(gone)?;
    let answer = change.finish(shared, present(&row)?).await?;
    shared.tell(Topic::Operations);
    Ok(answer)
}

/// Sends the operation as often as it moves on.
async fn watch(shared: Arc<Shared>, name: String) -> Result<Response<Watched<Operation>>, Failure> {
    let mut moved = shared.wakes.operations();
    let mut shown = get(&shared, &name).await?;
    let work_of = shared.clone();
    watched(&shared, 1, async move |out| {
        let shared = work_of;
        loop {
            let ended = shown.end_time.is_some();
            if !out.send(shown.clone()).await? || ended {
                return Ok(());
            }
            let before = shown.clone();
            while shown == before {
                tokio::select! {
                    () = shared.stop.cancelled() => return Err(Failure::Stopping),
                    () = out.closed() => return Ok(()),
                    _ = moved.changed() => {}
                    () = tokio::time::sleep(EVERY) => {}
                }
                shown = get(&shared, &name).await?;
            }
        }
    })
}
