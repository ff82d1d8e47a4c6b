//! The statements: one writer connection, every step a fixed number of statements however many rows it touches.
//!
//! A statement costs far more in crossing to SQLite's thread than in running, so rows travel together: their bytes in
//! one blob (the [`Arena`]), everything else as JSON that `json_each` unfolds, and statements that share both go as one.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use serde::Serialize;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::super::{Fence, Flow, FlowId, Grant, HEADS, Lane, Leased, MAX_LEASES, NewJob, Place};
use super::book::{Counts, Held};
use super::find::place;
use super::flows::{Entry, Ready};
use crate::clock::UnixMillis;

/// A dedup key, or a request id padded with zeros.
pub(super) type Key = [u8; 32];

/// Jobs promoted from delayed to ready in one step.
const PROMOTE_LIMIT: i64 = 512;
/// Keys and dead jobs forgotten in one step.
const SWEEP_LIMIT: i64 = 512;

/// Parts of grants taken from with one statement: more costs a further one, fewer are filled up with nothing. The small one
/// is for one flow.
const TAKES: usize = 16;
const TAKES_FEW: usize = 2;
const STATES: usize = 4;

/// The writer connection.
pub(super) struct Store {
    conn: SqliteConnection,
}

/// A key as it is known.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) request: Uuid,
    pub(super) exp: UnixMillis,
}

/// A job that nobody may work on.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    pub(super) lane: Lane,
    pub(super) place: Place,
    pub(super) flow: i64,
    pub(super) retry: bool,
}

/// What one sweep removed and when the next is worth it.
pub(super) struct Swept {
    pub(super) dead: [u64; 2],
    /// More than one batch was waiting.
    pub(super) more: bool,
    pub(super) next_key: Option<UnixMillis>,
    pub(super) next_dead: Option<UnixMillis>,
}

/// What the file says when it is opened.
pub(super) struct Loaded {
    pub(super) counts: [Counts; 2],
    pub(super) next_due: [Option<UnixMillis>; 2],
    pub(super) flows: Vec<Entry>,
    pub(super) next_seq: i64,
    pub(super) outbox_last: i64,
    pub(super) outbox_trimmed: i64,
}

/// Bytes of many rows in one blob, cut apart again by SQLite's `substr`.
struct Arena(Vec<u8>);

impl Arena {
    /// Starts with one byte: SQLite takes an empty blob for NULL when it cuts.
    fn with_capacity(bytes: usize) -> Self {
        let mut arena = Vec::with_capacity(bytes + 1);
        arena.push(0);
        Self(arena)
    }

    /// Answers where the bytes start, counted from 1.
    fn put(&mut self, bytes: &[u8]) -> usize {
        self.0.extend_from_slice(bytes);
        self.0.len() - bytes.len() + 1
    }
}

fn json(rows: &impl Serialize) -> String {
    serde_json::to_string(rows).expect("numbers and strings always serialize")
}

fn state(state: i64) -> Result<usize, sqlx::Error> {
    usize::try_from(state)
        .ok()
        .filter(|state| *state < STATES)
        .ok_or_else(|| sqlx::Error::Decode(format!("job.state {state}").into()))
}

fn lane(lane: i64) -> Result<Lane, sqlx::Error> {
    usize::try_from(lane)
        .ok()
        .and_then(|lane| Lane::ALL.get(lane).copied())
        .ok_or_else(|| sqlx::Error::Decode(format!("job.lane {lane}").into()))
}

fn uuid(bytes: &[u8]) -> Result<Uuid, sqlx::Error> {
    Uuid::from_slice(bytes).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn count(rows: i64) -> u64 {
    u64::try_from(rows).unwrap_or(0)
}

fn lane_number(lane: Lane) -> i64 {
    match lane {
        Lane::Realtime => 0,
        Lane::Bulk => 1,
    }
}

impl Store {
    pub(super) fn new(conn: SqliteConnection) -> Self {
        Self { conn }
    }

    /// Begins a transaction and answers which of these keys are on file, expired or not.
    pub(super) async fn begin(&mut self, keys: &[Key]) -> Result<HashMap<Key, Known>, sqlx::Error> {
        if keys.is_empty() {
            sqlx::query("BEGIN IMMEDIATE").execute(&mut self.conn).await?;
            return Ok(HashMap::new());
        }
        let mut arena = Arena::with_capacity(keys.len() * 32);
        let rows: Vec<usize> = keys.iter().map(|key| arena.put(key)).collect();
        let found = sqlx::query(
            "BEGIN IMMEDIATE;
             SELECT d.k, d.request, d.exp FROM json_each(?2) AS r CROSS JOIN dedup AS d ON d.k = substr(?1, r.value, 32)",
        )
        .bind(arena.0)
        .bind(json(&rows))
        .fetch_all(&mut self.conn)
        .await?;
        let mut known = HashMap::with_capacity(found.len());
        for row in found {
            let key = Key::try_from(row.try_get::<&[u8], _>(0)?).map_err(|error| sqlx::Error::Decode(error.into()))?;
            known.insert(key, Known { request: uuid(row.try_get(1)?)?, exp: row.try_get(2)? });
        }
        Ok(known)
    }

    /// Returns after the fsync.
    pub(super) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        sqlx::query("COMMIT").execute(&mut self.conn).await.map(drop)
    }

    /// SQLite may have rolled back by itself, which makes this fail; a transaction that is really stuck shows at the
    /// next `BEGIN`.
    pub(super) async fn rollback(&mut self) {
        let _already_over = sqlx::query("ROLLBACK").execute(&mut self.conn).await;
    }

    /// Moves the log into the file and closes.
    pub(super) async fn close(mut self) -> Result<(), sqlx::Error> {
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut self.conn).await?;
        self.conn.close().await
    }

    /// Gives back the leases of earlier processes.
    pub(super) async fn release_all(&mut self, now: UnixMillis) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE job SET state = 0, at = ?1, ambiguous = ambiguous OR begun, begun = 0
             WHERE state = 1",
        )
        .bind(now)
        .execute(&mut self.conn)
        .await
        .map(drop)
    }

    /// Forgets the flows that no job has.
    pub(super) async fn prune_flows(&mut self) -> Result<(), sqlx::Error> {
        let unused = "DELETE FROM flow WHERE id NOT IN (SELECT flow FROM job)";
        sqlx::query(unused).execute(&mut self.conn).await.map(drop)
    }

    async fn load_flows(&mut self) -> Result<Vec<Entry>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT id, lane, workspace, destination, owner,
                 (SELECT count(*) FROM job WHERE flow = f.id AND state = 0 AND retry = 0),
                 (SELECT count(*) FROM job WHERE flow = f.id AND state = 0 AND retry = 1)
             FROM flow AS f",
        )
        .fetch_all(&mut self.conn)
        .await?;
        let entry = |row: &SqliteRow| {
            let flow = Flow { workspace: row.try_get(2)?, destination: row.try_get(3)?, owner: row.try_get(4)? };
            let ready = Ready { first: count(row.try_get(5)?), retries: count(row.try_get(6)?) };
            Ok(Entry { number: row.try_get(0)?, lane: lane(row.try_get(1)?)?, flow: Arc::new(flow), ready })
        };
        rows.iter().map(entry).collect()
    }

    pub(super) async fn load(&mut self) -> Result<Loaded, sqlx::Error> {
        let flows = self.load_flows().await?;
        let mut counts = [Counts::default(); 2];
        let rows =
            sqlx::query("SELECT lane, state, count(*) FROM job GROUP BY lane, state").fetch_all(&mut self.conn).await?;
        for row in rows {
            let number = count(row.try_get(2)?);
            counts[lane(row.try_get(0)?)?.index()].set(state(row.try_get(1)?)?, number);
        }
        let next_due = [self.next_due(Lane::Realtime).await?, self.next_due(Lane::Bulk).await?];
        let row = sqlx::query(
            "SELECT coalesce((SELECT max(seq) FROM job), 0) + 1,
                    coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0),
                    (SELECT min(seq) FROM outbox)",
        )
        .fetch_one(&mut self.conn)
        .await?;
        let outbox_last = row.try_get(1)?;
        let outbox_first: Option<i64> = row.try_get(2)?;
        Ok(Loaded {
            counts,
            next_due,
            flows,
            next_seq: row.try_get(0)?,
            outbox_last,
            outbox_trimmed: outbox_first.map_or(outbox_last, |first| first - 1),
        })
    }

    /// Writes down new flows.
    pub(super) async fn add_flows(&mut self, flows: &[(i64, Lane, &Flow)]) -> Result<(), sqlx::Error> {
        let rows: Vec<(i64, i64, &str, &str, &str)> = flows
            .iter()
            .map(|(number, lane, flow)| {
                (*number, lane_number(*lane), flow.workspace.as_str(), flow.destination.as_str(), flow.owner.as_str())
            })
            .collect();
        sqlx::query(
            "INSERT INTO flow (id, lane, workspace, destination, owner)
                 SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4
                 FROM json_each(?1) AS r",
        )
        .bind(json(&rows))
        .execute(&mut self.conn)
        .await
        .map(drop)
    }

    /// Enqueues jobs as ready, each with its number and its flow's, then records keys, new or moved.
    pub(super) async fn add(
        &mut self,
        jobs: &[(i64, i64, &NewJob)],
        keys: &[(Key, Known)],
        now: UnixMillis,
    ) -> Result<(), sqlx::Error> {
        let bytes: usize = jobs.iter().map(|(.., job)| job.payload.len() + 16).sum();
        let mut arena = Arena::with_capacity(bytes + keys.len() * 48);
        let jobs: Vec<(i64, i64, usize, usize, usize, i64)> = jobs
            .iter()
            .map(|(seq, flow, job)| {
                let id = arena.put(job.id.as_bytes());
                (*seq, lane_number(job.lane), id, arena.put(&job.payload), job.payload.len(), *flow)
            })
            .collect();
        let keys: Vec<(usize, usize, UnixMillis)> =
            keys.iter().map(|(key, known)| (arena.put(key), arena.put(known.request.as_bytes()), known.exp)).collect();
        sqlx::query(
            "INSERT INTO job (seq, id, lane, state, retry, at, accepted, flow)
                 SELECT r.value ->> 0, substr(?1, r.value ->> 2, 16), r.value ->> 1, 0, 0, ?4, ?4, r.value ->> 5
                 FROM json_each(?2) AS r;
             INSERT INTO payload (job, bytes)
                 SELECT r.value ->> 0, substr(?1, r.value ->> 3, r.value ->> 4) FROM json_each(?2) AS r;
             INSERT INTO dedup (k, request, exp)
                 SELECT substr(?1, r.value ->> 0, 32), substr(?1, r.value ->> 1, 16), r.value ->> 2
                 FROM json_each(?3) AS r WHERE true
             ON CONFLICT (k) DO UPDATE SET request = excluded.request, exp = excluded.exp",
        )
        .bind(arena.0)
        .bind(json(&jobs))
        .bind(json(&keys))
        .bind(now)
        .execute(&mut self.conn)
        .await
        .map(drop)
    }

    /// Makes due jobs ready, a bounded number, the longest due first; answers the flow of each, and whether it is a retry.
    pub(super) async fn promote(&mut self, lane: Lane, now: UnixMillis) -> Result<Vec<(i64, bool)>, sqlx::Error> {
        let rows = sqlx::query(
            "UPDATE job SET state = 0 WHERE seq IN (
                 SELECT seq FROM job WHERE lane = ?1 AND state = 2 AND at <= ?2 ORDER BY at LIMIT ?3)
             RETURNING flow, retry",
        )
        .bind(lane_number(lane))
        .bind(now)
        .bind(PROMOTE_LIMIT)
        .fetch_all(&mut self.conn)
        .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// When the first delayed job is due.
    pub(super) async fn next_due(&mut self, lane: Lane) -> Result<Option<UnixMillis>, sqlx::Error> {
        sqlx::query_scalar("SELECT min(at) FROM job WHERE lane = ?1 AND state = 2")
            .bind(lane_number(lane))
            .fetch_one(&mut self.conn)
            .await
    }

    /// Makes leased jobs ready again whose worker said nothing.
    pub(super) async fn release(&mut self, seqs: &[i64], now: UnixMillis) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE job SET state = 0, at = ?2, ambiguous = ambiguous OR begun, begun = 0
             WHERE seq IN (SELECT value FROM json_each(?1))",
        )
        .bind(json(&seqs))
        .bind(now)
        .execute(&mut self.conn)
        .await
        .map(drop)
    }

    /// Leases what is ready of these grants, the longest waiting of each.
    pub(super) async fn take(&mut self, grants: &[Grant], now: UnixMillis) -> Result<Vec<Leased>, sqlx::Error> {
        let kinds = |grant: &Grant| [(*grant, false, grant.first), (*grant, true, grant.retries)];
        let takes: Vec<(Grant, bool, usize)> = grants.iter().flat_map(kinds).filter(|(.., max)| *max > 0).collect();
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let (parts, sql) = if takes.len() > TAKES_FEW { (TAKES, &TAKE) } else { (TAKES_FEW, &TAKE_FEW) };
        let mut taken = Vec::new();
        for takes in takes.chunks(parts) {
            let mut query = sqlx::query(sql.as_str()).bind(now);
            for take in (0..parts).map(|at| takes.get(at)) {
                query = match take {
                    Some((grant, retry, max)) => {
                        let all = grant.accepted_until == UnixMillis::MAX;
                        let look = if all { *max } else { HEADS };
                        let query = query.bind(grant.flow.0).bind(*retry).bind(number(look));
                        query.bind(grant.accepted_until).bind(number(*max))
                    }
                    None => query.bind(-1i64).bind(false).bind(0i64).bind(0i64).bind(0i64),
                };
            }
            for row in query.fetch_all(&mut self.conn).await? {
                taken.push(leased(&row)?);
            }
        }
        Ok(taken)
    }

    /// Keeps the bytes of attempts (the first stay) and marks them begun.
    pub(super) async fn mark_begun(&mut self, attempts: &[(i64, &Bytes)]) -> Result<(), sqlx::Error> {
        let mut arena = Arena::with_capacity(attempts.iter().map(|(_, bytes)| bytes.len()).sum());
        let rows: Vec<(i64, usize, usize)> =
            attempts.iter().map(|(seq, bytes)| (*seq, arena.put(bytes), bytes.len())).collect();
        sqlx::query(
            "INSERT INTO rendered (job, bytes)
                 SELECT r.value ->> 0, substr(?1, r.value ->> 1, r.value ->> 2) FROM json_each(?2) AS r WHERE true
             ON CONFLICT (job) DO NOTHING;
             UPDATE job SET begun = 1 WHERE seq IN (SELECT r.value ->> 0 FROM json_each(?2) AS r)",
        )
        .bind(arena.0)
        .bind(json(&rows))
        .execute(&mut self.conn)
        .await
        .map(drop)
    }

    /// Removes jobs with everything that belongs to them.
    pub(super) async fn remove(&mut self, seqs: &[i64]) -> Result<(), sqlx::Error> {
        sqlx::query(
            "DELETE FROM job WHERE seq IN (SELECT value FROM json_each(?1));
             DELETE FROM payload WHERE job IN (SELECT value FROM json_each(?1));
             DELETE FROM rendered WHERE job IN (SELECT value FROM json_each(?1))",
        )
        .bind(json(&seqs))
        .execute(&mut self.conn)
        .await
        .map(drop)
    }

    /// Ends leases with a failed attempt: ready (`due` has come) or delayed, with the bytes for the next one.
    pub(super) async fn retry(
        &mut self,
        jobs: &[(i64, UnixMillis, &Bytes)],
        now: UnixMillis,
    ) -> Result<(), sqlx::Error> {
        let mut arena = Arena::with_capacity(jobs.iter().map(|(.., bytes)| bytes.len()).sum());
        let rows: Vec<(i64, UnixMillis, usize, usize)> =
            jobs.iter().map(|(seq, due, bytes)| (*seq, *due, arena.put(bytes), bytes.len())).collect();
        sqlx::query(
            "UPDATE job SET state = iif(r.value ->> 1 <= ?2, 0, 2), at = max(r.value ->> 1, ?2), retry = 1,
                 attempts = attempts + 1, leases = 0, begun = 0, ambiguous = 0
             FROM json_each(?1) AS r WHERE job.seq = r.value ->> 0;
             INSERT INTO rendered (job, bytes)
                 SELECT r.value ->> 0, substr(?3, r.value ->> 2, r.value ->> 3) FROM json_each(?1) AS r WHERE true
             ON CONFLICT (job) DO UPDATE SET bytes = excluded.bytes",
        )
        .bind(json(&rows))
        .bind(now)
        .bind(arena.0)
        .execute(&mut self.conn)
        .await
        .map(drop)
    }

    /// Ends leases without an attempt: ready (`due` has come) or delayed. An orderly return is no crash: it does not
    /// count against [`MAX_LEASES`].
    pub(super) async fn postpone(&mut self, jobs: &[(i64, UnixMillis)], now: UnixMillis) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE job SET state = iif(r.value ->> 1 <= ?2, 0, 2), at = max(r.value ->> 1, ?2),
                 leases = leases - 1, begun = 0
             FROM json_each(?1) AS r WHERE job.seq = r.value ->> 0",
        )
        .bind(json(&jobs))
        .bind(now)
        .execute(&mut self.conn)
        .await
        .map(drop)
    }

    /// Buries jobs, with the bytes for another attempt where there are some. An attempt that was begun is finished by this.
    pub(super) async fn bury(
        &mut self,
        jobs: &[(i64, &str, Option<&Bytes>)],
        now: UnixMillis,
    ) -> Result<(), sqlx::Error> {
        let mut arena = Arena::with_capacity(jobs.iter().filter_map(|job| job.2).map(Bytes::len).sum());
        let rows: Vec<(i64, &str)> = jobs.iter().map(|(seq, reason, _)| (*seq, *reason)).collect();
        let rendered: Vec<(i64, usize, usize)> = jobs
            .iter()
            .filter_map(|(seq, _, bytes)| bytes.map(|bytes| (*seq, arena.put(bytes), bytes.len())))
            .collect();
        sqlx::query(
            "UPDATE job SET state = 3, at = ?2, reason = r.value ->> 1, attempts = attempts + begun,
                 retry = (attempts + begun > 0), ambiguous = iif(begun, 0, ambiguous), begun = 0
             FROM json_each(?1) AS r WHERE job.seq = r.value ->> 0;
             INSERT INTO rendered (job, bytes)
                 SELECT r.value ->> 0, substr(?4, r.value ->> 1, r.value ->> 2) FROM json_each(?3) AS r WHERE true
             ON CONFLICT (job) DO UPDATE SET bytes = excluded.bytes",
        )
        .bind(json(&rows))
        .bind(now)
        .bind(json(&rendered))
        .bind(arena.0)
        .execute(&mut self.conn)
        .await
        .map(drop)
    }

    /// Where the job is that this fence names; `None` when something happened to it since.
    pub(super) async fn kept(&mut self, id: Uuid, fence: Fence) -> Result<Option<Kept>, sqlx::Error> {
        let row = sqlx::query("SELECT lane, state, flow, retry FROM job WHERE seq = ?1 AND id = ?2 AND epoch = ?3")
            .bind(fence.row)
            .bind(id.as_bytes().to_vec())
            .bind(fence.epoch)
            .fetch_optional(&mut self.conn)
            .await?;
        let kept = |row: SqliteRow| {
            let (lane, place) = (lane(row.try_get(0)?)?, place(row.try_get(1)?)?);
            Ok(Kept { lane, place, flow: row.try_get(2)?, retry: row.try_get(3)? })
        };
        row.map(kept).transpose()
    }

    /// Makes a delayed or dead job due, with a clean record of its leases.
    pub(super) async fn make_due(&mut self, seq: i64, now: UnixMillis) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE job SET state = 2, at = ?2, epoch = epoch + 1, leases = 0, reason = NULL WHERE seq = ?1")
            .bind(seq)
            .bind(now)
            .execute(&mut self.conn)
            .await
            .map(drop)
    }

    /// Appends reports under the numbers after `last`.
    pub(super) async fn report(&mut self, last: i64, reports: &[&Bytes]) -> Result<(), sqlx::Error> {
        let mut arena = Arena::with_capacity(reports.iter().map(|report| report.len()).sum());
        let rows: Vec<(i64, usize, usize)> =
            (last + 1..).zip(reports).map(|(seq, report)| (seq, arena.put(report), report.len())).collect();
        sqlx::query(
            "INSERT INTO outbox (seq, report)
                 SELECT r.value ->> 0, substr(?1, r.value ->> 1, r.value ->> 2) FROM json_each(?2) AS r",
        )
        .bind(arena.0)
        .bind(json(&rows))
        .execute(&mut self.conn)
        .await
        .map(drop)
    }

    pub(super) async fn trim(&mut self, up_to: i64) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM outbox WHERE seq <= ?1").bind(up_to).execute(&mut self.conn).await.map(drop)
    }

    /// Forgets a bounded number of expired keys and of jobs that died before `dead_before`.
    pub(super) async fn sweep(&mut self, now: UnixMillis, dead_before: UnixMillis) -> Result<Swept, sqlx::Error> {
        let keys =
            sqlx::query("DELETE FROM dedup WHERE k IN (SELECT k FROM dedup WHERE exp <= ?1 ORDER BY exp LIMIT ?2)")
                .bind(now)
                .bind(SWEEP_LIMIT)
                .execute(&mut self.conn)
                .await?
                .rows_affected();
        let rows = sqlx::query("SELECT seq, lane FROM job WHERE state = 3 AND at <= ?1 LIMIT ?2")
            .bind(dead_before)
            .bind(SWEEP_LIMIT)
            .fetch_all(&mut self.conn)
            .await?;
        let (mut seqs, mut dead) = (Vec::with_capacity(rows.len()), [0, 0]);
        for row in rows {
            seqs.push(row.try_get::<i64, _>(0)?);
            dead[lane(row.try_get(1)?)?.index()] += 1;
        }
        if !seqs.is_empty() {
            self.remove(&seqs).await?;
        }
        let more = keys >= count(SWEEP_LIMIT) || dead[0] + dead[1] >= count(SWEEP_LIMIT);
        let row = sqlx::query("SELECT (SELECT min(exp) FROM dedup), (SELECT min(at) FROM job WHERE state = 3)")
            .fetch_one(&mut self.conn)
            .await?;
        Ok(Swept { dead, more, next_key: row.try_get(0)?, next_dead: row.try_get(1)? })
    }
}

/// Statements for a fixed number of parts, so that each is prepared once.
static TAKE: LazyLock<String> = LazyLock::new(|| take_sql(TAKES));
static TAKE_FEW: LazyLock<String> = LazyLock::new(|| take_sql(TAKES_FEW));

fn take_sql(number: usize) -> String {
    let mut parts = String::new();
    for part in 0..number {
        let [flow, retry, look, until, max] = [2, 3, 4, 5, 6].map(|place| place + 5 * part);
        let union = if part == 0 { "" } else { " UNION ALL " };
        // Writing into a string cannot fail.
        let _written = write!(
            parts,
            "{union}SELECT * FROM (SELECT seq FROM (
                 SELECT seq, accepted FROM job WHERE flow = ?{flow} AND state = 0 AND retry = ?{retry}
                 ORDER BY at, seq LIMIT ?{look}) WHERE accepted <= ?{until} LIMIT ?{max})"
        );
    }
    format!(
        "UPDATE job SET state = 1, at = ?1, epoch = epoch + 1, leases = leases + 1 WHERE seq IN ({parts})
         RETURNING seq, epoch, id, lane, attempts, leases, ambiguous, accepted, flow,
             (SELECT p.bytes FROM payload AS p WHERE p.job = seq),
             (SELECT r.bytes FROM rendered AS r WHERE r.job = seq)"
    )
}

fn leased(row: &SqliteRow) -> Result<Leased, sqlx::Error> {
    let leases: u32 = row.try_get(5)?;
    Ok(Leased {
        fence: Fence { row: row.try_get(0)?, epoch: row.try_get(1)? },
        id: uuid(row.try_get(2)?)?,
        lane: lane(row.try_get(3)?)?,
        attempt: row.try_get(4)?,
        poisoned: leases > MAX_LEASES,
        ambiguous: row.try_get(6)?,
        accepted_at: row.try_get(7)?,
        flow: FlowId(row.try_get(8)?),
        payload: Bytes::from(row.try_get::<Vec<u8>, _>(9)?),
        rendered: row.try_get::<Option<Vec<u8>>, _>(10)?.map(Bytes::from),
    })
}

impl From<&Leased> for Held {
    fn from(job: &Leased) -> Self {
        Self { id: job.id, lane: job.lane, epoch: job.fence.epoch, flow: job.flow.0, retry: job.attempt > 0 }
    }
}
