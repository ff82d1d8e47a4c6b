//! One changing call: the transaction it works in and the rules every change keeps: `validate_only` does everything but
//! the commit, and a `request_id` sent again gets the first answer.

use prost::Message;
use sluice_core::validate::Violation;
use sluice_proto::admin::v1::{self as admin, AuditOutcome};
use tonic::Request;

use crate::access::Access;
use crate::audit::{self, FIELDS_MAX};
use crate::clock::UnixMillis;
use crate::crash::Moment;
use crate::door::Caller;
use crate::error::{Failure, violation};
use crate::fields::{differences, tree};
use crate::resource::is_uuid;
use crate::shared::Shared;
use crate::store::{Remembered, Transaction};
use crate::wakes::Topic;

/// How long a request id is remembered.
pub(crate) const REMEMBERED_MILLIS: i64 = 24 * 3600 * 1000;

/// A request that changes something.
pub(crate) trait Changing: Message {
    /// Check everything and change nothing.
    fn validate_only(&self) -> bool;
    /// The caller's id of the request.
    fn request_id(&self) -> &str;
    /// Go on although connected data planes are too old for what is put in force.
    fn allows_partial_rollout(&self) -> bool {
        false
    }
}

macro_rules! changing {
    ($($request:ident $(: $allow_partial_rollout:ident)?),* $(,)?) => {
        $(impl Changing for admin::$request {
            fn validate_only(&self) -> bool {
                self.validate_only
            }

            fn request_id(&self) -> &str {
                &self.request_id
            }

            $(fn allows_partial_rollout(&self) -> bool {
                self.$allow_partial_rollout
            })?
        })*
    };
}

changing!(
    CreateWorkspaceRequest,
    UpdateWorkspaceRequest,
    DeleteWorkspaceRequest,
    UndeleteWorkspaceRequest,
    CreateConnectionRequest: allow_partial_rollout,
    UpdateConnectionRequest: allow_partial_rollout,
    DeleteConnectionRequest,
    UndeleteConnectionRequest: allow_partial_rollout,
    CreateIncomingIntegrationRequest,
    UpdateIncomingIntegrationRequest,
    DeleteIncomingIntegrationRequest,
    UndeleteIncomingIntegrationRequest,
    PublishIncomingIntegrationRequest: allow_partial_rollout,
    UnpublishIncomingIntegrationRequest,
    RegenerateEndpointRequest,
    PauseIncomingIntegrationRequest,
    ResumeIncomingIntegrationRequest,
    StartCaptureRequest,
    CancelCaptureRequest,
    ConfirmCaptureRequest,
    RotateTokenKeyRequest,
    CreateOutgoingIntegrationRequest,
    UpdateOutgoingIntegrationRequest,
    DeleteOutgoingIntegrationRequest,
    UndeleteOutgoingIntegrationRequest,
    PublishOutgoingIntegrationRequest: allow_partial_rollout,
    UnpublishOutgoingIntegrationRequest,
    ImportCurlRequest,
    CreateWorkflowRequest,
    UpdateWorkflowRequest,
    DeleteWorkflowRequest,
    UndeleteWorkflowRequest,
    PublishWorkflowRequest: allow_partial_rollout,
    UnpublishWorkflowRequest,
    StageSecretRequest,
    ActivateSecretRequest,
    RevertSecretRequest,
    RetireSecretRequest,
    ReplayDeliveriesRequest,
    RetryDeliveryRequest,
    CancelDeliveryRequest,
    CancelOperationRequest,
    RotateDataKeyRequest,
    ConfirmDeletionsRequest,
    CreateSnippetRequest,
    UpdateSnippetRequest,
    DeleteSnippetRequest,
    UndeleteSnippetRequest,
    PublishSnippetRequest: allow_partial_rollout,
    UnpublishSnippetRequest,
    CreateSchemaTemplateRequest,
    UpdateSchemaTemplateRequest,
    DeleteSchemaTemplateRequest,
    UndeleteSchemaTemplateRequest,
    PublishSchemaTemplateRequest,
    UnpublishSchemaTemplateRequest,
    CreateEventDefinitionRequest,
    UpdateEventDefinitionRequest,
    DeleteEventDefinitionRequest,
    UndeleteEventDefinitionRequest,
    CreateTestProfileRequest,
    UpdateTestProfileRequest,
    DeleteTestProfileRequest,
    UndeleteTestProfileRequest,
    RollbackVersionRequest: allow_partial_rollout,
    PublishDraftsRequest: allow_partial_rollout,
    ApplyConfigurationRequest: allow_partial_rollout,
    CreateApiKeyRequest,
    UpdateApiKeyRequest,
    DeleteApiKeyRequest,
    CreateRoleRequest,
    UpdateRoleRequest,
    DeleteRoleRequest,
    CreateServiceAccountRequest,
    UpdateServiceAccountRequest,
    DeleteServiceAccountRequest,
    SendTestRequestRequest,
    RetrieveAuthResponseRequest,
    TestConnectionRequest,
    UpdateResponseEventRequest,
    CreateJoinTokenRequest,
    DeleteJoinTokenRequest,
    DeleteDataPlaneRequest,
    DrainDataPlaneRequest,
    ResumeDataPlaneRequest,
    StartStoreEpochRequest,
);

/// What is known of a changing call before it begins.
pub(crate) struct Call {
    /// Check everything and change nothing.
    pub(crate) validate_only: bool,
    allows_partial_rollout: bool,
    caller: Caller,
    /// Who calls and the caller's id of the request, when it has one.
    request: Option<(String, String)>,
    /// A keyed hash of method and request: requests may hold secrets.
    fingerprint: [u8; 32],
    /// Broken rules of the call itself.
    found: Vec<Violation>,
}

/// A change that has begun, or the answer it got before.
pub(crate) enum Begun<R> {
    New(Change),
    Known(R),
}

/// A change under way. Dropped without [`Change::finish`], nothing of it remains.
pub(crate) struct Change {
    pub(crate) tx: Transaction,
    pub(crate) now: UnixMillis,
    /// Every broken rule so far. They are told together, and no change that has one is finished.
    pub(crate) found: Vec<Violation>,
    /// The fields that are changed, when there was something before.
    changed: Option<Vec<String>>,
    call: Call,
}

impl Call {
    /// Unpacks a changing request.
    pub(crate) fn open<M: Changing>(shared: &Shared, request: Request<M>) -> Result<(Self, M), Failure> {
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Failure::Internal("a request came past the door".to_owned()))?;
        let message = request.into_inner();
        let mut found = Vec::new();
        let id = message.request_id();
        if !id.is_empty() && !is_uuid(id) {
            found.push(violation("request_id", "UUID_INVALID", "must be a UUID in lower case, or empty"));
        }
        let (validate_only, allows_partial_rollout) = (message.validate_only(), message.allows_partial_rollout());
        let request = (!id.is_empty() && found.is_empty() && !validate_only)
            .then(|| (caller.access.key_id.clone(), id.to_owned()));
        let fingerprint = shared.secrets.mac(&[b"request", caller.attempt.method.as_bytes(), &message.encode_to_vec()]);
        Ok((Self { validate_only, allows_partial_rollout, caller, request, fingerprint, found }, message))
    }

    /// Who makes it.
    pub(crate) fn access(&self) -> &Access {
        &self.caller.access
    }

    /// The answer to the same request, if it was answered before; for calls that hold no transaction while they work.
    pub(crate) async fn known<R: Message + Default>(&self, shared: &Shared) -> Result<Option<R>, Failure> {
        match &self.request {
            Some((caller, id)) => self.answered(shared, &mut shared.store.read().await?, caller, id).await,
            None => Ok(None),
        }
    }

    /// What this caller was answered under this id.
    async fn answered<R: Message + Default>(
        &self,
        shared: &Shared,
        tx: &mut Transaction,
        caller: &str,
        id: &str,
    ) -> Result<Option<R>, Failure> {
        let since = shared.settings.clock.now() - REMEMBERED_MILLIS;
        let Some(before) = tx.request(caller, id, since).await? else { return Ok(None) };
        if before.hash != self.fingerprint {
            return Err(Failure::RequestIdReused);
        }
        self.caller.settled.settle();
        let answer = R::decode(before.answer.as_slice());
        answer.map(Some).map_err(|error| Failure::Internal(format!("a stored answer: {error}")))
    }

    /// Begins the change, unless the same request was answered before.
    pub(crate) async fn begin<R: Message + Default>(mut self, shared: &Shared) -> Result<Begun<R>, Failure> {
        let mut tx = shared.store.write().await?;
        let now = shared.settings.clock.now();
        if let Some((caller, id)) = &self.request
            && let Some(answer) = self.answered(shared, &mut tx, caller, id).await?
        {
            return Ok(Begun::Known(answer));
        }
        let found = std::mem::take(&mut self.found);
        Ok(Begun::New(Change { tx, now, found, changed: None, call: self }))
    }
}

impl Change {
    /// Whether nothing of it will remain.
    pub(crate) fn validate_only(&self) -> bool {
        self.call.validate_only
    }

    /// Whether it goes on although connected data planes are too old for what it puts in force.
    pub(crate) fn allows_partial_rollout(&self) -> bool {
        self.call.allows_partial_rollout
    }

    /// Who makes it.
    pub(crate) fn caller(&self) -> &Access {
        &self.call.caller.access
    }

    /// Refuses the change if any rule is broken.
    pub(crate) fn refuse_broken(&mut self) -> Result<(), Failure> {
        if self.found.is_empty() { Ok(()) } else { Err(Failure::Fields(std::mem::take(&mut self.found))) }
    }

    /// Makes the change durable, remembers its answer and wakes whoever waits for changes.
    pub(crate) async fn finish<R: Message>(mut self, shared: &Shared, answer: R) -> Result<R, Failure> {
        self.refuse_broken()?;
        if self.call.validate_only {
            return Ok(answer);
        }
        let encoded = answer.encode_to_vec();
        self.write_down(shared, &encoded).await?;
        if let Some((caller, id)) = &self.call.request {
            let request = Remembered { hash: self.call.fingerprint.to_vec(), answer: encoded };
            self.tx.request_put(caller, id, &request, self.now).await?;
        }
        let method = self.call.caller.attempt.method.as_str();
        self.call.caller.settled.begin();
        shared.settings.reached(Moment::ChangeWritten, method);
        self.tx.commit().await?;
        shared.settings.reached(Moment::ChangeCommitted, method);
        self.call.caller.settled.settle();
        shared.metrics.audit_entry(AuditOutcome::Done);
        shared.tell(Topic::Revisions);
        Ok(answer)
    }

    /// Says which fields the change makes others, of a message of this name.
    pub(crate) fn changes<M: Message>(&mut self, kind: &str, before: &M, after: &M) -> Result<(), Failure> {
        let changed = differences(&tree(kind, before)?, &tree(kind, after)?);
        self.changed.get_or_insert_default().extend(changed.into_iter().map(|change| change.path));
        Ok(())
    }

    /// Says which fields of several resources the change makes others.
    pub(crate) fn writes(&mut self, fields: Vec<String>) {
        self.changed = Some(fields);
    }

    /// Says for which fields the change brings new secrets.
    pub(crate) fn changes_secrets<'a>(&mut self, fields: impl Iterator<Item = &'a str>) {
        self.changed.get_or_insert_default().extend(fields.map(str::to_owned));
    }

    /// Adds the change to the audit log, as a part of it (A09, A10).
    async fn write_down(&mut self, shared: &Shared, answer: &[u8]) -> Result<(), Failure> {
        let Caller { access, attempt, .. } = &self.call.caller;
        let mut entry = attempt.entry(Some(access), AuditOutcome::Done);
        let made = shared.contract.method(&attempt.method).map(|method| method.answered(answer)).unwrap_or_default();
        if made.starts_with(&entry.resource) {
            entry.resource = made;
        }
        if let Some(changed) = self.changed.take() {
            entry.fields = changed.into_iter().take(FIELDS_MAX).collect();
        }
        let log = attempt.log(&mut self.tx, Some(access)).await?;
        Ok(audit::append(&mut self.tx, &shared.secrets, &log, entry, self.now).await?)
    }
}
