//! What is read from the file and written to it. Reads run by themselves: the committer is the only writer, so nothing changes
//! between them and its next transaction. Writes are collected in a [`Script`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::super::{Fence, Flow, FlowId, Lane, Leased, MAX_LEASES, NewJob, Place};
use super::book::{Counts, Held};
use super::claims::{Claims, SPAN_BITS};
use super::find::place;
use super::flows::{Entry, Ready, ReadyJob};
use super::pack;
use super::script::{Arena, Script, json};
use crate::clock::UnixMillis;

mod keys;

pub(super) use self::keys::is_not_new;

/// Jobs promoted from delayed to ready in one step.
const PROMOTE_LIMIT: i64 = 512;
/// Keys and dead jobs forgotten in one step.
const SWEEP_LIMIT: i64 = 512;
const STATES: usize = 4;

/// The writer connection.
pub(super) struct Store {
    conn: SqliteConnection,
}

/// A job that nobody may work on.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    pub(super) lane: Lane,
    pub(super) place: Place,
    pub(super) flow: i64,
    pub(super) retry: bool,
}

/// A delayed job whose time has come.
pub(super) struct Due {
    pub(super) flow: i64,
    pub(super) retry: bool,
    pub(super) job: ReadyJob,
}

/// What is over: a batch of it, and when the next is worth it.
pub(super) struct Over {
    /// How many keys.
    keys: i64,
    /// Dead jobs.
    jobs: Vec<i64>,
    pub(super) dead: [u64; 2],
}

impl Over {
    /// There is more than one batch.
    pub(super) fn is_full(&self) -> bool {
        self.keys >= SWEEP_LIMIT || self.jobs.len() >= usize::try_from(SWEEP_LIMIT).unwrap_or(usize::MAX)
    }

    fn is_empty(&self) -> bool {
        self.keys == 0 && self.jobs.is_empty()
    }
}

/// What the file says when it is opened.
pub(super) struct Loaded {
    pub(super) counts: [Counts; 2],
    pub(super) next_due: [Option<UnixMillis>; 2],
    pub(super) flows: Vec<Entry>,
    pub(super) claims: Claims,
    pub(super) next_seq: i64,
    pub(super) outbox_last: i64,
    pub(super) outbox_trimmed: i64,
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

    /// Runs what was collected as one transaction.
    pub(super) async fn commit(&mut self, script: Script) -> Result<(), sqlx::Error> {
        script.commit(&mut self.conn).await
    }

    /// Moves what is left in the log into the file; the next transaction begins the log anew.
    pub(super) async fn move_log(&mut self) -> Result<(), sqlx::Error> {
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut self.conn).await.map(drop)
    }

    /// Moves the log into the file and closes.
    pub(super) async fn close(mut self) -> Result<(), sqlx::Error> {
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut self.conn).await?;
        self.conn.close().await
    }

    /// Ends the leases of earlier processes, which said nothing of them: what was begun is ambiguous, with its bytes kept.
    pub(super) async fn recover(&mut self, now: UnixMillis) -> Result<(), sqlx::Error> {
        let broken = || sqlx::Error::Decode("a row of work".into());
        let rows = sqlx::query("SELECT leased, begun FROM work").fetch_all(&mut self.conn).await?;
        let (mut leased, mut begun) = (Vec::new(), Vec::new());
        for row in rows {
            leased.extend(pack::read_leases(row.try_get::<Vec<u8>, _>(0)?.into()).ok_or_else(broken)?);
            begun.extend(pack::read_attempts(row.try_get::<Vec<u8>, _>(1)?.into()).ok_or_else(broken)?);
        }
        let mut script = Script::default();
        let mut arena = Arena::with_capacity(begun.iter().map(|(_, bytes)| bytes.len()).sum());
        let begun: Vec<(i64, i64, usize, usize)> =
            begun.iter().map(|((seq, epoch), bytes)| (*seq, *epoch, arena.put(bytes), bytes.len())).collect();
        script
            .add(
                "INSERT INTO rendered (job, bytes)
                     SELECT job.seq, substr(?2, r.value ->> 2, r.value ->> 3) FROM json_each(?1) AS r
                     JOIN job ON job.seq = r.value ->> 0 AND job.epoch = (r.value ->> 1) - 1 WHERE true
                 ON CONFLICT (job) DO NOTHING;
                 UPDATE job SET ambiguous = 1
                     FROM json_each(?1) AS r WHERE job.seq = r.value ->> 0 AND job.epoch = (r.value ->> 1) - 1",
            )
            .bind(json(&begun))
            .bind(arena.into_blob());
        script
            .add(
                "UPDATE job SET at = ?2, epoch = epoch + 1, leases = leases + 1
                     FROM json_each(?1) AS r WHERE job.seq = r.value ->> 0 AND job.epoch = (r.value ->> 1) - 1;
                 DELETE FROM work",
            )
            .bind(json(&leased))
            .bind(now);
        self.commit(script).await
    }

    async fn load_flows(&mut self) -> Result<Vec<Entry>, sqlx::Error> {
        let rows =
            sqlx::query("SELECT id, lane, workspace, destination, owner FROM flow").fetch_all(&mut self.conn).await?;
        let entry = |row: &SqliteRow| {
            let flow = Flow { workspace: row.try_get(2)?, destination: row.try_get(3)?, owner: row.try_get(4)? };
            let (number, lane) = (row.try_get(0)?, lane(row.try_get(1)?)?);
            Ok(Entry { number, lane, flow: Arc::new(flow), ready: Ready::default() })
        };
        rows.iter().map(entry).collect()
    }

    /// Goes through all jobs once: how many there are of each kind, which are ready, and which flows have none and are forgotten.
    async fn load_jobs(&mut self) -> Result<(Vec<Entry>, [Counts; 2]), sqlx::Error> {
        let mut flows: HashMap<i64, Entry> =
            self.load_flows().await?.into_iter().map(|entry| (entry.number, entry)).collect();
        let mut unused: HashSet<i64> = flows.keys().copied().collect();
        let mut numbers = [[0; STATES]; 2];
        let mut rows = sqlx::query("SELECT flow, lane, state, retry, seq, at, accepted FROM job").fetch(&mut self.conn);
        while let Some(row) = rows.try_next().await? {
            let (flow, state) = (row.try_get(0)?, state(row.try_get(2)?)?);
            numbers[lane(row.try_get(1)?)?.index()][state] += 1;
            unused.remove(&flow);
            if let Some(entry) = flows.get_mut(&flow).filter(|_| state == 0) {
                entry.ready.of(row.try_get(3)?).push_back(ready_job(&row, 4)?);
            }
        }
        drop(rows);
        if !unused.is_empty() {
            let mut script = Script::default();
            let numbers: Vec<i64> = unused.iter().copied().collect();
            script.add("DELETE FROM flow WHERE id IN (SELECT value FROM json_each(?1))").bind(json(&numbers));
            self.commit(script).await?;
        }
        flows.retain(|number, _| !unused.contains(number));
        for entry in flows.values_mut() {
            for retry in [false, true] {
                entry.ready.of(retry).make_contiguous().sort_unstable_by_key(|job| (job.at, job.seq));
            }
        }
        let mut counts = [Counts::default(); 2];
        for (counts, numbers) in counts.iter_mut().zip(numbers) {
            numbers.into_iter().enumerate().for_each(|(state, number)| counts.set(state, number));
        }
        Ok((flows.into_values().collect(), counts))
    }

    pub(super) async fn load(&mut self) -> Result<Loaded, sqlx::Error> {
        let (flows, counts) = self.load_jobs().await?;
        let claims = self.load_claims().await?;
        let next_due = [self.next_due(Lane::Realtime).await?, self.next_due(Lane::Bulk).await?];
        let row = sqlx::query(
            "SELECT coalesce((SELECT max(seq) FROM job), 0) + 1,
                    coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0),
                    (SELECT last - reports FROM outbox ORDER BY last LIMIT 1)",
        )
        .fetch_one(&mut self.conn)
        .await?;
        let outbox_last = row.try_get(1)?;
        let outbox_trimmed: Option<i64> = row.try_get(2)?;
        Ok(Loaded {
            counts,
            next_due,
            flows,
            claims,
            next_seq: row.try_get(0)?,
            outbox_last,
            outbox_trimmed: outbox_trimmed.unwrap_or(outbox_last),
        })
    }

    /// Jobs with everything that belongs to them, as their next lease.
    pub(super) async fn jobs(&mut self, seqs: &[i64]) -> Result<Vec<Leased>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT j.seq, j.epoch + 1, j.id, j.lane, j.attempts, j.leases + 1, j.ambiguous, j.accepted, j.flow, j.payload,
                 r.bytes
             FROM json_each(?1) AS l CROSS JOIN job AS j ON j.seq = l.value LEFT JOIN rendered AS r ON r.job = j.seq",
        )
        .bind(json(&seqs))
        .fetch_all(&mut self.conn)
        .await?;
        rows.iter().map(leased).collect()
    }

    /// Delayed jobs that are due, a bounded number, the longest due first.
    pub(super) async fn due(&mut self, lane: Lane, now: UnixMillis) -> Result<Vec<Due>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT flow, retry, seq, at, accepted FROM job WHERE lane = ?1 AND state = 2 AND at <= ?2 ORDER BY at LIMIT ?3",
        )
        .bind(lane_number(lane))
        .bind(now)
        .bind(PROMOTE_LIMIT)
        .fetch_all(&mut self.conn)
        .await?;
        let due = |row: &SqliteRow| Ok(Due { flow: row.try_get(0)?, retry: row.try_get(1)?, job: ready_job(row, 2)? });
        rows.iter().map(due).collect()
    }

    /// When the first delayed job is due.
    pub(super) async fn next_due(&mut self, lane: Lane) -> Result<Option<UnixMillis>, sqlx::Error> {
        sqlx::query_scalar("SELECT min(at) FROM job WHERE lane = ?1 AND state = 2")
            .bind(lane_number(lane))
            .fetch_one(&mut self.conn)
            .await
    }

    /// Where the job is that this fence names, if nobody works on it; `None` when something happened to it since.
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

    /// A bounded number of keys of spans that are over and of jobs that died before `dead_before`.
    pub(super) async fn over(&mut self, now: UnixMillis, dead_before: UnixMillis) -> Result<Over, sqlx::Error> {
        let keys = sqlx::query_scalar("SELECT count(*) FROM (SELECT 1 FROM dedup WHERE exp >> 18 < ?1 LIMIT ?2)")
            .bind(now >> SPAN_BITS)
            .bind(SWEEP_LIMIT)
            .fetch_one(&mut self.conn)
            .await?;
        let rows = sqlx::query("SELECT seq, lane FROM job WHERE state = 3 AND at <= ?1 LIMIT ?2")
            .bind(dead_before)
            .bind(SWEEP_LIMIT)
            .fetch_all(&mut self.conn)
            .await?;
        let (mut jobs, mut dead) = (Vec::with_capacity(rows.len()), [0, 0]);
        for row in rows {
            jobs.push(row.try_get::<i64, _>(0)?);
            dead[lane(row.try_get(1)?)?.index()] += 1;
        }
        Ok(Over { keys, jobs, dead })
    }

    /// When the first span of keys is over, and when the first dead job died.
    pub(super) async fn first_over(&mut self) -> Result<(Option<UnixMillis>, Option<UnixMillis>), sqlx::Error> {
        let row = sqlx::query("SELECT (SELECT min(exp >> 18) FROM dedup), (SELECT min(at) FROM job WHERE state = 3)")
            .fetch_one(&mut self.conn)
            .await?;
        let span: Option<i64> = row.try_get(0)?;
        Ok((span.map(|span| (span + 1) << SPAN_BITS), row.try_get(1)?))
    }
}

/// What a transaction writes.
impl Script {
    /// Writes down new flows.
    pub(super) fn add_flows(&mut self, flows: &[(i64, Lane, &Flow)]) {
        let rows: Vec<(i64, i64, &str, &str, &str)> = flows
            .iter()
            .map(|(number, lane, flow)| {
                (*number, lane_number(*lane), flow.workspace.as_str(), flow.destination.as_str(), flow.owner.as_str())
            })
            .collect();
        self.add(
            "INSERT INTO flow (id, lane, workspace, destination, owner)
                 SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4
                 FROM json_each(?1) AS r",
        )
        .bind(json(&rows));
    }

    /// Enqueues jobs as ready, each with its number and its flow's.
    pub(super) fn add_jobs(&mut self, jobs: &[(i64, i64, &NewJob)], now: UnixMillis) {
        let mut arena = Arena::with_capacity(jobs.iter().map(|(.., job)| job.payload.len() + 16).sum());
        let rows: Vec<(i64, i64, i64, usize, usize)> = jobs
            .iter()
            .map(|(seq, flow, job)| {
                let id = arena.put(job.id.as_bytes());
                // The payload follows the id.
                arena.put(&job.payload);
                (*seq, lane_number(job.lane), *flow, id, job.payload.len())
            })
            .collect();
        self.add(
            "INSERT INTO job (seq, id, lane, flow, state, retry, at, accepted, payload)
                 SELECT r.value ->> 0, substr(?1, r.value ->> 3, 16), r.value ->> 1, r.value ->> 2, 0, 0, ?3, ?3,
                     substr(?1, (r.value ->> 3) + 16, r.value ->> 4)
                 FROM json_each(?2) AS r",
        )
        .bind(arena.into_blob())
        .bind(json(&rows))
        .bind(now);
    }

    /// Names what is worked on since this step: leases, and attempts that begin with their bytes.
    pub(super) fn work(&mut self, step: i64, leased: &[pack::Lease], begun: &[(pack::Lease, Bytes)]) {
        self.add("INSERT INTO work (step, leased, begun) VALUES (?1, ?2, ?3)")
            .bind(step)
            .bind(pack::leases(leased))
            .bind(pack::attempts(begun));
    }

    /// Forgets steps of which nothing is worked on any more.
    pub(super) fn forget_steps(&mut self, steps: &[i64]) {
        self.add("DELETE FROM work WHERE step IN (SELECT value FROM json_each(?1))").bind(json(&steps));
    }

    /// Makes due jobs ready.
    pub(super) fn promote(&mut self, seqs: &[i64]) {
        self.add("UPDATE job SET state = 0 WHERE seq IN (SELECT value FROM json_each(?1))").bind(json(&seqs));
    }

    /// Ends leases whose worker said nothing.
    pub(super) fn release(&mut self, leases: &[(i64, Held)], now: UnixMillis) {
        self.keep_bytes(leases.iter().map(|(seq, held)| (*seq, held)));
        let rows: Vec<(i64, i64, bool)> =
            leases.iter().map(|(seq, held)| (*seq, held.epoch, held.begun.is_some())).collect();
        self.add(
            "UPDATE job SET at = ?2, epoch = r.value ->> 1, leases = leases + 1, ambiguous = ambiguous OR r.value ->> 2
             FROM json_each(?1) AS r WHERE job.seq = r.value ->> 0",
        )
        .bind(json(&rows))
        .bind(now);
    }

    /// Keeps the bytes of attempts that were begun beside their jobs; the first stay.
    fn keep_bytes<'a>(&mut self, leases: impl Iterator<Item = (i64, &'a Held)>) {
        let bytes: Vec<(i64, &Bytes)> = leases.filter_map(|(seq, held)| Some((seq, held.unwritten()?))).collect();
        self.rendered(
            &bytes,
            "INSERT INTO rendered (job, bytes)
             SELECT r.value ->> 0, substr(?1, r.value ->> 1, r.value ->> 2) FROM json_each(?2) AS r WHERE true
             ON CONFLICT (job) DO NOTHING",
        );
    }

    /// Puts these bytes in the place of others.
    fn replace_bytes(&mut self, bytes: &[(i64, &Bytes)]) {
        self.rendered(
            bytes,
            "INSERT INTO rendered (job, bytes)
             SELECT r.value ->> 0, substr(?1, r.value ->> 1, r.value ->> 2) FROM json_each(?2) AS r WHERE true
             ON CONFLICT (job) DO UPDATE SET bytes = excluded.bytes",
        );
    }

    fn rendered(&mut self, bytes: &[(i64, &Bytes)], sql: &'static str) {
        if bytes.is_empty() {
            return;
        }
        let mut arena = Arena::with_capacity(bytes.iter().map(|(_, bytes)| bytes.len()).sum());
        let rows: Vec<(i64, usize, usize)> =
            bytes.iter().map(|(seq, bytes)| (*seq, arena.put(bytes), bytes.len())).collect();
        self.add(sql).bind(arena.into_blob()).bind(json(&rows));
    }

    /// Removes jobs; with `rendered` those that have bytes of an attempt.
    pub(super) fn remove(&mut self, seqs: &[i64], rendered: &[i64]) {
        self.add("DELETE FROM job WHERE seq IN (SELECT value FROM json_each(?1))").bind(json(&seqs));
        if !rendered.is_empty() {
            self.add("DELETE FROM rendered WHERE job IN (SELECT value FROM json_each(?1))").bind(json(&rendered));
        }
    }

    /// Ends leases with a failed attempt: ready (`due` has come) or delayed, with the bytes for the next one.
    pub(super) fn retry(&mut self, jobs: &[(i64, i64, UnixMillis, &Bytes)], now: UnixMillis) {
        let bytes: Vec<(i64, &Bytes)> = jobs.iter().map(|(seq, .., bytes)| (*seq, *bytes)).collect();
        self.replace_bytes(&bytes);
        let rows: Vec<(i64, i64, UnixMillis)> = jobs.iter().map(|(seq, epoch, due, _)| (*seq, *epoch, *due)).collect();
        self.add(
            "UPDATE job SET state = iif(r.value ->> 2 <= ?2, 0, 2), at = max(r.value ->> 2, ?2), retry = 1,
                 attempts = attempts + 1, leases = 0, epoch = r.value ->> 1, ambiguous = 0
             FROM json_each(?1) AS r WHERE job.seq = r.value ->> 0",
        )
        .bind(json(&rows))
        .bind(now);
    }

    /// Ends leases without an attempt: ready (`due` has come) or delayed. An orderly return is no crash: it does not
    /// count against [`MAX_LEASES`].
    pub(super) fn postpone(&mut self, jobs: &[(i64, Held, UnixMillis)], now: UnixMillis) {
        self.keep_bytes(jobs.iter().map(|(seq, held, _)| (*seq, held)));
        let rows: Vec<(i64, i64, UnixMillis)> = jobs.iter().map(|(seq, held, due)| (*seq, held.epoch, *due)).collect();
        self.add(
            "UPDATE job SET state = iif(r.value ->> 2 <= ?2, 0, 2), at = max(r.value ->> 2, ?2), epoch = r.value ->> 1
             FROM json_each(?1) AS r WHERE job.seq = r.value ->> 0",
        )
        .bind(json(&rows))
        .bind(now);
    }

    /// Buries jobs, with the bytes for another attempt where there are some. An attempt that was begun is finished by this.
    pub(super) fn bury(&mut self, jobs: &[(i64, Held, &str, Option<&Bytes>)], now: UnixMillis) {
        let given: Vec<(i64, &Bytes)> = jobs.iter().filter_map(|(seq, .., bytes)| Some((*seq, (*bytes)?))).collect();
        self.replace_bytes(&given);
        let others = jobs.iter().filter(|(.., bytes)| bytes.is_none());
        self.keep_bytes(others.map(|(seq, held, ..)| (*seq, held)));
        let rows: Vec<(i64, i64, &str, i64)> = jobs
            .iter()
            .map(|(seq, held, reason, _)| (*seq, held.epoch, *reason, i64::from(held.begun.is_some())))
            .collect();
        self.add(
            "UPDATE job SET state = 3, at = ?2, epoch = r.value ->> 1, reason = r.value ->> 2,
                 attempts = attempts + (r.value ->> 3), retry = (attempts + (r.value ->> 3) > 0),
                 ambiguous = iif(r.value ->> 3, 0, ambiguous)
             FROM json_each(?1) AS r WHERE job.seq = r.value ->> 0",
        )
        .bind(json(&rows))
        .bind(now);
    }

    /// Makes a delayed or dead job due, with a clean record of its leases.
    pub(super) fn make_due(&mut self, seq: i64, now: UnixMillis) {
        self.add("UPDATE job SET state = 2, at = ?2, epoch = epoch + 1, leases = 0, reason = NULL WHERE seq = ?1")
            .bind(seq)
            .bind(now);
    }

    /// Appends reports under the numbers after `last`.
    pub(super) fn report(&mut self, last: i64, reports: &[&Bytes]) {
        let number = i64::try_from(reports.len()).unwrap_or(i64::MAX);
        self.add("INSERT INTO outbox (last, bytes, reports) VALUES (?1, ?2, ?3)")
            .bind(last + number)
            .bind(pack::reports(reports))
            .bind(number);
    }

    /// Forgets reports; those that share a row go with its last.
    pub(super) fn trim(&mut self, up_to: i64) {
        self.add("DELETE FROM outbox WHERE last <= ?1").bind(up_to);
    }

    /// Forgets what is over.
    pub(super) fn sweep(&mut self, over: &Over, now: UnixMillis) {
        if over.is_empty() {
            return;
        }
        self.add("DELETE FROM dedup WHERE k IN (SELECT k FROM dedup WHERE exp >> 18 < ?1 ORDER BY exp >> 18 LIMIT ?2)")
            .bind(now >> SPAN_BITS)
            .bind(SWEEP_LIMIT);
        self.remove(&over.jobs, &over.jobs);
    }
}

fn ready_job(row: &SqliteRow, from: usize) -> Result<ReadyJob, sqlx::Error> {
    Ok(ReadyJob { seq: row.try_get(from)?, at: row.try_get(from + 1)?, accepted: row.try_get(from + 2)? })
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

impl Held {
    /// The lease of a job that this step names.
    pub(super) fn of(job: &Leased, step: i64) -> Self {
        Self {
            id: job.id,
            lane: job.lane,
            epoch: job.fence.epoch,
            flow: job.flow.0,
            retry: job.attempt > 0,
            rendered: job.rendered.is_some(),
            accepted: job.accepted_at,
            step,
            begun: None,
        }
    }
}
