//! What only this backend has: a file with a mode, a lock and a version, a disk that can be full, a writer that can fail.

use futures::FutureExt;
use futures::future::join_all;
use sqlx::sqlite::SqliteRow;

use super::super::{Claim, Flow, Inbox, NewJob};
use super::*;

const START: UnixMillis = 1_700_000_000_000;
/// Keys of a file in which none was moved yet.
const KEYS: &str = "SELECT (SELECT count(*) FROM dedup) + (SELECT coalesce(sum(length(keys)), 0) / 56 FROM claim)";
const PATIENCE: Duration = Duration::from_secs(20);

struct Place {
    dir: tempfile::TempDir,
    clock: Clock,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), clock: Clock::manual(START) }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("inbox.db")
    }

    fn settings(&self) -> EmbeddedSettings {
        EmbeddedSettings::new(self.path())
    }

    async fn open(&self) -> Inbox {
        self.open_with(self.settings()).await
    }

    async fn open_with(&self, settings: EmbeddedSettings) -> Inbox {
        Inbox::Embedded(Embedded::open(settings, self.clock.clone()).await.unwrap())
    }

    async fn refused(&self, settings: EmbeddedSettings) -> OpenError {
        Embedded::open(settings, self.clock.clone()).await.expect_err("refused")
    }

    /// A connection of somebody else.
    async fn sql(&self) -> SqliteConnection {
        options(&self.path()).create_if_missing(true).connect().await.unwrap()
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.sql().await).await.unwrap()
    }
}

fn keyed(n: u64, window: Duration, payload: usize) -> Accept {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&n.to_le_bytes());
    let flow = Arc::new(Flow { destination: "api.example.com".to_owned(), ..Flow::default() });
    let job = NewJob { id: Uuid::new_v4(), lane: Lane::Realtime, flow, payload: Bytes::from(vec![1; payload]) };
    Accept { request: Uuid::new_v4(), claim: Some(Claim { key, window }), jobs: vec![job] }
}

/// Leases from every flow of the realtime lane.
async fn lease(inbox: &Inbox, max: usize) -> Result<Vec<Leased>, Unavailable> {
    inbox.lease(Vec::new()).await?;
    let flows = inbox.waiting(Lane::Realtime, 0).await?.waiting;
    inbox.lease(flows.iter().map(|flow| Grant::any(flow.id, max, 0)).collect()).await
}

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn a_first_lease_is_given_without_a_commit_and_written_with_the_next() {
    let place = Place::new();
    let inbox = place.open().await;
    inbox.accept(keyed(1, DAY, 10)).await.unwrap();
    let job = lease(&inbox, 1).await.unwrap().remove(0);
    assert_eq!(place.count("SELECT count(*) FROM work").await, 0);
    inbox.begin(job.id, job.fence, Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(place.count("SELECT count(*) FROM work WHERE length(leased) = 16").await, 1);
    place.clock.advance(DAY.as_millis() as i64);
    let again = lease(&inbox, 1).await.unwrap().remove(0);
    assert!(again.ambiguous && again.fence.order() > job.fence.order());
    assert_eq!(place.count("SELECT count(*) FROM work").await, 1, "a second lease is written before it is given");
    assert_eq!(inbox.begin(job.id, job.fence, Bytes::new()).await, Err(LeaseError::Fenced));
}

#[tokio::test]
async fn a_first_lease_outlives_a_transaction_that_fails() {
    let place = Place::new();
    let inbox = place.open_with(EmbeddedSettings { max_file_bytes: 256 * 1024, ..place.settings() }).await;
    inbox.accept(keyed(1, DAY, 10)).await.unwrap();
    let job = lease(&inbox, 1).await.unwrap().remove(0);
    assert_eq!(inbox.accept(keyed(2, DAY, 1024 * 1024)).await, Err(Unavailable), "the disk is full");
    assert!(lease(&inbox, 1).await.unwrap().is_empty(), "nobody else gets it");
    inbox.begin(job.id, job.fence, Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(place.count("SELECT count(*) FROM work WHERE length(leased) = 16").await, 1);
    inbox.finish(job.id, job.fence, Finish::Done { report: Bytes::new().into() }).await.unwrap();
    assert_eq!(place.count("SELECT count(*) FROM work").await, 0);
}

#[tokio::test]
async fn the_log_is_moved_beside_the_writer_and_begins_anew() {
    let place = Place::new();
    let inbox = place.open().await;
    let began = || {
        let log = std::fs::read(place.dir.path().join("inbox.db-wal")).unwrap();
        u32::from_be_bytes(log[12..16].try_into().unwrap())
    };
    let mut groups = 0;
    let mut kept = 0;
    while began() < 4 {
        let some = (0..8).map(|n| inbox.accept(keyed(kept + n, DAY, 4_096)));
        assert!(join_all(some).await.into_iter().all(|accepted| accepted == Ok(Accepted::Accepted)));
        (groups, kept) = (groups + 1, kept + 8);
        assert!(groups < 1_000, "far less than what makes SQLite move it");
    }
    inbox.close().await;
    assert!(!place.dir.path().join("inbox.db-wal").exists());
    assert_eq!(place.count("SELECT count(*) FROM job").await, kept.cast_signed());
}

/// Moving beside a writer that goes on never ends by itself: the rest is the writer's.
#[tokio::test]
async fn the_writer_is_told_to_move_the_rest_once_and_not_before_much_was_written() {
    let place = Place::new();
    let inbox = place.open().await;
    inbox.accept(keyed(1, DAY, 4_096)).await.unwrap();
    let mut log = Log::new(&place.path(), File::open(place.path()).unwrap());
    assert!(!log.wrote(1).await);
    assert!(!log.wrote(64 << 20).await, "most of it is moved first");
    let told = async {
        while !log.wrote(1).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("the writer is told");
    assert!(!log.wrote(1).await, "it counts anew");
    inbox.close().await;
}

#[tokio::test]
async fn the_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    std::fs::write(place.path(), b"").unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let inbox = place.open().await;
    inbox.accept(keyed(1, DAY, 10)).await.unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(place.dir.path()).unwrap() {
        let entry = entry.unwrap();
        names.push(entry.file_name().into_string().unwrap());
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{names:?}");
    }
    names.sort();
    assert_eq!(names, ["inbox.db", "inbox.db-shm", "inbox.db-wal", "inbox.db.lock"]);
}

#[tokio::test]
async fn a_second_inbox_on_the_same_file_is_refused() {
    let place = Place::new();
    let inbox = place.open().await;
    assert!(matches!(place.refused(place.settings()).await, OpenError::InUse(_)));
    inbox.close().await;
    place.open().await.close().await;
}

#[tokio::test]
async fn dropping_lets_go_of_the_file() {
    let place = Place::new();
    let inbox = place.open().await;
    inbox.accept(keyed(1, DAY, 10)).await.unwrap();
    drop(inbox);
    let again = tokio::time::timeout(PATIENCE, async {
        loop {
            match Embedded::open(place.settings(), place.clock.clone()).await {
                Err(OpenError::InUse(_)) => tokio::task::yield_now().await,
                other => return other.unwrap(),
            }
        }
    });
    assert_eq!(lease(&Inbox::Embedded(again.await.unwrap()), 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_of_somebody_else_or_of_the_future_is_refused_untouched() {
    let place = Place::new();
    sqlx::raw_sql("CREATE TABLE theirs (x)").execute(&mut place.sql().await).await.unwrap();
    assert!(matches!(place.refused(place.settings()).await, OpenError::Foreign(_)));
    assert_eq!(place.count("SELECT count(*) FROM sqlite_schema").await, 1);

    let place = Place::new();
    place.open().await.close().await;
    assert_eq!(place.count("SELECT user_version FROM pragma_user_version").await, SCHEMA_VERSION);
    assert_eq!(place.count("SELECT application_id FROM pragma_application_id").await, APPLICATION_ID);
    sqlx::raw_sql("PRAGMA user_version = 5").execute(&mut place.sql().await).await.unwrap();
    let error = place.refused(place.settings()).await;
    assert!(matches!(error, OpenError::Newer { found: 5, .. }), "{error}");

    let place = Place::new();
    std::fs::write(place.path(), vec![b'x'; 5_000]).unwrap();
    assert!(matches!(place.refused(place.settings()).await, OpenError::Database(_)));
}

/// Copies the files as a kill would leave them, the log cut to `log` bytes.
fn copy_cut(from: &Place, to: &Place, log: usize) {
    std::fs::copy(from.path(), to.path()).unwrap();
    let name = |place: &Place| format!("{}-wal", place.path().display());
    let whole = std::fs::read(name(from)).unwrap();
    std::fs::write(name(to), &whole[..log]).unwrap();
}

/// F37: whatever a page says of itself is wrong, the file is refused, or all is there.
#[tokio::test]
async fn a_damaged_file_is_refused_and_never_quietly_shorter() {
    const KEPT: u64 = 250;
    let place = Place::new();
    let inbox = place.open().await;
    join_all((0..KEPT).map(|n| inbox.accept(keyed(n, DAY, 1_500)))).await;
    inbox.close().await;
    let whole = std::fs::read(place.path()).unwrap();
    let mut refused = 0;
    for page in 0..whole.len() / 8_192 {
        // What kind of page it is, and how much is on it.
        for byte in [0, 4] {
            let damaged = Place::new();
            let mut bytes = whole.clone();
            bytes[page * 8_192 + if page == 0 { 100 } else { 0 } + byte] ^= 1;
            std::fs::write(damaged.path(), bytes).unwrap();
            match Embedded::open(damaged.settings(), damaged.clock.clone()).await {
                Err(OpenError::Damaged { .. } | OpenError::Database(_)) => refused += 1,
                Err(error) => panic!("page {page}, byte {byte}: {error}"),
                Ok(inbox) => {
                    let inbox = Inbox::Embedded(inbox);
                    assert_eq!(inbox.stats().await.unwrap().realtime.ready, KEPT, "page {page}, byte {byte}");
                    inbox.close().await;
                }
            }
        }
    }
    assert!(refused > 50, "{refused} were refused");
}

/// F37, F38: a log that ends anywhere, as after a loss of power, holds whole steps: never a key without its job. The index of the log
/// is made anew.
#[tokio::test]
async fn a_log_that_is_cut_off_holds_whole_steps() {
    let place = Place::new();
    let inbox = place.open().await;
    for n in 0..12 {
        inbox.accept(keyed(n, DAY, 500)).await.unwrap();
    }
    let log = usize::try_from(std::fs::metadata(format!("{}-wal", place.path().display())).unwrap().len()).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for cut in 0..=40 {
        let left = Place::new();
        copy_cut(&place, &left, log * cut / 40);
        let opened = left.open().await;
        let ready = opened.stats().await.unwrap().realtime.ready;
        opened.close().await;
        assert_eq!(left.count(KEYS).await, ready as i64, "cut at {cut} of 40");
        seen.insert(ready);
    }
    assert!(seen.contains(&0) && seen.contains(&12) && seen.len() > 4, "the cuts were everywhere: {seen:?}");
}

#[tokio::test]
async fn a_file_of_the_first_version_is_taken_over() {
    let place = Place::new();
    let mut old = place.sql().await;
    sqlx::raw_sql(SCHEMA[0]).execute(&mut old).await.unwrap();
    sqlx::raw_sql(
        "INSERT INTO job (seq, id, lane, state, retry, at, accepted, attempts, reason) VALUES
             (1, zeroblob(16), 0, 0, 0, 5, 5, 0, NULL), (2, zeroblob(16), 1, 2, 1, 9, 5, 1, NULL),
             (3, zeroblob(16), 0, 1, 0, 5, 5, 0, NULL), (4, zeroblob(16), 0, 3, 0, 1700000000000, 5, 0, 'gone');
         UPDATE job SET begun = 1 WHERE seq = 3;
         INSERT INTO payload (job, bytes) VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, 'four');
         INSERT INTO rendered (job, bytes) VALUES (3, 'sent');
         INSERT INTO dedup (k, request, exp) VALUES (x'0900000000000000000000000000000000000000000000000000000000000000', zeroblob(16), 1700000000001);
         INSERT INTO outbox (seq, report) VALUES (7, 'told'), (8, 'told too')",
    )
    .execute(&mut old)
    .await
    .unwrap();
    old.close().await.unwrap();
    let inbox = place.open().await;
    inbox.accept(keyed(1, DAY, 10)).await.unwrap();
    assert_eq!(inbox.accept(keyed(9, DAY, 10)).await, Ok(Accepted::Duplicate));
    let flows = inbox.waiting(Lane::Realtime, 0).await.unwrap().waiting;
    let mut known: Vec<(&str, u64)> = flows.iter().map(|one| (one.flow.destination.as_str(), one.first)).collect();
    known.sort_unstable();
    assert_eq!(known, [("", 2), ("api.example.com", 1)], "what was leased is ready again");
    let leased = lease(&inbox, 9).await.unwrap();
    assert_eq!(leased.len(), 3);
    let begun = leased.iter().find(|job| job.payload == "three").unwrap();
    assert_eq!((begun.ambiguous, begun.rendered.as_deref()), (true, Some(&b"sent"[..])));
    let told = inbox.outbox_read(6, 9, 99).await.unwrap();
    assert_eq!(told, [(7, Bytes::from("told")), (8, Bytes::from("told too"))]);
    assert_eq!(inbox.stats().await.unwrap().outbox, 2);
    let bulk = inbox.waiting(Lane::Bulk, 0).await.unwrap().waiting;
    let due = inbox.lease(vec![Grant::any(bulk[0].id, 0, 1)]).await.unwrap();
    assert_eq!((due[0].attempt, due[0].payload.as_ref()), (1, &b"two"[..]));
    assert_eq!(inbox.stats().await.unwrap().realtime.dead, 1);
    inbox.close().await;
    // The same as a new file, whatever way it came.
    let shape = async |place: &Place| {
        let sql = "SELECT name, sql FROM sqlite_schema ORDER BY name";
        let rows: Vec<(String, Option<String>)> = sqlx::query_as(sql).fetch_all(&mut place.sql().await).await.unwrap();
        rows
    };
    let fresh = Place::new();
    fresh.open().await.close().await;
    assert_eq!(shape(&place).await, shape(&fresh).await);
    assert_eq!(place.count("SELECT user_version FROM pragma_user_version").await, SCHEMA_VERSION);
    assert_eq!(usize::try_from(SCHEMA_VERSION).unwrap(), SCHEMA.len());
}

#[tokio::test]
async fn settings_that_cannot_be_kept_are_refused() {
    let place = Place::new();
    for settings in [
        EmbeddedSettings { max_jobs: 0, ..place.settings() },
        EmbeddedSettings { max_file_bytes: 4_096, ..place.settings() },
        EmbeddedSettings { max_file_bytes: u64::MAX, ..place.settings() },
        EmbeddedSettings { lease: Duration::ZERO, ..place.settings() },
        EmbeddedSettings { dead_retention: Duration::MAX, ..place.settings() },
    ] {
        assert!(matches!(place.refused(settings).await, OpenError::Setting(..)));
    }
    let nowhere = EmbeddedSettings::new(place.dir.path().join("missing/inbox.db"));
    assert!(matches!(place.refused(nowhere).await, OpenError::File { .. }));
}

#[tokio::test]
async fn every_commit_is_flushed() {
    let place = Place::new();
    let inbox = place.open().await;
    let mut conn = connect(&place.settings()).await.unwrap();
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut conn).await.unwrap();
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut conn).await.unwrap();
    assert_eq!((synchronous, journal.as_str()), (2, "wal"));
    inbox.close().await;
}

#[tokio::test]
async fn a_full_disk_refuses_without_failing_and_work_goes_on() {
    let place = Place::new();
    let settings = EmbeddedSettings { max_file_bytes: 400 << 10, ..place.settings() };
    let inbox = place.open_with(settings).await;
    let mut kept = 0;
    while inbox.accept(keyed(kept, DAY, 8_000)).await.is_ok() {
        kept += 1;
        assert!(kept < 100, "the limit is reached");
    }
    let refused = keyed(kept, DAY, 8_000);
    assert_eq!(inbox.accept(refused.clone()).await, Err(Unavailable));
    let stats = inbox.stats().await.unwrap();
    assert_eq!((stats.realtime.ready, place.count(KEYS).await), (kept, kept as i64));

    // Leasing and finishing go on, also in one group with what is refused.
    let jobs = lease(&inbox, 2).await.unwrap();
    let finish =
        |at: usize| inbox.finish(jobs[at].id, jobs[at].fence, Finish::Done { report: Bytes::from(vec![0; 9]).into() });
    let large = || keyed(999, DAY, 100_000);
    let mut other = place.sql().await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let mut before = Box::pin(finish(1));
    assert!((&mut before).now_or_never().is_none());
    taken(&inbox).await;
    let mut group = Box::pin(async { tokio::join!(inbox.accept(large()), finish(0), inbox.accept(large())) });
    assert!((&mut group).now_or_never().is_none());
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!((before.await, group.await), (Ok(()), (Err(Unavailable), Ok(()), Err(Unavailable))));
    assert_eq!(inbox.accept(refused).await, Ok(Accepted::Accepted), "room was made, and nothing had been claimed");
    assert!(inbox.failed().now_or_never().is_none());
    assert_eq!(inbox.outbox_read(0, 9, 99).await.unwrap().len(), 2);
    let (ready, file) = (inbox.stats().await.unwrap().realtime.ready, place.count("SELECT count(*) FROM job").await);
    assert_eq!(ready as i64, file, "what was rolled back is not counted");
}

/// The committer has taken all that was asked.
async fn taken(inbox: &Inbox) {
    let Inbox::Embedded(embedded) = inbox else { panic!("this one is") };
    while embedded.0.commands.capacity() < COMMANDS {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_lease_dropped_during_its_transaction_is_given_again() {
    let place = Place::new();
    let inbox = place.open().await;
    inbox.accept(keyed(1, DAY, 10)).await.unwrap();
    // A first lease needs no transaction.
    let mut job = lease(&inbox, 1).await.unwrap().remove(0);
    let mut other = place.sql().await;
    let during = async {
        loop {
            inbox.postpone(job.id, job.fence, 0).await.unwrap();
            sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
            let flow = inbox.waiting(Lane::Realtime, 0).await.unwrap().waiting[0].id;
            let mut lost = Box::pin(inbox.lease(vec![Grant::any(flow, 1, 0)]));
            assert!((&mut lost).now_or_never().is_none());
            taken(&inbox).await;
            drop(lost);
            sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
            // Behind the abandoned one.
            assert_eq!(inbox.accept(keyed(1, DAY, 10)).await, Ok(Accepted::Duplicate));
            let again = lease(&inbox, 1).await.unwrap();
            assert_eq!(again.len(), 1);
            let leases = again[0].fence.epoch - job.fence.epoch;
            job = again.into_iter().next().unwrap();
            // Otherwise it was noticed before its transaction.
            if leases == 2 {
                return;
            }
            assert_eq!(leases, 1);
        }
    };
    tokio::time::timeout(PATIENCE, during).await.unwrap();
}

#[tokio::test]
async fn any_other_error_of_the_file_ends_the_inbox() {
    let place = Place::new();
    let inbox = place.open().await;
    inbox.accept(keyed(1, DAY, 10)).await.unwrap();
    sqlx::raw_sql("ALTER TABLE job RENAME TO gone").execute(&mut place.sql().await).await.unwrap();
    let group = join_all((2..9).map(|n| inbox.accept(keyed(n, DAY, 10)))).await;
    assert!(group.iter().all(|answer| *answer == Err(Unavailable)), "{group:?}");
    let reason = tokio::time::timeout(PATIENCE, inbox.failed()).await.unwrap();
    assert!(reason.contains("no such table: job"), "{reason}");
    assert_eq!(inbox.accept(keyed(1, DAY, 10)).await, Err(Unavailable));
    assert_eq!(lease(&inbox, 1).await, Err(Unavailable));
    assert_eq!(inbox.waiting(Lane::Bulk, 0).await, Err(Unavailable));
    assert_eq!(place.count("SELECT count(*) FROM gone").await, 1, "the group was rolled back");
    assert_eq!(place.count(KEYS).await, 1);
}

#[tokio::test]
async fn expired_keys_are_swept_in_batches() {
    const MOVED: &str = "SELECT count(*) FROM dedup";
    let place = Place::new();
    let inbox = place.open().await;
    let minute = Duration::from_secs(60);
    assert!(join_all((0..1_300).map(|n| inbox.accept(keyed(n, minute, 1)))).await.iter().all(Result::is_ok));
    inbox.accept(keyed(5_000, DAY, 1)).await.unwrap();
    place.clock.advance(59_000);
    inbox.lease(Vec::new()).await.unwrap();
    let moved = place.count(MOVED).await;
    assert!((900..1_301).contains(&moved), "before their time none is swept: {moved}");
    // Looked for by spans of four minutes and a little more.
    place.clock.advance(1_000 + (1 << 18));
    inbox.lease(Vec::new()).await.unwrap();
    let left = place.count(MOVED).await;
    assert!((1..moved).contains(&left), "{left}");
    // The rest follows without anybody asking.
    tokio::time::timeout(PATIENCE, async {
        while place.count(MOVED).await > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(inbox.accept(keyed(5_000, DAY, 1)).await, Ok(Accepted::Duplicate));
    assert_eq!(inbox.accept(keyed(7, DAY, 1)).await, Ok(Accepted::Accepted), "its time is over");
}

/// Also those that have their place already, and those that wait for it when the process ends.
#[tokio::test]
async fn a_key_is_known_wherever_it_is() {
    let place = Place::new();
    let mut inbox = place.open().await;
    for restart in 0..3 {
        let (from, to) = (restart * 1_000, (restart + 1) * 1_000);
        let taken = join_all((from..to).map(|n| inbox.accept(keyed(n, DAY, 1)))).await;
        assert!(taken.iter().all(|answer| *answer == Ok(Accepted::Accepted)));
        inbox.close().await;
        inbox = place.open().await;
        let again = join_all((0..to).map(|n| inbox.accept(keyed(n, DAY, 1)))).await;
        assert!(again.iter().all(|answer| *answer == Ok(Accepted::Duplicate)));
    }
    assert!(place.count("SELECT count(*) FROM dedup").await > 2_800);
    assert!(place.count("SELECT sum(length(keys)) / 56 FROM claim").await < 3_000, "of 9,000 written");
}

/// Keys are expected to be new, and a group in which one is not begins anew.
#[tokio::test]
async fn a_key_that_has_its_place_changes_nothing_for_those_beside_it() {
    let place = Place::new();
    let inbox = place.open().await;
    assert!(join_all((0..500).map(|n| inbox.accept(keyed(n, DAY, 1)))).await.iter().all(Result::is_ok));
    let key: Vec<u8> =
        sqlx::query_scalar("SELECT k FROM dedup LIMIT 1").fetch_one(&mut place.sql().await).await.unwrap();
    let moved = u64::from_le_bytes(key[..8].try_into().unwrap());
    let job = lease(&inbox, 1).await.unwrap().remove(0);
    inbox.begin(job.id, job.fence, Bytes::from_static(b"x")).await.unwrap();
    // All that is asked meanwhile is one group.
    let mut other = place.sql().await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let mut before = Box::pin(inbox.accept(keyed(1_000, DAY, 1)));
    assert!((&mut before).now_or_never().is_none());
    taken(&inbox).await;
    let accepts = [1_001, moved, 1_002].map(|n| inbox.accept(keyed(n, DAY, 1)));
    let end = inbox.finish(job.id, job.fence, Finish::Done { report: Bytes::new().into() });
    let mut group = Box::pin(async { tokio::join!(join_all(accepts), end) });
    assert!((&mut group).now_or_never().is_none());
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(before.await, Ok(Accepted::Accepted));
    let (answers, end) = group.await;
    assert_eq!(answers, [Ok(Accepted::Accepted), Ok(Accepted::Duplicate), Ok(Accepted::Accepted)]);
    assert_eq!(end, Ok(()));
    let stats = inbox.stats().await.unwrap();
    assert_eq!((stats.realtime.ready, stats.realtime.leased, stats.outbox), (502, 0, 1));
    assert_eq!(place.count("SELECT count(*) FROM job").await, 502);
    assert_eq!(place.count("SELECT count(*) FROM outbox").await, 1);
    assert_eq!(inbox.accept(keyed(1_002, DAY, 1)).await, Ok(Accepted::Duplicate));
}

#[tokio::test]
async fn memory_and_file_agree() {
    let place = Place::new();
    let inbox = place.open().await;
    join_all((0..40).map(|n| inbox.accept(keyed(n, DAY, 10)))).await;
    let mut begun = Vec::new();
    for (n, job) in lease(&inbox, 30).await.unwrap().into_iter().enumerate() {
        let due = START + 1_000 * (n as i64 - 3);
        let report = Bytes::from_static(b"r");
        match n % 5 {
            0 => {
                let finish = Finish::Retry { due, rendered: report.clone(), report: report.into() };
                inbox.finish(job.id, job.fence, finish).await.unwrap();
            }
            1 => {
                let finish =
                    Finish::Dead { reason: String::new(), rendered: Some(report.clone()), report: report.into() };
                inbox.finish(job.id, job.fence, finish).await.unwrap();
            }
            2 => inbox.finish(job.id, job.fence, Finish::Done { report: report.into() }).await.unwrap(),
            3 => inbox.postpone(job.id, job.fence, due).await.unwrap(),
            _ => {
                inbox.begin(job.id, job.fence, report).await.unwrap();
                begun.push(job);
            }
        }
    }
    place.clock.advance(8_000);
    let leased = lease(&inbox, 3).await.unwrap();
    let rows: Vec<SqliteRow> = sqlx::query("SELECT state, count(*) FROM job GROUP BY state ORDER BY state")
        .fetch_all(&mut place.sql().await)
        .await
        .unwrap();
    let file: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let stats = inbox.stats().await.unwrap();
    let lane = stats.realtime;
    let memory = [(0, lane.ready + lane.leased), (2, lane.delayed), (3, lane.dead)];
    assert_eq!(memory.map(|(state, count)| (state, count as i64)).as_slice(), file);
    assert_eq!(place.count("SELECT sum(reports) FROM outbox").await, stats.outbox as i64);
    let orphans = "SELECT count(*) FROM rendered WHERE job NOT IN (SELECT seq FROM job)";
    assert_eq!(place.count(orphans).await, 0, "what is done leaves nothing behind");
    assert!(place.count("SELECT count(*) FROM work").await > 0);
    for job in begun.into_iter().chain(leased) {
        inbox.finish(job.id, job.fence, Finish::Done { report: Bytes::new().into() }).await.unwrap();
    }
    assert_eq!(place.count("SELECT count(*) FROM work").await, 0, "nothing is worked on");
}

#[tokio::test]
async fn the_file_itself_refuses_a_job_in_two_states() {
    let place = Place::new();
    let inbox = place.open().await;
    inbox.accept(keyed(1, DAY, 10)).await.unwrap();
    for wrong in [
        "UPDATE job SET state = 4",
        "UPDATE job SET state = 1",
        "UPDATE job SET reason = 'dead?'",
        "UPDATE job SET state = 3",
        "UPDATE job SET attempts = 1",
    ] {
        let result = sqlx::raw_sql(wrong).execute(&mut place.sql().await).await;
        assert!(result.is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn an_idle_inbox_writes_nothing() {
    let place = Place::new();
    let inbox = place.open().await;
    inbox.accept(keyed(1, DAY, 10)).await.unwrap();
    let log = || std::fs::metadata(format!("{}-wal", place.path().display())).unwrap().len();
    let before = log();
    for _ in 0..50 {
        assert!(inbox.lease(Vec::new()).await.unwrap().is_empty());
        inbox.stats().await.unwrap();
    }
    assert_eq!(log(), before);
}

/// The faults do what they are for: a copy of the files made in their window shows the broken promise.
#[cfg(feature = "fault-injection")]
mod faults {
    use super::*;
    use crate::inbox::Fault;

    /// What a crash would have left when `jobs` and `keys` first differ from both empty.
    async fn first_sight(place: &Place) -> (i64, i64) {
        loop {
            let row = sqlx::query(
                "SELECT (SELECT count(*) FROM dedup) + (SELECT count(*) FROM claim), (SELECT count(*) FROM job)",
            )
            .fetch_one(&mut place.sql().await)
            .await
            .unwrap();
            if row.get::<i64, _>(0) > 0 {
                return (row.get(0), row.get(1));
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn key_before_jobs_shows_a_key_without_its_jobs() {
        for (fault, seen) in [(None, (1, 1)), (Some(Fault::KeyBeforeJobs), (1, 0))] {
            let place = Place::new();
            let inbox = place.open_with(EmbeddedSettings { fault, ..place.settings() }).await;
            let (accepted, first) = tokio::join!(inbox.accept(keyed(1, DAY, 10)), first_sight(&place));
            assert_eq!((accepted, first), (Ok(Accepted::Accepted), seen), "{fault:?}");
        }
    }

    #[tokio::test]
    async fn answer_before_commit_answers_for_nothing() {
        for (fault, kept) in [(None, 1), (Some(Fault::AnswerBeforeCommit), 0)] {
            let place = Place::new();
            let inbox = place.open_with(EmbeddedSettings { fault, ..place.settings() }).await;
            assert_eq!(inbox.accept(keyed(1, DAY, 10)).await, Ok(Accepted::Accepted));
            assert_eq!(place.count("SELECT count(*) FROM job").await, kept, "{fault:?}");
        }
    }
}
