//! Captures: one request, retrieved while an integration is built.

use sluice_proto::admin::v1::capture_service_server::CaptureService;
use sluice_proto::admin::v1::{
    CancelCaptureRequest, CancelCaptureResponse, Capture, ConfirmCaptureRequest, GetCaptureRequest,
    IncomingIntegration, StartCaptureRequest, WatchCaptureRequest, WatchCaptureResponse,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::call::Call;
use crate::captures;
use crate::watching::Watched;

#[async_trait]
impl CaptureService for Services {
    async fn start_capture(&self, request: Request<StartCaptureRequest>) -> Answer<Capture> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(captures::start(&self.0, call, asked).await)
    }

    async fn get_capture(&self, request: Request<GetCaptureRequest>) -> Answer<Capture> {
        pack(captures::get(&self.0, &request.get_ref().name).await)
    }

    type WatchCaptureStream = Watched<WatchCaptureResponse>;

    async fn watch_capture(&self, request: Request<WatchCaptureRequest>) -> Answer<Self::WatchCaptureStream> {
        Ok(captures::watch(&self.0, request.into_inner()).await?)
    }

    async fn cancel_capture(&self, request: Request<CancelCaptureRequest>) -> Answer<CancelCaptureResponse> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(captures::cancel(&self.0, call, asked).await)
    }

    async fn confirm_capture(&self, request: Request<ConfirmCaptureRequest>) -> Answer<IncomingIntegration> {
        let (call, asked) = Call::open(&self.0, request)?;
        pack(captures::confirm(&self.0, call, asked).await)
    }
}
