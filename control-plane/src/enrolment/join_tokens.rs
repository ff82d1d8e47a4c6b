//! The life of a join token: made, shown once, used once or never, gone.

use prost::Message as _;
use sluice_core::join_token::JoinToken as Token;
use sluice_proto::admin::v1::{
    CreateJoinTokenRequest, DeleteJoinTokenRequest, DeleteJoinTokenResponse, JoinToken, ListJoinTokensRequest,
    ListJoinTokensResponse,
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::rights::Scope;
use crate::call::{Begun, Call, Change};
use crate::clock::timestamp;
use crate::error::{Failure, violation};
use crate::names::workspace_id;
use crate::paging::List;
use crate::secrets::random;
use crate::shared::Shared;
use crate::store::JoinTokenRow;
use crate::stored::etag;

const SECOND: i64 = 1000;
/// How long a token can be used when nothing is said, and at most, in milliseconds.
const LIFE_DEFAULT: i64 = 15 * 60 * SECOND;
const LIFE_MAX: i64 = 3600 * SECOND;
/// Most workspaces that one names.
const WORKSPACES_MAX: usize = 100;
/// Most tokens that are kept, used and expired ones too.
const TOKENS_MAX: i64 = 1000;

fn parse(name: &str) -> Result<&str, Failure> {
    let id = name.strip_prefix("joinTokens/").filter(|id| !id.is_empty() && !id.contains('/'));
    id.ok_or_else(|| Failure::field("name", "NAME_INVALID", "must be `joinTokens/{id}`"))
}

fn present(row: &JoinTokenRow) -> JoinToken {
    let used = row.use_time > 0;
    JoinToken {
        name: format!("joinTokens/{}", row.id),
        uid: row.uid.clone(),
        etag: etag(&row.uid, if used { 2 } else { 1 }),
        workspaces: Scope::stored(&row.workspaces).names(),
        expire_time: Some(timestamp(row.expire_time)),
        create_time: Some(timestamp(row.create_time)),
        use_time: used.then(|| timestamp(row.use_time)),
        data_plane: if used { format!("dataPlanes/{}", row.data_plane) } else { String::new() },
        token: String::new(),
    }
}

/// Makes a token. Only this answer shows it: what is remembered for the same request has none.
pub(crate) async fn create(shared: &Shared, call: Call, asked: CreateJoinTokenRequest) -> Result<JoinToken, Failure> {
    let authority = shared.authority.as_ref().ok_or(Failure::TlsOff)?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let workspaces = workspaces(&mut change, &asked.join_token.unwrap_or_default().workspaces).await?;
    let life = asked.lifetime.map_or(LIFE_DEFAULT, |life| {
        life.seconds.saturating_mul(SECOND).saturating_add(i64::from(life.nanos) / 1_000_000)
    });
    if !(SECOND..=LIFE_MAX).contains(&life) {
        let message = format!("must be 1 to {} seconds", LIFE_MAX / SECOND);
        change.found.push(violation("lifetime", "OUT_OF_RANGE", message));
    }
    change.refuse_broken()?;
    if change.tx.join_tokens_count().await? >= TOKENS_MAX {
        return Err(Failure::Overloaded("join tokens"));
    }
    let randomness = |error| Failure::Internal(format!("the system gives no random numbers: {error}"));
    let secret = Zeroizing::new(random().map_err(randomness)?);
    let token = Token::new(random().map_err(randomness)?, secret, authority.pin());
    if change.tx.join_token(&token.id).await?.is_some() {
        return Err(Failure::Internal("a join token with this id is there already".to_owned()));
    }
    let row = JoinTokenRow {
        id: token.id.clone(),
        uid: Uuid::new_v4().to_string(),
        hash: token.hash().to_vec(),
        workspaces,
        create_time: change.now,
        expire_time: change.now + life,
        use_time: 0,
        data_plane: String::new(),
        key_hash: Vec::new(),
    };
    change.tx.join_token_put(&row).await?;
    let shown = present(&row);
    if change.validate_only() {
        let made = JoinToken { workspaces: shown.workspaces, expire_time: shown.expire_time, ..JoinToken::default() };
        return change.finish(shared, made).await;
    }
    let shown = change.finish(shared, shown).await?;
    Ok(JoinToken { token: token.text().to_string(), ..shown })
}

/// The workspaces that are named, as they are stored; what is wrong with them is found.
async fn workspaces(change: &mut Change, names: &[String]) -> Result<String, Failure> {
    const FIELD: &str = "join_token.workspaces";
    if names == ["workspaces/-"] {
        return Ok("-".to_owned());
    }
    if names.is_empty() || names.len() > WORKSPACES_MAX {
        let message = format!("must name 1 to {WORKSPACES_MAX} workspaces, or `workspaces/-` alone for all");
        change.found.push(violation(FIELD, if names.is_empty() { "REQUIRED" } else { "TOO_MANY" }, message));
        return Ok(String::new());
    }
    let mut ids = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let field = format!("{FIELD}[{index}]");
        match workspace_id(name, &field) {
            Ok(id) if ids.contains(&id) => change.found.push(violation(&field, "REPEATED", "is there twice")),
            Ok(id) if change.tx.workspace(&id).await?.is_none() => {
                change.found.push(violation(&field, "RESOURCE_NOT_FOUND", "there is no such workspace"));
            }
            Ok(id) => ids.push(id),
            Err(_) => change.found.push(violation(&field, "NAME_INVALID", "must be `workspaces/{workspace}`")),
        }
    }
    Ok(ids.join(" "))
}

/// One token.
pub(crate) async fn get(shared: &Shared, name: &str) -> Result<JoinToken, Failure> {
    let row = shared.store.read().await?.join_token(parse(name)?).await?;
    row.map(|row| present(&row)).ok_or_else(|| Failure::NotFound(name.to_owned()))
}

/// All tokens, by pages.
pub(crate) async fn list(shared: &Shared, asked: &ListJoinTokensRequest) -> Result<ListJoinTokensResponse, Failure> {
    let list = List::new(&shared.secrets, &["joinTokens"]);
    let page = list.page(asked.page_size, &asked.page_token)?;
    let after = page.after.as_deref().unwrap_or_default();
    let rows = shared.store.read().await?.join_tokens(after, page.limit()).await?;
    let mut join_tokens: Vec<JoinToken> = rows.iter().map(present).collect();
    let next_page_token = list.cut(&page, &mut join_tokens, JoinToken::encoded_len, |token| {
        token.name.strip_prefix("joinTokens/").unwrap_or_default().to_owned()
    });
    Ok(ListJoinTokensResponse { join_tokens, next_page_token })
}

/// Deletes a token.
pub(crate) async fn delete(
    shared: &Shared,
    call: Call,
    asked: &DeleteJoinTokenRequest,
) -> Result<DeleteJoinTokenResponse, Failure> {
    let id = parse(&asked.name)?;
    let mut change = match call.begin(shared).await? {
        Begun::New(change) => change,
        Begun::Known(answer) => return Ok(answer),
    };
    let row = change.tx.join_token(id).await?.ok_or_else(|| Failure::NotFound(asked.name.clone()))?;
    if !asked.etag.is_empty() && asked.etag != present(&row).etag {
        return Err(Failure::EtagMismatch(asked.name.clone()));
    }
    change.tx.join_token_delete(id).await?;
    change.finish(shared, DeleteJoinTokenResponse {}).await
}
