//! Eagle Eye's hash, for that destination only (R056 to R059, F50 to F52).

use sha2::{Digest as _, Sha256};

use super::Finished;
use crate::seal::Secret;

/// What carries the client's id, and the hash.
pub(super) const HEADERS: [&str; 2] = ["X-EES-AUTH-CLIENT-ID", "X-EES-AUTH-HASH"];

/// Over path and query, body and secret, exactly as they are sent (F52); the secret is not sent.
pub(super) fn headers(client_id: &str, client_secret: &Secret, request: &Finished<'_>) -> Vec<(String, Secret)> {
    let hash = Sha256::new()
        .chain_update(request.url.path_and_query())
        .chain_update(request.body)
        .chain_update(client_secret.expose())
        .finalize();
    let values = [Secret::new(client_id), Secret::new(hex::encode(hash))];
    HEADERS.map(str::to_owned).into_iter().zip(values).collect()
}
