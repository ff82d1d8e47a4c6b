//! The certificate authority, join tokens, and the data planes that have joined.

use super::{Row, StoreError, Transaction};
use crate::clock::UnixMillis;

/// The certificate authority as stored.
#[derive(Clone, Debug)]
pub(crate) struct AuthorityRow {
    /// In DER form.
    pub(crate) certificate: Vec<u8>,
    /// Its key in PKCS#8 form, sealed.
    pub(crate) sealed_key: Vec<u8>,
}

/// A join token as stored.
#[derive(Clone, Debug)]
pub(crate) struct JoinTokenRow {
    /// Its public part.
    pub(crate) id: String,
    pub(crate) uid: String,
    /// Of its secret.
    pub(crate) hash: Vec<u8>,
    /// Ids separated by spaces, or `-`.
    pub(crate) workspaces: String,
    pub(crate) create_time: UnixMillis,
    pub(crate) expire_time: UnixMillis,
    /// 0 until it is used.
    pub(crate) use_time: UnixMillis,
    /// Who used it.
    pub(crate) data_plane: String,
    /// Of the key that it was used with.
    pub(crate) key_hash: Vec<u8>,
}

/// A data plane that has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnrolledRow {
    pub(crate) id: String,
    /// What the serial numbers of its certificates begin with.
    pub(crate) enrolment: Vec<u8>,
    /// Ids separated by spaces, or `-`.
    pub(crate) workspaces: String,
    pub(crate) enroll_time: UnixMillis,
    pub(crate) renew_time: UnixMillis,
    /// Of its last certificate.
    pub(crate) expire_time: UnixMillis,
}

macro_rules! select_join_token {
    ($tail:literal) => {
        concat!(
            "SELECT id, uid, hash, workspaces, create_time, expire_time, use_time, data_plane, key_hash FROM join_token ",
            $tail
        )
    };
}

fn join_token(mut row: Row) -> Result<JoinTokenRow, StoreError> {
    Ok(JoinTokenRow {
        id: row.text(0)?,
        uid: row.text(1)?,
        hash: row.blob(2)?,
        workspaces: row.text(3)?,
        create_time: row.integer(4)?,
        expire_time: row.integer(5)?,
        use_time: row.integer(6)?,
        data_plane: row.text(7)?,
        key_hash: row.blob(8)?,
    })
}

macro_rules! select_enrolled {
    ($tail:literal) => {
        concat!("SELECT id, enrolment, workspaces, enroll_time, renew_time, expire_time FROM enrolled ", $tail)
    };
}

fn enrolled(mut row: Row) -> Result<EnrolledRow, StoreError> {
    Ok(EnrolledRow {
        id: row.text(0)?,
        enrolment: row.blob(1)?,
        workspaces: row.text(2)?,
        enroll_time: row.integer(3)?,
        renew_time: row.integer(4)?,
        expire_time: row.integer(5)?,
    })
}

impl Transaction {
    /// The certificate authority, if there is one already.
    pub(crate) async fn authority(&mut self) -> Result<Option<AuthorityRow>, StoreError> {
        let row = self.row("SELECT certificate, sealed_key FROM authority WHERE id = 1", &[]).await?;
        row.map(|mut row| Ok(AuthorityRow { certificate: row.blob(0)?, sealed_key: row.blob(1)? })).transpose()
    }

    /// Keeps the certificate authority for good.
    pub(crate) async fn authority_put(&mut self, row: &AuthorityRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO authority (id, certificate, sealed_key) VALUES (1, $1, $2)";
        self.run(sql, &[(&row.certificate).into(), (&row.sealed_key).into()]).await.map(drop)
    }

    /// The join token with this id.
    pub(crate) async fn join_token(&mut self, id: &str) -> Result<Option<JoinTokenRow>, StoreError> {
        self.row(select_join_token!("WHERE id = $1"), &[id.into()]).await?.map(join_token).transpose()
    }

    /// At most `limit` join tokens by id, those after `after`.
    pub(crate) async fn join_tokens(&mut self, after: &str, limit: i64) -> Result<Vec<JoinTokenRow>, StoreError> {
        let sql = select_join_token!("WHERE id > $1 ORDER BY id LIMIT $2");
        self.rows(sql, &[after.into(), limit.into()]).await?.into_iter().map(join_token).collect()
    }

    /// How many join tokens there are.
    pub(crate) async fn join_tokens_count(&mut self) -> Result<i64, StoreError> {
        self.row("SELECT COUNT(*) FROM join_token", &[]).await?.map_or(Ok(0), |mut row| row.integer(0))
    }

    /// Adds a join token, or replaces what is stored of it.
    pub(crate) async fn join_token_put(&mut self, token: &JoinTokenRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO join_token (id, uid, hash, workspaces, create_time, expire_time, use_time, data_plane, \
                   key_hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO UPDATE SET \
                   use_time = excluded.use_time, data_plane = excluded.data_plane, key_hash = excluded.key_hash";
        let values = [
            (&token.id).into(),
            (&token.uid).into(),
            (&token.hash).into(),
            (&token.workspaces).into(),
            token.create_time.into(),
            token.expire_time.into(),
            token.use_time.into(),
            (&token.data_plane).into(),
            (&token.key_hash).into(),
        ];
        self.run(sql, &values).await.map(drop)
    }

    /// Deletes a join token.
    pub(crate) async fn join_token_delete(&mut self, id: &str) -> Result<(), StoreError> {
        self.run("DELETE FROM join_token WHERE id = $1", &[id.into()]).await.map(drop)
    }

    /// Deletes join tokens that expired before `before`.
    pub(crate) async fn join_tokens_sweep(&mut self, before: UnixMillis) -> Result<(), StoreError> {
        self.run("DELETE FROM join_token WHERE expire_time < $1", &[before.into()]).await.map(drop)
    }

    /// The data plane with this id, if it has joined.
    pub(crate) async fn enrolled(&mut self, id: &str) -> Result<Option<EnrolledRow>, StoreError> {
        self.row(select_enrolled!("WHERE id = $1"), &[id.into()]).await?.map(enrolled).transpose()
    }

    /// At most `limit` data planes that have joined by id, those after `after`.
    pub(crate) async fn enrolled_list(&mut self, after: &str, limit: i64) -> Result<Vec<EnrolledRow>, StoreError> {
        let sql = select_enrolled!("WHERE id > $1 ORDER BY id LIMIT $2");
        self.rows(sql, &[after.into(), limit.into()]).await?.into_iter().map(enrolled).collect()
    }

    /// How many data planes have joined.
    pub(crate) async fn enrolled_count(&mut self) -> Result<i64, StoreError> {
        self.row("SELECT COUNT(*) FROM enrolled", &[]).await?.map_or(Ok(0), |mut row| row.integer(0))
    }

    /// Adds a data plane, or replaces what is stored of it.
    pub(crate) async fn enrolled_put(&mut self, plane: &EnrolledRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO enrolled (id, enrolment, workspaces, enroll_time, renew_time, expire_time) \
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO UPDATE SET \
                   renew_time = excluded.renew_time, expire_time = excluded.expire_time";
        let values = [
            (&plane.id).into(),
            (&plane.enrolment).into(),
            (&plane.workspaces).into(),
            plane.enroll_time.into(),
            plane.renew_time.into(),
            plane.expire_time.into(),
        ];
        self.run(sql, &values).await.map(drop)
    }

    /// Deletes a data plane; its certificates are refused from then on.
    pub(crate) async fn enrolled_delete(&mut self, id: &str) -> Result<(), StoreError> {
        self.run("DELETE FROM enrolled WHERE id = $1", &[id.into()]).await.map(drop)
    }
}
