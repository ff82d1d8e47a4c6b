//! How a data plane joins, gets its next certificate, and is let go. Each is one transaction: of two that come with the same token one
//! wins (A12).

use std::net::IpAddr;

use sluice_core::join_token::JoinToken;
use sluice_proto::admin::v1::{AuditOutcome, DataPlane, DeleteDataPlaneRequest, DeleteDataPlaneResponse};
use sluice_proto::sync::v1::{
    EnrollDataPlaneRequest, EnrollDataPlaneResponse, RenewDataPlaneRequest, RenewDataPlaneResponse,
};
use sluice_tls::authority::{Authority, BadRequest, REQUEST_BYTES_MAX, Requested};
use sluice_tls::identity::{ID_BYTES_MAX, is_id};

use super::LIFE_MILLIS;
use super::rights::{Rights, Scope};
use crate::audit::{self, Attempt, Log};
use crate::call::{Begun, Call};
use crate::clock::{UnixMillis, timestamp};
use crate::door::Settled;
use crate::error::{CertificateProblem, Failure, TokenProblem};
use crate::secrets::random;
use crate::shared::Shared;
use crate::store::{EnrolledRow, JoinTokenRow, Transaction};

/// Most data planes that have joined.
const ENROLLED_MAX: i64 = 10_000;

/// Lets a data plane join. Tokens that are not accepted are counted by where they come from, as wrong API keys are.
pub(crate) async fn enroll(
    shared: &Shared,
    attempt: &Attempt,
    settled: &Settled,
    asked: &EnrollDataPlaneRequest,
) -> Result<EnrollDataPlaneResponse, Failure> {
    let now = shared.settings.clock.now();
    match join(shared, attempt, asked, now).await {
        Ok(answer) => {
            settled.settle();
            Ok(answer)
        }
        Err(Failure::JoinTokenInvalid(problem)) => Err(counted(shared, problem, attempt.source, now)),
        Err(failure) => Err(failure),
    }
}

fn counted(shared: &Shared, problem: TokenProblem, source: Option<IpAddr>, now: UnixMillis) -> Failure {
    let per_minute = shared.settings.limits.failed_keys_per_minute;
    match shared.failed_keys.count(source, per_minute, now) {
        true => Failure::JoinTokenInvalid(problem),
        false => Failure::Overloaded("failed_keys_per_minute"),
    }
}

async fn join(
    shared: &Shared,
    attempt: &Attempt,
    asked: &EnrollDataPlaneRequest,
    now: UnixMillis,
) -> Result<EnrollDataPlaneResponse, Failure> {
    let shown = JoinToken::parse(&asked.join_token).ok_or(Failure::JoinTokenInvalid(TokenProblem::Malformed))?;
    // The right to write comes before the look: who is second sees that the token is used.
    let mut tx = shared.store.write().await?;
    let token = tx.join_token(&shown.id).await?.filter(|row| shown.is(&row.hash));
    let mut token = token.ok_or(Failure::JoinTokenInvalid(TokenProblem::Unknown))?;
    if token.expire_time <= now {
        return Err(Failure::JoinTokenInvalid(TokenProblem::Expired));
    }
    let authority = shared.authority.as_ref().ok_or(Failure::TlsOff)?;
    let id = asked.data_plane_id.as_str();
    if !is_id(id) {
        let message = format!("must be 1 to {ID_BYTES_MAX} letters, digits, `-`, `_` and `.`");
        return Err(Failure::field("data_plane_id", "ID_INVALID", message));
    }
    let requested = requested(&asked.certificate_request)?;
    let mut plane = match token.use_time {
        0 => first(&mut tx, &token, id, now).await?,
        _ => again(&mut tx, &token, id, &requested).await?,
    };
    let certificate = vouched(authority, &requested, &plane, now)?;
    plane.expire_time = now + LIFE_MILLIS;
    tx.enrolled_put(&plane).await?;
    if token.use_time == 0 {
        id.clone_into(&mut token.data_plane);
        (token.use_time, token.key_hash) = (now, requested.fingerprint().to_vec());
        tx.join_token_put(&token).await?;
    }
    let mut entry = attempt.entry(None, AuditOutcome::Done);
    entry.principal = format!("joinTokens/{}", token.id);
    entry.resource = format!("dataPlanes/{id}");
    audit::append(&mut tx, &shared.secrets, &Log::default(), entry, now).await?;
    tx.commit().await?;
    tracing::info!(data_plane = id, join_token = token.id, "a data plane has joined");
    Ok(EnrollDataPlaneResponse { certificate: certificate.into(), authority: authority.certificate().to_vec().into() })
}

fn requested(request: &[u8]) -> Result<Requested, Failure> {
    const FIELD: &str = "certificate_request";
    Requested::read(request).map_err(|problem| match problem {
        BadRequest::Unreadable => {
            let message = format!("must be a PKCS#10 request in DER form of at most {REQUEST_BYTES_MAX} bytes");
            Failure::field(FIELD, "REQUEST_INVALID", message)
        }
        BadRequest::Unsigned => Failure::field(FIELD, "SIGNATURE_INVALID", "is not signed by its own key"),
        BadRequest::KeyKind => {
            Failure::field(FIELD, "KEY_INVALID", "must be for an ECDSA key on P-256 or an Ed25519 key")
        }
    })
}

/// A data plane that was not there before.
async fn first(tx: &mut Transaction, token: &JoinTokenRow, id: &str, now: UnixMillis) -> Result<EnrolledRow, Failure> {
    if tx.enrolled(id).await?.is_some() {
        return Err(Failure::Exists(format!("dataPlanes/{id}")));
    }
    if tx.enrolled_count().await? >= ENROLLED_MAX {
        return Err(Failure::Overloaded("data planes"));
    }
    let mut enrolment: [u8; 8] = random().map_err(randomness)?;
    // A serial number is positive and has no leading zero.
    enrolment[0] = enrolment[0] & 0x3f | 0x40;
    Ok(EnrolledRow {
        id: id.to_owned(),
        enrolment: enrolment.to_vec(),
        workspaces: token.workspaces.clone(),
        enroll_time: now,
        renew_time: now,
        expire_time: 0,
    })
}

/// The one that has used the token, whose answer was lost.
async fn again(
    tx: &mut Transaction,
    token: &JoinTokenRow,
    id: &str,
    requested: &Requested,
) -> Result<EnrolledRow, Failure> {
    let used = Failure::JoinTokenInvalid(TokenProblem::Used);
    if token.data_plane != id || token.key_hash != requested.fingerprint() {
        return Err(used);
    }
    // One that was deleted in between does not come back with the same token.
    let row = tx.enrolled(id).await?;
    row.filter(|row| row.enroll_time == token.use_time).ok_or(used)
}

/// Gives the data plane that calls its next certificate.
pub(crate) async fn renew(
    shared: &Shared,
    rights: &Rights,
    asked: &RenewDataPlaneRequest,
) -> Result<RenewDataPlaneResponse, Failure> {
    let missing = Failure::CertificateInvalid(CertificateProblem::Missing);
    let (Some(identity), Some(authority)) = (rights.identity(), &shared.authority) else { return Err(missing) };
    let requested = requested(&asked.certificate_request)?;
    let now = shared.settings.clock.now();
    let mut tx = shared.store.write().await?;
    let plane = tx.enrolled(&identity.id).await?.filter(|row| row.enrolment == identity.enrolment);
    let mut plane = plane.ok_or(Failure::CertificateInvalid(CertificateProblem::Revoked))?;
    let certificate = vouched(authority, &requested, &plane, now)?;
    (plane.renew_time, plane.expire_time) = (now, now + LIFE_MILLIS);
    tx.enrolled_put(&plane).await?;
    tx.commit().await?;
    Ok(RenewDataPlaneResponse { certificate: certificate.into() })
}

fn vouched(
    authority: &Authority,
    requested: &Requested,
    plane: &EnrolledRow,
    now: UnixMillis,
) -> Result<Vec<u8>, Failure> {
    let tail: [u8; 8] = random().map_err(randomness)?;
    let serial = [plane.enrolment.as_slice(), &tail].concat();
    let serial = serial.try_into().map_err(|_| Failure::Internal("a stored enrolment is not 8 bytes".to_owned()))?;
    let made = authority.vouch(requested, &plane.id, serial, now, LIFE_MILLIS);
    made.map_err(|error| Failure::Internal(error.to_string()))
}

fn randomness(error: getrandom::Error) -> Failure {
    Failure::Internal(format!("the system gives no random numbers: {error}"))
}

/// Changes when the data plane joins again.
fn etag_of(plane: &EnrolledRow) -> String {
    hex::encode(&plane.enrolment)
}

/// Adds to what is shown of a data plane what is known of it because it has joined.
pub(crate) fn show_joined(plane: &EnrolledRow, shown: &mut DataPlane) {
    shown.name = format!("dataPlanes/{}", plane.id);
    shown.etag = etag_of(plane);
    shown.enroll_time = Some(timestamp(plane.enroll_time));
    shown.certificate_expire_time = Some(timestamp(plane.expire_time));
    shown.visible_workspaces = Scope::stored(&plane.workspaces).names();
}

/// Lets a data plane go: its certificates count no more, and its streams end.
pub(crate) async fn delete_data_plane(
    shared: &Shared,
    call: Call,
    asked: &DeleteDataPlaneRequest,
) -> Result<DeleteDataPlaneResponse, Failure> {
    let id = asked.name.strip_prefix("dataPlanes/").filter(|id| is_id(id));
    let id = id.ok_or_else(|| Failure::field("name", "NAME_INVALID", "must be `dataPlanes/{id}`"))?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let plane = change.tx.enrolled(id).await?.ok_or_else(|| Failure::NotFound(asked.name.clone()))?;
    if !asked.etag.is_empty() && asked.etag != etag_of(&plane) {
        return Err(Failure::EtagMismatch(asked.name.clone()));
    }
    change.tx.enrolled_delete(id).await?;
    let only_tried = change.validate_only();
    let answer = change.finish(shared, DeleteDataPlaneResponse {}).await?;
    if !only_tried {
        // Without a number nobody else is told: then each finds out by itself, as often as it checks rights.
        let number = shared.replicas.session_number(&shared.store).await.unwrap_or(i64::MIN);
        shared.data_planes.forget(id, number);
        tracing::info!(data_plane = id, "a data plane was deleted: its certificates count no more");
    }
    Ok(answer)
}
