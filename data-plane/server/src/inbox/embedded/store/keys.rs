//! Dedup keys in the file: those that have their place, and the rows of those that wait for it.

use std::collections::HashMap;

use futures::TryStreamExt as _;
use sqlx::Row as _;

use super::super::claims::{Claims, Key, Known};
use super::super::pack;
use super::super::script::{Arena, Script, json};
use super::{Store, uuid};
use crate::clock::UnixMillis;

/// Keys in one blob, and where each begins.
fn packed(keys: &[Key]) -> (Vec<u8>, String) {
    let mut arena = Arena::with_capacity(keys.len() * 32);
    let places: Vec<usize> = keys.iter().map(|key| arena.put(key)).collect();
    (arena.into_blob(), json(&places))
}

/// Whether a transaction ended as one of its keys was not new ([`Script::expect_new`]). Nothing else gives a column nothing.
pub(in crate::inbox::embedded) fn is_not_new(error: &sqlx::Error) -> bool {
    const SQLITE_CONSTRAINT_NOTNULL: &str = "1299";
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == SQLITE_CONSTRAINT_NOTNULL)
}

impl Store {
    /// Keys that wait for their place.
    pub(super) async fn load_claims(&mut self) -> Result<Claims, sqlx::Error> {
        let mut claims = Claims::default();
        let mut rows = sqlx::query("SELECT step, keys FROM claim ORDER BY step").fetch(&mut self.conn);
        while let Some(row) = rows.try_next().await? {
            let keys = pack::read_claims(row.try_get::<Vec<u8>, _>(1)?.into());
            claims.load(row.try_get(0)?, keys.ok_or_else(|| sqlx::Error::Decode("a row of claim".into()))?);
        }
        Ok(claims)
    }

    /// Which of these keys have their place, expired or not.
    pub(in crate::inbox::embedded) async fn known(&mut self, keys: &[Key]) -> Result<HashMap<Key, Known>, sqlx::Error> {
        let (blob, places) = packed(keys);
        let found = sqlx::query(
            "SELECT d.k, d.request, d.exp FROM json_each(?2) AS r CROSS JOIN dedup AS d ON d.k = substr(?1, r.value, 32)",
        )
        .bind(blob)
        .bind(places)
        .fetch_all(&mut self.conn)
        .await?;
        let mut known = HashMap::with_capacity(keys.len());
        for row in found {
            let key = Key::try_from(row.try_get::<&[u8], _>(0)?).map_err(|error| sqlx::Error::Decode(error.into()))?;
            known.insert(key, Known { request: uuid(row.try_get(1)?)?, exp: row.try_get(2)? });
        }
        Ok(known)
    }
}

impl Script {
    /// Ends the transaction with an error if one of these keys has its place ([`is_not_new`]): a row of `claim` cannot be without keys.
    pub(in crate::inbox::embedded) fn expect_new(&mut self, keys: &[Key]) {
        let (blob, places) = packed(keys);
        self.add(
            "INSERT INTO claim (step, keys)
                 SELECT 0, NULL FROM json_each(?2) AS r CROSS JOIN dedup AS d ON d.k = substr(?1, r.value, 32)",
        )
        .bind(blob)
        .bind(places);
    }

    /// Records keys that came, in a row of their own.
    pub(in crate::inbox::embedded) fn claim(&mut self, step: i64, keys: &[(Key, Known)]) {
        self.add("INSERT INTO claim (step, keys) VALUES (?1, ?2)").bind(step).bind(pack::claims(keys));
    }

    /// Forgets rows whose keys have their place.
    pub(in crate::inbox::embedded) fn forget_claims(&mut self, up_to: i64) {
        self.add("DELETE FROM claim WHERE step <= ?1").bind(up_to);
    }

    /// Gives keys their place among all.
    pub(in crate::inbox::embedded) fn move_keys(&mut self, keys: &[(Key, Known)]) {
        let mut arena = Arena::with_capacity(keys.len() * 48);
        let rows: Vec<(usize, UnixMillis)> = keys
            .iter()
            .map(|(key, known)| {
                let at = arena.put(key);
                arena.put(known.request.as_bytes());
                (at, known.exp)
            })
            .collect();
        self.add(
            "INSERT INTO dedup (k, request, exp)
                 SELECT substr(?1, r.value ->> 0, 32), substr(?1, (r.value ->> 0) + 32, 16), r.value ->> 1
                 FROM json_each(?2) AS r WHERE true
             ON CONFLICT (k) DO UPDATE SET request = excluded.request, exp = excluded.exp",
        )
        .bind(arena.into_blob())
        .bind(json(&rows));
    }
}
