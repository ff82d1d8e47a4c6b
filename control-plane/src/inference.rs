//! Schema templates that samples suggest (D25). Hides where a sample is kept and how a document is read.

use bytes::Bytes;
use sluice_core::envelope::Body;
use sluice_core::flatten::Limits;
use sluice_core::wire::{Proposal, of_json, of_sample};
use sluice_proto::admin::v1::infer_schema_template_request::Source;
use sluice_proto::admin::v1::{
    IncomingIntegration, InferSchemaTemplateRequest, InferSchemaTemplateResponse, SchemaTemplate,
};

use crate::error::Failure;
use crate::names;
use crate::resource::Resource as _;
use crate::shared::Shared;
use crate::stored::Stored;

/// Proposes a schema template; nothing is stored.
pub(crate) async fn infer(
    shared: &Shared,
    asked: InferSchemaTemplateRequest,
) -> Result<InferSchemaTemplateResponse, Failure> {
    let workspace = names::workspace_id(&asked.parent, "parent")?;
    let mut tx = shared.store.read().await?;
    tx.workspace(&workspace).await?.ok_or_else(|| Failure::NotFound(asked.parent.clone()))?;
    let (display_name, Proposal { fields, left_out }) = match asked.source {
        None => return Err(Failure::field("source", "REQUIRED", "one of incoming_integration, json is required")),
        Some(Source::IncomingIntegration(name)) => {
            const FIELD: &str = "incoming_integration";
            let parsed = names::parse(&name, IncomingIntegration::COLLECTION, FIELD)?;
            let row = match parsed.workspace == workspace {
                true => tx.document(&workspace, &parsed.full).await?.filter(|row| row.delete_time == 0),
                false => None,
            };
            let missing = || Failure::field(FIELD, "RESOURCE_NOT_FOUND", "does not exist in this workspace");
            let draft = Stored::<IncomingIntegration>::of(row.ok_or_else(missing)?)?.draft;
            let message = "has no confirmed sample: capture a request and confirm it first (R169)";
            let sample = draft.sample.ok_or_else(|| Failure::field(FIELD, "NO_SAMPLE", message))?;
            (draft.display_name, of_sample(&sample))
        }
        Some(Source::Json(text)) => {
            let read = Body::read(&Bytes::from(text), &Limits::default());
            let body = read.map_err(|problem| Failure::field("json", "JSON_INVALID", problem.to_string()))?;
            (String::new(), of_json(body))
        }
    };
    Ok(InferSchemaTemplateResponse {
        schema_template: Some(SchemaTemplate { display_name, fields, ..SchemaTemplate::default() }),
        left_out: i32::try_from(left_out).unwrap_or(i32::MAX),
    })
}
