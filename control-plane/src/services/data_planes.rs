//! Data planes: which have joined, which are connected and what they serve.

use std::collections::BTreeMap;

use prost::Message;
use sluice_proto::admin::v1::data_plane_service_server::DataPlaneService;
use sluice_proto::admin::v1::{
    DataPlane, DeleteDataPlaneRequest, DeleteDataPlaneResponse, DrainDataPlaneRequest, DrainDataPlaneResponse,
    ListDataPlanesRequest, ListDataPlanesResponse, ResumeDataPlaneRequest, ResumeDataPlaneResponse,
    StartStoreEpochRequest, StartStoreEpochResponse,
};
use tonic::{Request, async_trait};
use uuid::Uuid;

use super::{Answer, Services, pack};
use crate::call::{Begun, Call};
use crate::drain;
use crate::enrolment::{delete_data_plane, show_joined};
use crate::error::Failure;
use crate::fields::tree;
use crate::lifecycle::READ_AT_ONCE;
use crate::listing::{Listing, Query};
use crate::names::workspace_name;

const KIND: &str = "sluice.admin.v1.DataPlane";
/// Most workspaces that are named when an epoch starts.
const REGRESSED_MAX: i64 = 1000;
/// What the names of data planes begin with.
const PREFIX: &str = "dataPlanes/";

#[async_trait]
impl DataPlaneService for Services {
    async fn list_data_planes(&self, request: Request<ListDataPlanesRequest>) -> Answer<ListDataPlanesResponse> {
        pack(self.list(request.get_ref()).await)
    }

    async fn delete_data_plane(&self, request: Request<DeleteDataPlaneRequest>) -> Answer<DeleteDataPlaneResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(delete_data_plane(&self.0, call, &asked).await)
    }

    async fn drain_data_plane(&self, request: Request<DrainDataPlaneRequest>) -> Answer<DrainDataPlaneResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(drain::drain(&self.0, call, &asked).await)
    }

    async fn resume_data_plane(&self, request: Request<ResumeDataPlaneRequest>) -> Answer<ResumeDataPlaneResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(drain::resume(&self.0, call, &asked).await)
    }

    async fn start_store_epoch(&self, request: Request<StartStoreEpochRequest>) -> Answer<StartStoreEpochResponse> {
        let (call, _asked) = Call::open(&self.0, request)?;
        pack(self.start_epoch(call).await)
    }
}

impl Services {
    async fn list(&self, asked: &ListDataPlanesRequest) -> Result<ListDataPlanesResponse, Failure> {
        let query = Query {
            page_size: asked.page_size,
            page_token: &asked.page_token,
            filter: &asked.filter,
            order_by: &asked.order_by,
            show_deleted: false,
        };
        let mut listing = Listing::new(&self.0.secrets, KIND, &["dataPlanes"], query)?;
        self.0.replicas.fresh().await;
        let mut after = listing.by_name().unwrap_or_default().to_owned();
        loop {
            let planes = self.read(after.strip_prefix(PREFIX).unwrap_or_default()).await?;
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

    /// Gives the store another name; every session ends when it is read.
    async fn start_epoch(&self, call: Call) -> Result<StartStoreEpochResponse, Failure> {
        let mut change = match call.begin(&self.0).await? {
            Begun::New(change) => change,
            Begun::Known(answer) => return Ok(answer),
        };
        let regressed = change.tx.regressed(REGRESSED_MAX).await?;
        let epoch = Uuid::new_v4().to_string();
        change.tx.epoch_start(&epoch).await?;
        if !change.validate_only() {
            tracing::warn!(epoch, regressed = regressed.len(), "the configuration store begins a new epoch");
        }
        let regressed_workspaces = regressed.iter().map(|id| workspace_name(id)).collect();
        change.finish(&self.0, StartStoreEpochResponse { regressed_workspaces }).await
    }

    /// Some data planes by id, those after `after`: what was seen of them, and that they have joined.
    async fn read(&self, after: &str) -> Result<Vec<DataPlane>, Failure> {
        let heads = self.0.snapshots.subscribe().borrow().clone();
        let newest = |workspace: &str| heads.workspaces.get(workspace).map_or(0, |head| head.cursor.revision);
        let mut seen = self.0.data_planes.list(after, READ_AT_ONCE);
        for served in seen.iter_mut().flat_map(|plane| &mut plane.workspaces) {
            served.lag_revisions = (newest(&served.workspace) - served.revision).max(0);
        }
        let seen = seen.into_iter();
        let mut all: BTreeMap<String, DataPlane> =
            seen.map(|plane| (plane.name.trim_start_matches(PREFIX).to_owned(), plane)).collect();
        for row in self.0.store.read().await?.enrolled_list(after, READ_AT_ONCE).await? {
            show_joined(&row, all.entry(row.id.clone()).or_default());
        }
        Ok(all.into_values().take(usize::try_from(READ_AT_ONCE).unwrap_or(usize::MAX)).collect())
    }
}
