-- Version 3: a job that is taken, begun and finished is written once and removed once. Who works on what is kept beside the
-- jobs, one row for each step of the committer; it counts only while the epoch of the job is behind it.

DROP INDEX job_ready;
DROP INDEX job_due;
DROP INDEX job_dead;
DROP INDEX IF EXISTS job_find;
ALTER TABLE job RENAME TO job_2;

CREATE TABLE job (
    seq       INTEGER PRIMARY KEY,          -- order of acceptance
    id        BLOB    NOT NULL CHECK (length(id) = 16),
    lane      INTEGER NOT NULL CHECK (lane IN (0, 1)),                    -- realtime, bulk
    flow      INTEGER NOT NULL,
    state     INTEGER NOT NULL CHECK (state IN (0, 2, 3)),                -- ready or worked on, delayed, dead
    retry     INTEGER NOT NULL CHECK (retry IN (0, 1)),                   -- 1: an attempt was finished
    at        INTEGER NOT NULL,             -- ready since, due at, died at; milliseconds
    accepted  INTEGER NOT NULL,             -- milliseconds
    attempts  INTEGER NOT NULL DEFAULT 0,   -- finished
    leases    INTEGER NOT NULL DEFAULT 0,   -- in a row, ended without a word
    epoch     INTEGER NOT NULL DEFAULT 0,   -- the fence: counts leases that have ended
    ambiguous INTEGER NOT NULL DEFAULT 0 CHECK (ambiguous IN (0, 1)),     -- begun under an earlier lease, never finished
    reason    TEXT,
    payload   BLOB    NOT NULL,             -- last: who looks for jobs does not read it
    CHECK ((reason IS NOT NULL) = (state = 3)),
    CHECK (retry = (attempts > 0))
);
INSERT INTO job
    SELECT seq, id, lane, flow, iif(state = 1, 0, state), retry, at, accepted, attempts, leases, epoch,
        ambiguous OR begun, reason, p.bytes
    FROM job_2 JOIN payload AS p ON p.job = seq;
DROP TABLE job_2;
DROP TABLE payload;
-- What is ready is known in memory, in its order.
CREATE INDEX job_due ON job (lane, at) WHERE state = 2;
CREATE INDEX job_dead ON job (at) WHERE state = 3;

-- `leased`: pairs of a job's number and the epoch of its lease. `begun`: the same, each with the bytes of the attempt.
CREATE TABLE work (step INTEGER PRIMARY KEY, leased BLOB NOT NULL, begun BLOB NOT NULL);

-- The reports of one step share a row: `reports` of them, the last with this number. One alone is kept as it is.
ALTER TABLE outbox RENAME COLUMN seq TO last;
ALTER TABLE outbox RENAME COLUMN report TO bytes;
ALTER TABLE outbox ADD COLUMN reports INTEGER NOT NULL DEFAULT 1;
