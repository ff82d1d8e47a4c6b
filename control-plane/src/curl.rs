//! cURL commands of outgoing integrations: read for an empty one, put into a draft, written from a draft or a version
//! (R085–R096). Hides what binds a confirmation to the list of changes it was given for: the draft's etag.

use std::collections::HashMap;
use std::sync::LazyLock;

use sluice_core::curl::{self, Import, Reason, Refusal};
use sluice_core::validate::Violation;
use sluice_proto::admin::v1::{
    CurlChange, CurlNote, CurlReading, CurlUrlParameter, ExportCurlResponse, IgnoredCurlOption, ImportCurlRequest,
    ImportCurlResponse, OutgoingIntegration, OutgoingRequest, ParseCurlRequest, ParseCurlResponse,
};

use crate::call::{Begun, Call};
use crate::error::{Failure, violation};
use crate::lifecycle::{lock, save, settle};
use crate::names;
use crate::resource::Resource as _;
use crate::shared::Shared;
use crate::stored::Stored;
use crate::versions;

/// The row of a connection in a list of changes. An import stores no credentials, so it is only suggested.
const CONNECTION: &str = "connection";

/// The reasons of refusals as violations name them, for example `CURL_READS_FILE`.
static REASONS: LazyLock<HashMap<Reason, String>> = LazyLock::new(|| {
    let named = |reason: &Reason| (*reason, format!("CURL_{}", reason.code().to_ascii_uppercase()));
    Reason::ALL.iter().map(named).collect()
});

/// What a command says, for an integration that is not stored yet.
pub(crate) async fn parse(shared: &Shared, asked: &ParseCurlRequest) -> Result<ParseCurlResponse, Failure> {
    let workspace = names::workspace_id(&asked.parent, "parent")?;
    let found = shared.store.read().await?.workspace(&workspace).await?;
    found.ok_or_else(|| Failure::NotFound(asked.parent.clone()))?;
    let import = curl::import(&asked.command).map_err(refused)?;
    let empty = curl::Request::default();
    let mut request = OutgoingRequest::default();
    import.applied_to(&empty).put_into(&mut request);
    Ok(ParseCurlResponse { request: Some(request), reading: Some(reading(&import, &empty)) })
}

/// Puts a command into the draft, or says what that would change.
pub(crate) async fn import(
    shared: &Shared,
    call: Call,
    asked: &ImportCurlRequest,
) -> Result<ImportCurlResponse, Failure> {
    let name = names::parse(&asked.name, OutgoingIntegration::COLLECTION, "name")?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let mut workspace = lock(&mut change, &name.workspace, &name.full).await?;
    let mut stored = Stored::<OutgoingIntegration>::load(&mut change.tx, &name, &asked.etag).await?;
    if asked.etag.is_empty() && !change.validate_only() {
        let message =
            "is required: ask with `validate_only` for the list of changes, and confirm it with that answer's etag";
        change.found.push(violation("etag", "REQUIRED", message));
    }
    let import = match curl::import(&asked.command) {
        Ok(import) => import,
        Err(refusal) => {
            change.found.push(refused_field(&refusal));
            return Err(Failure::Fields(change.found));
        }
    };
    let mut wanted = stored.draft.clone();
    let request = wanted.request.get_or_insert_default();
    let current = curl::Request::from(&*request);
    import.applied_to(&current).put_into(request);
    let before = Some((&stored.draft, stored.secrets.as_slice()));
    let (draft, taken) = settle(shared, &mut change, &name, wanted, before).await?;
    change.changes(OutgoingIntegration::MESSAGE, &stored.draft, &draft)?;
    if draft != stored.draft && !change.validate_only() {
        save(shared, &mut change, &mut workspace, &mut stored, draft, taken).await?;
    }
    let answer = ImportCurlResponse {
        etag: stored.etag(),
        changes: changes(&import, &current),
        reading: Some(reading(&import, &current)),
        name: name.full,
    };
    change.finish(shared, answer).await
}

/// The draft or the version `name` as a command.
pub(crate) async fn export(shared: &Shared, name: &str) -> Result<ExportCurlResponse, Failure> {
    let (document, number) = match name.contains("/versions/") {
        true => versions::split(name, "name").map(|(document, number)| (document, Some(number)))?,
        false => (name, None),
    };
    let parsed = names::parse(document, OutgoingIntegration::COLLECTION, "name")?;
    let mut tx = shared.store.read().await?;
    let mut found = Stored::<OutgoingIntegration>::find(&mut tx, &parsed, "").await?.draft;
    if let Some(number) = number {
        found = versions::content(&mut tx, &parsed, number).await?;
    }
    let request = curl::Request::from(&found.request.unwrap_or_default());
    let command = curl::export(&request);
    let command = command.map_err(|error| Failure::field("name", "CURL_NOT_POSSIBLE", error.to_string()))?;
    Ok(ExportCurlResponse { command })
}

fn refused(refusal: Refusal) -> Failure {
    Failure::Fields(vec![refused_field(&refusal)])
}

fn refused_field(refusal: &Refusal) -> Violation {
    let reason = REASONS.get(&refusal.reason).map_or("CURL_REFUSED", String::as_str);
    violation("command", reason, refusal.to_string())
}

fn reading(import: &Import, current: &curl::Request) -> CurlReading {
    let note = |note: &curl::Note| CurlNote { code: note.code().to_owned(), text: note.to_string() };
    let ignored = |ignored: &curl::IgnoredOption| IgnoredCurlOption {
        option: ignored.option.clone(),
        reason: ignored.why.to_owned(),
    };
    let parameter = |(name, value)| CurlUrlParameter { name, value };
    CurlReading {
        suggested_connection: import.connection.as_ref().map(ToString::to_string).unwrap_or_default(),
        notes: import.notes.iter().map(note).collect(),
        ignored_options: import.ignored.iter().map(ignored).collect(),
        missing_secrets: import.missing_secrets(current),
        url_parameters: import.request.url_parameters().into_iter().map(parameter).collect(),
    }
}

fn changes(import: &Import, current: &curl::Request) -> Vec<CurlChange> {
    let found = import.changes(current, None);
    let rows = found.rows().iter().filter(|row| row.path != CONNECTION);
    let change = |row: &curl::Change| CurlChange {
        path: row.path.clone(),
        old_value: row.old.clone(),
        new_value: row.new.clone(),
        masked: row.masked,
    };
    rows.map(change).collect()
}
