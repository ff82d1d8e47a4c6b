//! The life of API keys, roles and service accounts, the same for all three: each is in force with its change, nobody gives what he
//! does not hold, and what is used is not deleted. Hides how roles become the grants that calls are checked with.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::FieldMask;
use sluice_core::validate::resource_id;
use sluice_proto::admin::v1::{AccessKey, AccessKeyFilter, Role, ServiceAccount};
use uuid::Uuid;

use super::key;
use super::principal::{Place, Principal, ROLES_MAX, network};
use super::roles;
use crate::call::{Begun, Call, Change};
use crate::clock::{millis, timestamp};
use crate::error::{Failure, violation};
use crate::lifecycle::{USERS_NAMED, lock};
use crate::login_keys;
use crate::paging::List;
use crate::resource::Stamp;
use crate::shared::Shared;
use crate::store::{ApiKeyRow, PrincipalRow, Transaction, WorkspaceRow};
use crate::stored::etag;

/// A change under way in one place.
struct Opened {
    change: Change,
    place: Place,
    workspace: Option<WorkspaceRow>,
}

/// Begins a change in a place; a workspace's row is taken. `asked` is what is not there when the workspace is not.
async fn open<A: Message + Default>(
    shared: &Shared,
    call: Call,
    place: Place,
    asked: &str,
) -> Result<Result<Opened, A>, Failure> {
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(Err(answer)),
    };
    let workspace = if place.is_server() { None } else { Some(lock(&mut change, &place.0, asked).await?) };
    Ok(Ok(Opened { change, place, workspace }))
}

impl Opened {
    /// Gives every key what its roles allow now, and tells data planes when the keys that senders log in with are others.
    async fn settle(&mut self, shared: &Shared) -> Result<(), Failure> {
        for row in self.change.tx.principals(&self.place.0, AccessKey::COLLECTION).await? {
            let key = decode::<AccessKey>(&row)?;
            let (_, id) = Place::split::<AccessKey>(&row.name, "name")?;
            let Some(mut stored) = self.change.tx.api_key(id).await? else { continue };
            // What a file keeps is the file's.
            if !stored.role.is_empty() {
                continue;
            }
            let before = stored.clone();
            stored.permissions = grants(&mut self.change.tx, &key).await?;
            stored.networks = key
                .allowed_networks
                .iter()
                .filter_map(|text| network(text))
                .map(|one| one.to_string())
                .collect::<Vec<_>>()
                .join(" ");
            stored.expire_time = key.expire_time.as_ref().map_or(0, millis);
            if stored != before {
                self.change.tx.api_key_put(&stored).await?;
            }
        }
        if let Some(workspace) = &mut self.workspace {
            login_keys::reconcile(&shared.secrets, &mut self.change.tx, workspace, self.change.now).await?;
        }
        Ok(())
    }

    /// Checks one that is to be stored: its rules, that its roles are there, and that the caller holds all it gives.
    async fn check<P: Principal>(&mut self, wanted: &P, before: Option<&P>, account: &str) -> Result<(), Failure> {
        self.change.found.extend(wanted.violations(before, self.change.now));
        let mut gives: BTreeSet<String> = wanted.permissions().iter().cloned().collect();
        for (index, role) in wanted.roles().iter().enumerate().take(ROLES_MAX) {
            match given_by(&mut self.change.tx, &self.place, role).await? {
                Some(permissions) => gives.extend(permissions),
                None => {
                    let message = format!("`{}` is no role of the same place", role);
                    self.change.found.push(violation(&format!("roles[{index}]"), "RESOURCE_NOT_FOUND", message));
                }
            }
            if wanted.roles()[..index].contains(role) {
                self.change.found.push(violation(&format!("roles[{index}]"), "REPEATED", "is there twice"));
            }
        }
        if !account.is_empty() {
            let found = Place::split::<ServiceAccount>(account, "service_account")
                .ok()
                .filter(|(place, _)| *place == self.place);
            match self.change.tx.principal(account).await?.filter(|_| found.is_some()) {
                Some(row) => {
                    for role in decode::<ServiceAccount>(&row)?.roles {
                        gives.extend(given_by(&mut self.change.tx, &self.place, &role).await?.unwrap_or_default());
                    }
                }
                None => {
                    let message = "is no service account of the same place";
                    self.change.found.push(violation("service_account", "RESOURCE_NOT_FOUND", message));
                }
            }
        }
        self.change.refuse_escalation(gives.iter().map(String::as_str))?;
        self.change.refuse_broken()
    }

    /// Refuses one more than there may be.
    async fn count<P: Principal>(&mut self) -> Result<(), Failure> {
        if self.change.tx.principals(&self.place.0, P::COLLECTION).await?.len() >= P::MAX {
            let message = format!("holds {} {}, which is the limit", P::MAX, P::COLLECTION);
            self.change.found.push(violation("parent", "TOO_MANY", message));
        }
        Ok(())
    }
}

impl Change {
    /// Refuses to give what the caller does not hold (A08).
    fn refuse_escalation<'a>(&self, mut gives: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
        let caller = self.caller();
        // A permission that does not exist is a broken rule and gives nothing.
        let missing =
            gives.find(|permission| !caller.may_give(permission) && roles::permissions().contains(permission));
        missing.map_or(Ok(()), |permission| Err(Failure::PermissionMissing(permission.to_owned())))
    }
}

/// What a role allows; `None` when there is no such role in this place.
async fn given_by(tx: &mut Transaction, place: &Place, role: &str) -> Result<Option<Vec<String>>, Failure> {
    let Some((_, id)) = Place::split::<Role>(role, "role").ok().filter(|(found, _)| found == place) else {
        return Ok(None);
    };
    if let Some(built_in) = roles::built_in(id) {
        return Ok((place.is_server() || !built_in.server_only).then(|| built_in.permissions()));
    }
    Ok(tx.principal(role).await?.map(|row| decode::<Role>(&row)).transpose()?.map(|role| role.permissions))
}

/// What a key's roles, or those of its account, come to, as it is stored.
async fn grants(tx: &mut Transaction, key: &AccessKey) -> Result<String, Failure> {
    let roles = match key.service_account.as_str() {
        "" => key.roles.clone(),
        account => match tx.principal(account).await? {
            Some(row) => decode::<ServiceAccount>(&row)?.roles,
            None => Vec::new(),
        },
    };
    let mut grants = BTreeSet::new();
    for role in roles {
        let id = role.rsplit('/').next().unwrap_or_default();
        if roles::built_in(id).is_some() {
            grants.insert(format!("@{id}"));
        } else if let Some(row) = tx.principal(&role).await? {
            grants.extend(decode::<Role>(&row)?.permissions);
        }
    }
    Ok(grants.into_iter().collect::<Vec<_>>().join(" "))
}

fn decode<P: Principal>(row: &PrincipalRow) -> Result<P, Failure> {
    P::decode(row.body.as_slice()).map_err(|_| Failure::Internal(format!("a stored {} cannot be read", P::FIELD)))
}

/// As callers see it.
async fn present<P: Principal>(tx: &mut Transaction, row: &PrincipalRow) -> Result<P, Failure> {
    let mut shown = decode::<P>(row)?;
    shown.stamp(Stamp {
        name: row.name.clone(),
        uid: row.uid.clone(),
        etag: etag(&row.uid, row.saves),
        create_time: Some(timestamp(row.create_time)),
        update_time: Some(timestamp(row.update_time)),
        ..Stamp::default()
    });
    shown.complete(tx).await
}

fn built_in_role(place: &Place, role: &roles::BuiltIn) -> Role {
    Role {
        name: place.name::<Role>(role.id),
        display_name: role.display_name.to_owned(),
        permissions: role.permissions(),
        built_in: true,
        ..Role::default()
    }
}

async fn load<P: Principal>(tx: &mut Transaction, name: &str) -> Result<PrincipalRow, Failure> {
    Place::split::<P>(name, "name")?;
    tx.principal(name).await?.ok_or_else(|| Failure::NotFound(name.to_owned()))
}

/// Stores a new service account or role.
pub(crate) async fn create<P: Principal>(
    shared: &Shared,
    call: Call,
    parent: &str,
    id: String,
    wanted: Option<P>,
) -> Result<P, Failure> {
    let place = Place::of(parent)?;
    let mut opened = match open(shared, call, place, parent).await? {
        Ok(opened) => opened,
        Err(answer) => return Ok(answer),
    };
    if P::COLLECTION == Role::COLLECTION && opened.place.is_server() {
        let message = "must be `workspaces/{workspace}`: roles of the server are built in";
        opened.change.found.push(violation("parent", "NAME_INVALID", message));
    }
    let id = if id.is_empty() { format!("{}-{}", &P::COLLECTION[..1], Uuid::new_v4().simple()) } else { id };
    if let Err(message) = resource_id(&id) {
        opened.change.found.push(violation(P::ID_FIELD, "ID_INVALID", message));
    }
    let name = opened.place.name::<P>(&id);
    let taken = P::COLLECTION == Role::COLLECTION && roles::built_in(&id).is_some();
    if taken || opened.change.tx.principal(&name).await?.is_some() {
        return Err(Failure::Exists(name));
    }
    let row = add(&mut opened, name, wanted, "").await?;
    opened.settle(shared).await?;
    let mut answer: P = present(&mut opened.change.tx, &row).await?;
    if opened.change.validate_only() {
        answer.stamp(Stamp { name: row.name, ..Stamp::default() });
    }
    opened.change.finish(shared, answer).await
}

/// Checks one and stores it under `name`.
async fn add<P: Principal>(
    opened: &mut Opened,
    name: String,
    wanted: Option<P>,
    account: &str,
) -> Result<PrincipalRow, Failure> {
    opened.count::<P>().await?;
    let Some(mut wanted) = wanted else {
        opened.change.found.push(violation(P::FIELD, "REQUIRED", "is required"));
        return Err(Failure::Fields(std::mem::take(&mut opened.change.found)));
    };
    wanted.stamp(Stamp::default());
    opened.check(&wanted, None, account).await?;
    let row = PrincipalRow {
        name,
        workspace: opened.place.0.clone(),
        collection: P::COLLECTION.to_owned(),
        uid: Uuid::new_v4().to_string(),
        saves: 1,
        body: wanted.encode_to_vec(),
        create_time: opened.change.now,
        update_time: opened.change.now,
    };
    opened.change.tx.principal_put(&row).await?;
    Ok(row)
}

/// Makes a key. Only this answer shows it: what is remembered for the same request has none.
pub(crate) async fn create_key(
    shared: &Shared,
    call: Call,
    parent: &str,
    wanted: Option<AccessKey>,
) -> Result<AccessKey, Failure> {
    let place = Place::of(parent)?;
    let mut opened = match open(shared, call, place, parent).await? {
        Ok(opened) => opened,
        Err(answer) => return Ok(answer),
    };
    let randomness = |error| Failure::Internal(format!("the system gives no random numbers: {error}"));
    let mut key = key::generate().map_err(randomness)?;
    while opened.change.tx.api_key(&key.id).await?.is_some() {
        key = key::generate().map_err(randomness)?;
    }
    let account = wanted.as_ref().map(|wanted| wanted.service_account.clone()).unwrap_or_default();
    let name = opened.place.name::<AccessKey>(&key.id);
    let principal = add(&mut opened, name, wanted, &account).await?;
    let row = ApiKeyRow {
        id: key.id.clone(),
        workspace: opened.place.0.clone(),
        role: String::new(),
        account,
        hash: key.hash().to_vec(),
        permissions: String::new(),
        networks: String::new(),
        expire_time: 0,
        last_use_time: 0,
        create_time: opened.change.now,
        revoke_time: 0,
    };
    opened.change.tx.api_key_put(&row).await?;
    opened.settle(shared).await?;
    let mut answer: AccessKey = present(&mut opened.change.tx, &principal).await?;
    if opened.change.validate_only() {
        let permissions = std::mem::take(&mut answer.permissions);
        answer.stamp(Stamp::default());
        return opened.change.finish(shared, AccessKey { permissions, ..answer }).await;
    }
    let answer = opened.change.finish(shared, answer).await?;
    Ok(AccessKey { key: key.text().to_string(), ..answer })
}

/// Returns one key or service account; roles have [`get_role`].
pub(crate) async fn get<P: Principal>(shared: &Shared, name: &str) -> Result<P, Failure> {
    let mut tx = shared.store.read().await?;
    let row = load::<P>(&mut tx, name).await?;
    present(&mut tx, &row).await
}

/// Returns one role, built in or not.
pub(crate) async fn get_role(shared: &Shared, name: &str) -> Result<Role, Failure> {
    let (place, id) = Place::split::<Role>(name, "name")?;
    let mut tx = shared.store.read().await?;
    match roles::built_in(id).filter(|role| place.is_server() || !role.server_only) {
        Some(role) if place.is_server() || tx.workspace(&place.0).await?.is_some() => Ok(built_in_role(&place, role)),
        Some(_) => Err(Failure::NotFound(name.to_owned())),
        None => {
            let row = load::<Role>(&mut tx, name).await?;
            present(&mut tx, &row).await
        }
    }
}

/// What a list is of: its rows, and what its page tokens are bound to.
async fn place_of_list(tx: &mut Transaction, parent: &str) -> Result<(Place, String), Failure> {
    let place = Place::of(parent)?;
    if place.is_server() {
        return Ok((place, "server".to_owned()));
    }
    let row = tx.workspace(&place.0).await?.ok_or_else(|| Failure::NotFound(parent.to_owned()))?;
    Ok((place, row.uid))
}

/// Cuts all there are, which are in order of their names, to the page that was asked for.
fn cut<P: Principal>(
    list: &List<'_>,
    mut all: Vec<P>,
    page_size: i32,
    page_token: &str,
) -> Result<(Vec<P>, String), Failure> {
    let page = list.page(page_size, page_token)?;
    let after = page.after.as_deref().unwrap_or_default();
    all.retain(|one| one.sent().0 > after);
    let next = list.cut(&page, &mut all, Message::encoded_len, |one| one.sent().0.to_owned());
    Ok((all, next))
}

/// Lists service accounts.
pub(crate) async fn list<P: Principal>(
    shared: &Shared,
    parent: &str,
    page_size: i32,
    page_token: &str,
) -> Result<(Vec<P>, String), Failure> {
    let mut tx = shared.store.read().await?;
    let (place, scope) = place_of_list(&mut tx, parent).await?;
    let mut all = Vec::new();
    for row in tx.principals(&place.0, P::COLLECTION).await? {
        all.push(present(&mut tx, &row).await?);
    }
    cut::<P>(&List::new(&shared.secrets, &[P::COLLECTION, &scope]), all, page_size, page_token)
}

/// Lists roles, the built-in ones among them.
pub(crate) async fn list_roles(
    shared: &Shared,
    parent: &str,
    page_size: i32,
    page_token: &str,
) -> Result<(Vec<Role>, String), Failure> {
    let mut tx = shared.store.read().await?;
    let (place, scope) = place_of_list(&mut tx, parent).await?;
    let usable = roles::BUILT_IN.iter().filter(|role| place.is_server() || !role.server_only);
    let mut all: Vec<Role> = usable.map(|role| built_in_role(&place, role)).collect();
    for row in tx.principals(&place.0, Role::COLLECTION).await? {
        all.push(present(&mut tx, &row).await?);
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    cut(&List::new(&shared.secrets, &[Role::COLLECTION, &scope]), all, page_size, page_token)
}

/// Lists keys.
pub(crate) async fn list_keys(
    shared: &Shared,
    parent: &str,
    page_size: i32,
    page_token: &str,
    filter: AccessKeyFilter,
) -> Result<(Vec<AccessKey>, String), Failure> {
    let mut tx = shared.store.read().await?;
    let (place, scope) = place_of_list(&mut tx, parent).await?;
    if !filter.permission.is_empty() && !roles::permissions().contains(filter.permission.as_str()) {
        return Err(Failure::field("filter.permission", "PERMISSION_UNKNOWN", "is no permission"));
    }
    let mut all = Vec::new();
    for row in tx.principals(&place.0, AccessKey::COLLECTION).await? {
        let key = present(&mut tx, &row).await?;
        if is_meant(&filter, &key) {
            all.push(key);
        }
    }
    let meant = hex::encode(filter.encode_to_vec());
    cut(&List::new(&shared.secrets, &[AccessKey::COLLECTION, &scope, &meant]), all, page_size, page_token)
}

fn is_meant(filter: &AccessKeyFilter, key: &AccessKey) -> bool {
    let before = |one: &Option<prost_types::Timestamp>, other: &prost_types::Timestamp| {
        one.as_ref().is_some_and(|one| (one.seconds, one.nanos) < (other.seconds, other.nanos))
    };
    (filter.role.is_empty() || key.roles.contains(&filter.role))
        && (filter.service_account.is_empty() || key.service_account == filter.service_account)
        && (filter.permission.is_empty() || key.permissions.contains(&filter.permission))
        && filter.expires_before.as_ref().is_none_or(|then| before(&key.expire_time, then))
        && filter
            .unused_since
            .as_ref()
            .is_none_or(|then| key.last_use_time.is_none() || before(&key.last_use_time, then))
}

/// Loads what is to be changed or deleted, if it is the caller's to change.
async fn take<P: Principal>(
    opened: &mut Opened,
    name: &str,
    id: &str,
    wanted_etag: &str,
) -> Result<PrincipalRow, Failure> {
    if P::COLLECTION == Role::COLLECTION && roles::built_in(id).is_some() {
        return Err(Failure::field("name", "BUILT_IN", "is a built-in role, which cannot be changed"));
    }
    let row = load::<P>(&mut opened.change.tx, name).await?;
    if !wanted_etag.is_empty() && wanted_etag != etag(&row.uid, row.saves) {
        return Err(Failure::EtagMismatch(name.to_owned()));
    }
    if P::COLLECTION == AccessKey::COLLECTION
        && opened.change.tx.api_key(id).await?.is_some_and(|row| !row.role.is_empty())
    {
        return Err(Failure::field("name", "KEPT_IN_FILE", "is kept in a file of the server, which decides about it"));
    }
    Ok(row)
}

/// Changes one; in force with the next call.
pub(crate) async fn update<P: Principal>(
    shared: &Shared,
    call: Call,
    sent: Option<P>,
    mask: Option<FieldMask>,
) -> Result<P, Failure> {
    let sent = sent.ok_or_else(|| Failure::field(P::FIELD, "REQUIRED", "is required"))?;
    let (name, wanted_etag) = (sent.sent().0.to_owned(), sent.sent().1.to_owned());
    let (place, id) = Place::split::<P>(&name, "name")?;
    let mut opened = match open(shared, call, place, &name).await? {
        Ok(opened) => opened,
        Err(answer) => return Ok(answer),
    };
    let mut row = take::<P>(&mut opened, &name, id, &wanted_etag).await?;
    let before = decode::<P>(&row)?;
    let mut wanted = before.clone();
    let paths = mask.unwrap_or_default().paths;
    let all = paths.is_empty() || paths == ["*"];
    for field in P::MUTABLE.iter().filter(|field| all || paths.iter().any(|path| path == *field)) {
        wanted.copy(field, &sent);
    }
    for path in paths.iter().filter(|path| !all && !P::MUTABLE.contains(&path.as_str())) {
        let message = format!("`{}` is not a field that can be changed; those are {}", path, P::MUTABLE.join(", "));
        opened.change.found.push(violation("update_mask", "PATH_INVALID", message));
    }
    if let Some(field) = before.fixed(&sent) {
        opened.change.found.push(violation(field, "IMMUTABLE", "is set when it is made and never changes"));
    }
    let account = opened.change.tx.api_key(id).await?.map(|row| row.account).unwrap_or_default();
    opened.change.refuse_escalation(before.permissions().iter().map(String::as_str))?;
    opened.check(&wanted, Some(&before), if P::COLLECTION == AccessKey::COLLECTION { &account } else { "" }).await?;
    opened.change.changes(P::MESSAGE, &before, &wanted)?;
    if wanted != before {
        row.body = wanted.encode_to_vec();
        row.saves += 1;
        row.update_time = opened.change.now;
        opened.change.tx.principal_put(&row).await?;
        opened.settle(shared).await?;
    }
    let mut answer: P = present(&mut opened.change.tx, &row).await?;
    if opened.change.validate_only() {
        answer.stamp(Stamp { name, uid: row.uid, create_time: Some(timestamp(row.create_time)), ..Stamp::default() });
    }
    opened.change.finish(shared, answer).await
}

/// Deletes one that nothing uses; a key is revoked.
pub(crate) async fn delete<P: Principal, A: Message + Default>(
    shared: &Shared,
    call: Call,
    name: &str,
    wanted_etag: &str,
) -> Result<A, Failure> {
    let (place, id) = Place::split::<P>(name, "name")?;
    let mut opened = match open(shared, call, place, name).await? {
        Ok(opened) => opened,
        Err(answer) => return Ok(answer),
    };
    take::<P>(&mut opened, name, id, wanted_etag).await?;
    let mut users = Vec::new();
    for row in opened.change.tx.principals(&opened.place.0, ServiceAccount::COLLECTION).await? {
        users.extend(decode::<ServiceAccount>(&row)?.roles.iter().any(|role| role == name).then_some(row.name));
    }
    for row in opened.change.tx.principals(&opened.place.0, AccessKey::COLLECTION).await? {
        let key = decode::<AccessKey>(&row)?;
        users.extend((key.service_account == name || key.roles.iter().any(|role| role == name)).then_some(row.name));
    }
    if !users.is_empty() {
        users.truncate(usize::try_from(USERS_NAMED).unwrap_or(usize::MAX));
        return Err(Failure::InUse { name: name.to_owned(), users });
    }
    opened.change.tx.principal_delete(name).await?;
    if P::COLLECTION == AccessKey::COLLECTION {
        opened.change.tx.api_key_revoke(id, opened.change.now).await?;
    }
    opened.settle(shared).await?;
    opened.change.finish(shared, A::default()).await
}
