//! Who is calling and what it may do.
//!
//! | Module | Answers |
//! |---|---|
//! | `key` | what an API key looks like |
//! | `roles` | which permissions there are, and which of them a key's roles give |
//! | `files` | the two keys that are kept in files |
//! | `principal` | what keys, roles and service accounts are |
//! | `principals` | how keys, roles and service accounts are made, changed and deleted |

mod files;
mod key;
mod principal;
mod principals;
pub(crate) mod roles;

use std::net::IpAddr;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use ipnet::IpNet;

use crate::clock::UnixMillis;
use crate::enrolment::Rights;
use crate::error::{Failure, KeyProblem};
use crate::names::workspace_name;
use crate::store::{ApiKeyRow, Store, StoreError, Transaction};

pub(crate) use files::reconcile_keys;
pub(crate) use principals::{create, create_key, delete, get, get_role, list, list_keys, list_roles, update};

use key::{Key, NoKey};

/// Longest header that is looked at, in bytes: a key and `Bearer `.
const HEADER_BYTES_MAX: usize = key::KEY_BYTES + 16;

/// A caller whose key is known.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// The public part of its key.
    pub(crate) key_id: String,
    /// The id of the workspace beyond which it sees nothing; `None` for a key of the server.
    pub(crate) workspace: Option<String>,
    /// The service account, or the key itself.
    pub(crate) principal: String,
    /// When the key was used last, as far as the store knows.
    pub(crate) last_use_time: UnixMillis,
    /// Of a data plane.
    pub(crate) rights: Rights,
    grants: String,
}

impl Access {
    /// Whether the caller has the permission, for example `connections.create`.
    pub(crate) fn may(&self, permission: &str) -> bool {
        roles::allows(&self.grants, permission)
    }

    /// A data plane that has shown a certificate, which gives it what data planes may and nothing else.
    pub(crate) fn of_data_plane(rights: Rights) -> Self {
        let id = rights.identity().map(|identity| identity.id.as_str()).unwrap_or_default();
        Self {
            key_id: String::new(),
            workspace: None,
            principal: format!("dataPlanes/{id}"),
            last_use_time: 0,
            grants: "@data-plane".to_owned(),
            rights,
        }
    }

    /// The name of its key; empty when it came with a certificate.
    pub(crate) fn key_name(&self) -> String {
        if self.rights.identity().is_some() {
            return String::new();
        }
        key_name(self.workspace.as_deref().unwrap_or_default(), &self.key_id)
    }

    /// Whether the caller may give the permission to others.
    fn may_give(&self, permission: &str) -> bool {
        self.may(permission) || (permission == roles::WEBHOOK && self.may("apiKeys.create"))
    }
}

/// Finds the caller by its key, which came from `source`.
///
/// # Errors
/// `KeyInvalid` unless there is exactly one `authorization: Bearer <key>` with a key that is known and in force here and now.
pub(crate) async fn authenticate(
    store: &Store,
    headers: &HeaderMap,
    source: Option<IpAddr>,
    now: UnixMillis,
) -> Result<Access, Failure> {
    let key = presented(headers).map_err(Failure::KeyInvalid)?;
    let row = store.read().await?.api_key(&key.id).await?;
    let row = row.filter(|row| key.is(&row.hash)).ok_or(Failure::KeyInvalid(KeyProblem::Unknown))?;
    match refused(&row, source, now) {
        Some(problem) => Err(Failure::KeyInvalid(problem)),
        None => Ok(Access {
            principal: if row.account.is_empty() { key_name(&row.workspace, &row.id) } else { row.account },
            key_id: row.id,
            workspace: Some(row.workspace).filter(|workspace| !workspace.is_empty()),
            last_use_time: row.last_use_time,
            rights: Rights::default(),
            grants: row.permissions,
        }),
    }
}

fn presented(headers: &HeaderMap) -> Result<Key, KeyProblem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(KeyProblem::Missing) };
    let text = value.to_str().ok().filter(|text| text.len() <= HEADER_BYTES_MAX).ok_or(KeyProblem::Malformed)?;
    let (scheme, key) = text.split_once(' ').ok_or(KeyProblem::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(KeyProblem::Missing);
    }
    Key::parse(key).map_err(|no_key| match no_key {
        NoKey::Malformed => KeyProblem::Malformed,
        NoKey::Mistyped => KeyProblem::Mistyped,
    })
}

/// Why a key is not in force here and now.
fn refused(row: &ApiKeyRow, source: Option<IpAddr>, now: UnixMillis) -> Option<KeyProblem> {
    let within = |source: IpAddr| {
        let source = source.to_canonical();
        row.networks.split(' ').any(|network| network.parse::<IpNet>().is_ok_and(|network| network.contains(&source)))
    };
    if row.revoke_time != 0 {
        Some(KeyProblem::Revoked)
    } else if row.expire_time != 0 && row.expire_time <= now {
        Some(KeyProblem::Expired)
    } else if !row.networks.is_empty() && !source.is_some_and(within) {
        Some(KeyProblem::Network)
    } else {
        None
    }
}

/// The keys of a workspace that senders may log in with (D14): with the permission, expired or not.
pub(crate) async fn senders(tx: &mut Transaction, workspace: &str) -> Result<Vec<ApiKeyRow>, StoreError> {
    let mut keys = tx.api_keys(workspace).await?;
    keys.retain(|key| roles::allows(&key.permissions, roles::WEBHOOK));
    Ok(keys)
}

/// The name of a key.
pub(crate) fn key_name(workspace: &str, id: &str) -> String {
    match workspace {
        "" => format!("apiKeys/{id}"),
        workspace => format!("{}/apiKeys/{id}", workspace_name(workspace)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> ApiKeyRow {
        ApiKeyRow {
            id: "abcdefgh".to_owned(),
            workspace: String::new(),
            role: String::new(),
            account: String::new(),
            hash: Vec::new(),
            permissions: String::new(),
            networks: String::new(),
            expire_time: 0,
            last_use_time: 0,
            create_time: 0,
            revoke_time: 0,
        }
    }

    #[test]
    fn a_key_is_in_force_until_and_from_where_it_says() {
        let ip = |text: &str| Some(text.parse().unwrap());
        assert_eq!(refused(&row(), None, 5), None);
        assert_eq!(refused(&ApiKeyRow { expire_time: 6, ..row() }, None, 5), None);
        assert_eq!(refused(&ApiKeyRow { expire_time: 5, ..row() }, None, 5), Some(KeyProblem::Expired));
        assert_eq!(refused(&ApiKeyRow { revoke_time: 1, ..row() }, None, 5), Some(KeyProblem::Revoked));
        let inside = ApiKeyRow { networks: "10.1.0.0/16 2001:db8::/32 192.0.2.7/32".to_owned(), ..row() };
        for good in ["10.1.255.255", "2001:db8::1", "::ffff:10.1.2.3", "192.0.2.7"] {
            assert_eq!(refused(&inside, ip(good), 5), None, "{good}");
        }
        for bad in [ip("10.2.0.0"), ip("2001:db9::1"), ip("192.0.2.8"), None] {
            assert_eq!(refused(&inside, bad, 5), Some(KeyProblem::Network), "{bad:?}");
        }
    }
}
