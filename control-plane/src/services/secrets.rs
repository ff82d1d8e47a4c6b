//! Secrets and their rotation, for every kind of resource that has some.

use sluice_core::seal::{Secret, Slot};
use sluice_proto::admin::v1::secret_service_server::SecretService;
use sluice_proto::admin::v1::{
    ActivateSecretRequest, Connection, GetSecretsRequest, IncomingIntegration, RetireSecretRequest,
    RevertSecretRequest, SecretSlot, Secrets, StageSecretRequest,
};
use tonic::{Request, async_trait};

use super::{Answer, Services, pack};
use crate::call::Call;
use crate::error::Failure;
use crate::names;
use crate::resource::Resource;
use crate::rotation::{self, Rotation, Step};

/// Does the same for whichever kind the name is of.
macro_rules! of_kind {
    ($name:expr, $function:ident($($argument:expr),*)) => {
        match names::split($name).map(|(_, collection, _)| collection) {
            Some(Connection::COLLECTION) => rotation::$function::<Connection>($($argument),*).await,
            Some(IncomingIntegration::COLLECTION) => rotation::$function::<IncomingIntegration>($($argument),*).await,
            _ => Err(Failure::field("name", "NAME_INVALID", rotation::NAME_RULE)),
        }
    };
}

#[async_trait]
impl SecretService for Services {
    async fn get_secrets(&self, request: Request<GetSecretsRequest>) -> Answer<Secrets> {
        let name = &request.get_ref().name;
        pack(of_kind!(name, get(&self.0, name)))
    }

    async fn stage_secret(&self, request: Request<StageSecretRequest>) -> Answer<Secrets> {
        let (call, asked) = Call::open(&self.0, request)?;
        let step = Step::Stage(Secret::new(asked.value));
        let rotation = Rotation { name: asked.name, field: asked.field, etag: asked.etag, step };
        pack(self.rotate(call, rotation).await)
    }

    async fn activate_secret(&self, request: Request<ActivateSecretRequest>) -> Answer<Secrets> {
        let (call, asked) = Call::open(&self.0, request)?;
        let rotation = Rotation { name: asked.name, field: asked.field, etag: asked.etag, step: Step::Activate };
        pack(self.rotate(call, rotation).await)
    }

    async fn revert_secret(&self, request: Request<RevertSecretRequest>) -> Answer<Secrets> {
        let (call, asked) = Call::open(&self.0, request)?;
        let rotation = Rotation { name: asked.name, field: asked.field, etag: asked.etag, step: Step::Revert };
        pack(self.rotate(call, rotation).await)
    }

    async fn retire_secret(&self, request: Request<RetireSecretRequest>) -> Answer<Secrets> {
        let (call, asked) = Call::open(&self.0, request)?;
        let slot = match asked.slot() {
            SecretSlot::Unspecified => {
                return pack(Err(Failure::field("slot", "REQUIRED", "one of ACTIVE, STAGED, PREVIOUS is required")));
            }
            SecretSlot::Active => Slot::Active,
            SecretSlot::Staged => Slot::Staged,
            SecretSlot::Previous => Slot::Previous,
        };
        let rotation = Rotation { name: asked.name, field: asked.field, etag: asked.etag, step: Step::Retire(slot) };
        pack(self.rotate(call, rotation).await)
    }
}

impl Services {
    async fn rotate(&self, call: Call, rotation: Rotation) -> Result<Secrets, Failure> {
        of_kind!(&rotation.name, rotate(&self.0, call, &rotation))
    }
}
