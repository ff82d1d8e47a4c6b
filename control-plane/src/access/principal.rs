//! The three kinds of principals: what each may hold, and which rules it keeps by itself. Where they are kept, and how their names
//! read.

use prost::Message;
use sluice_core::validate::{Check, NAME_CHARS_MAX, Violation};
use sluice_proto::admin::v1::{AccessKey, Role, ServiceAccount};

use super::key::prefix;
use super::roles;
use crate::clock::{UnixMillis, millis, timestamp};
use crate::error::Failure;
use crate::names::{self, workspace_name};
use crate::resource::Stamp;
use crate::store::Transaction;

/// Most roles of a key or a service account.
pub(super) const ROLES_MAX: usize = 20;
/// Most permissions of a role.
const PERMISSIONS_MAX: usize = 200;
/// Most networks of a key.
const NETWORKS_MAX: usize = 50;

/// An API key, a role or a service account.
pub(crate) trait Principal: Message + Default + Clone + PartialEq + Send + Sync + 'static {
    /// The full name of the message.
    const MESSAGE: &'static str;
    /// The part of its name before the id.
    const COLLECTION: &'static str;
    /// The field of requests that holds one.
    const FIELD: &'static str;
    /// The field of create requests that holds the id.
    const ID_FIELD: &'static str;
    /// The fields a caller may change.
    const MUTABLE: &'static [&'static str];
    /// Most of them in one workspace, or of the server.
    const MAX: usize;

    /// Sets the fields that only the server writes; the default clears them.
    fn stamp(&mut self, stamp: Stamp);
    /// The name and the etag as the caller sent them.
    fn sent(&self) -> (&str, &str);
    /// Takes one of [`Principal::MUTABLE`] from `other`.
    fn copy(&mut self, field: &str, other: &Self);
    /// The names of its roles.
    fn roles(&self) -> &[String];
    /// The permissions it has by itself.
    fn permissions(&self) -> &[String];
    /// Its broken rules, but for names that lead nowhere; `before` is what is to be changed.
    fn violations(&self, before: Option<&Self>, now: UnixMillis) -> Vec<Violation>;
    /// The field that `self` has otherwise than `sent`, and that never changes.
    fn fixed(&self, _sent: &Self) -> Option<&'static str> {
        None
    }
    /// Adds what is known elsewhere.
    fn complete(self, _tx: &mut Transaction) -> impl Future<Output = Result<Self, Failure>> + Send {
        std::future::ready(Ok(self))
    }
}

macro_rules! stamp_common {
    () => {
        fn sent(&self) -> (&str, &str) {
            (&self.name, &self.etag)
        }

        fn stamp(&mut self, stamp: Stamp) {
            self.name = stamp.name;
            self.uid = stamp.uid;
            self.etag = stamp.etag;
            self.create_time = stamp.create_time;
            self.update_time = stamp.update_time;
            self.clear_derived();
        }
    };
}

impl Principal for AccessKey {
    const MESSAGE: &'static str = "sluice.admin.v1.AccessKey";
    const COLLECTION: &'static str = "apiKeys";
    const FIELD: &'static str = "api_key";
    const ID_FIELD: &'static str = "";
    const MUTABLE: &'static [&'static str] = &["display_name", "roles", "expire_time", "allowed_networks"];
    const MAX: usize = 1000;

    stamp_common!();

    fn copy(&mut self, field: &str, other: &Self) {
        match field {
            "display_name" => self.display_name.clone_from(&other.display_name),
            "roles" => self.roles.clone_from(&other.roles),
            "expire_time" => self.expire_time = other.expire_time,
            "allowed_networks" => self.allowed_networks.clone_from(&other.allowed_networks),
            _ => {}
        }
    }

    fn roles(&self) -> &[String] {
        &self.roles
    }

    fn permissions(&self) -> &[String] {
        &[]
    }

    fn violations(&self, before: Option<&Self>, now: UnixMillis) -> Vec<Violation> {
        let mut check = Check::default();
        check.name("display_name", &self.display_name, NAME_CHARS_MAX);
        check.count("roles", self.roles.len(), ROLES_MAX);
        check.count("allowed_networks", self.allowed_networks.len(), NETWORKS_MAX);
        for (index, text) in self.allowed_networks.iter().enumerate().take(NETWORKS_MAX) {
            if network(text).is_none() {
                let message = "must be a network such as `10.1.0.0/16`, or an address";
                check.fail(&format!("allowed_networks[{index}]"), "NETWORK_INVALID", message);
            }
        }
        let known = before.and_then(|before| before.expire_time);
        let fresh = self.expire_time.filter(|at| known.as_ref() != Some(at));
        if fresh.is_some_and(|at| at.seconds < 0 || !(0..1_000_000_000).contains(&at.nanos) || millis(&at) <= now) {
            check.fail("expire_time", "NOT_IN_FUTURE", "must lie in the future");
        }
        if !self.service_account.is_empty() && !self.roles.is_empty() {
            check.fail("roles", "NOT_ALLOWED", "must be empty: the key has the roles of its service account");
        }
        check.finish(None::<()>).err().unwrap_or_default()
    }

    fn fixed(&self, sent: &Self) -> Option<&'static str> {
        (!sent.service_account.is_empty() && sent.service_account != self.service_account).then_some("service_account")
    }

    /// Adds what the checks of calls know of the key.
    async fn complete(mut self, tx: &mut Transaction) -> Result<Self, Failure> {
        let (_, id) = Place::split::<Self>(&self.name, "name")?;
        if let Some(row) = tx.api_key(id).await? {
            self.key_prefix = prefix(&row.id);
            self.last_use_time = (row.last_use_time > 0).then(|| timestamp(row.last_use_time));
            self.permissions = roles::allowed(&row.permissions).into_iter().map(str::to_owned).collect();
            self.from_file = !row.role.is_empty();
        }
        Ok(self)
    }
}

impl Principal for Role {
    const MESSAGE: &'static str = "sluice.admin.v1.Role";
    const COLLECTION: &'static str = "roles";
    const FIELD: &'static str = "role";
    const ID_FIELD: &'static str = "role_id";
    const MUTABLE: &'static [&'static str] = &["display_name", "permissions"];
    const MAX: usize = 100;

    stamp_common!();

    fn copy(&mut self, field: &str, other: &Self) {
        match field {
            "display_name" => self.display_name.clone_from(&other.display_name),
            "permissions" => self.permissions.clone_from(&other.permissions),
            _ => {}
        }
    }

    fn roles(&self) -> &[String] {
        &[]
    }

    fn permissions(&self) -> &[String] {
        &self.permissions
    }

    fn violations(&self, _: Option<&Self>, _: UnixMillis) -> Vec<Violation> {
        let mut check = Check::default();
        check.name("display_name", &self.display_name, NAME_CHARS_MAX);
        check.count("permissions", self.permissions.len(), PERMISSIONS_MAX);
        let known = roles::permissions();
        for (index, permission) in self.permissions.iter().enumerate().take(PERMISSIONS_MAX) {
            let field = format!("permissions[{index}]");
            if !known.contains(permission.as_str()) {
                check.fail(&field, "PERMISSION_UNKNOWN", "is no permission; the role `admin` shows those there are");
            } else if self.permissions[..index].contains(permission) {
                check.fail(&field, "REPEATED", "is there twice");
            }
        }
        check.finish(None::<()>).err().unwrap_or_default()
    }
}

impl Principal for ServiceAccount {
    const MESSAGE: &'static str = "sluice.admin.v1.ServiceAccount";
    const COLLECTION: &'static str = "serviceAccounts";
    const FIELD: &'static str = "service_account";
    const ID_FIELD: &'static str = "service_account_id";
    const MUTABLE: &'static [&'static str] = &["display_name", "roles"];
    const MAX: usize = 1000;

    stamp_common!();

    fn copy(&mut self, field: &str, other: &Self) {
        match field {
            "display_name" => self.display_name.clone_from(&other.display_name),
            "roles" => self.roles.clone_from(&other.roles),
            _ => {}
        }
    }

    fn roles(&self) -> &[String] {
        &self.roles
    }

    fn permissions(&self) -> &[String] {
        &[]
    }

    fn violations(&self, _: Option<&Self>, _: UnixMillis) -> Vec<Violation> {
        let mut check = Check::default();
        check.name("display_name", &self.display_name, NAME_CHARS_MAX);
        check.count("roles", self.roles.len(), ROLES_MAX);
        check.finish(None::<()>).err().unwrap_or_default()
    }
}

/// Clears what is shown and never stored.
trait Derived {
    fn clear_derived(&mut self);
}

impl Derived for AccessKey {
    fn clear_derived(&mut self) {
        self.key_prefix.clear();
        self.last_use_time = None;
        self.key.clear();
        self.permissions.clear();
        self.from_file = false;
    }
}

impl Derived for Role {
    fn clear_derived(&mut self) {
        self.built_in = false;
    }
}

impl Derived for ServiceAccount {
    fn clear_derived(&mut self) {}
}

pub(super) fn network(text: &str) -> Option<ipnet::IpNet> {
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(Into::into))
}

/// Where principals are kept: in a workspace, or by the server, whose id is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place(pub(super) String);

impl Place {
    pub(super) fn of(parent: &str) -> Result<Self, Failure> {
        if parent.is_empty() { Ok(Self(String::new())) } else { names::workspace_id(parent, "parent").map(Self) }
    }

    /// The place and the id in a name.
    pub(super) fn split<'a, P: Principal>(name: &'a str, field: &str) -> Result<(Self, &'a str), Failure> {
        let collection = P::COLLECTION;
        let own = |rest: &'a str| rest.strip_prefix(collection).and_then(|rest| rest.strip_prefix('/'));
        let plain =
            |id: &&str| !id.is_empty() && id.len() <= 63 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let found = match names::split(name) {
            Some((workspace, found, id)) if found == collection => Some((Self(workspace.to_owned()), id)),
            Some(_) => None,
            None => own(name).map(|id| (Self(String::new()), id)),
        };
        found.filter(|(_, id)| plain(id)).ok_or_else(|| {
            let message = format!("must be `workspaces/{{workspace}}/{collection}/{{id}}` or `{collection}/{{id}}`");
            Failure::field(field, "NAME_INVALID", message)
        })
    }

    pub(super) fn is_server(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn name<P: Principal>(&self, id: &str) -> String {
        match self.is_server() {
            true => format!("{}/{id}", P::COLLECTION),
            false => format!("{}/{}/{id}", workspace_name(&self.0), P::COLLECTION),
        }
    }
}
