-- The embedded inbox, version 1. One writer; every change of a job is one row of `job`, kept small so that leasing
-- and finishing touch few pages. What is large and written once lies beside it, under the same number.

CREATE TABLE job (
    seq       INTEGER PRIMARY KEY,          -- order of acceptance
    id        BLOB    NOT NULL CHECK (length(id) = 16),
    lane      INTEGER NOT NULL CHECK (lane IN (0, 1)),                    -- realtime, bulk
    state     INTEGER NOT NULL CHECK (state IN (0, 1, 2, 3)),             -- ready, leased, delayed, dead
    retry     INTEGER NOT NULL CHECK (retry IN (0, 1)),                   -- 1: an attempt was finished
    at        INTEGER NOT NULL,             -- ready since, leased at, due at, died at; milliseconds
    accepted  INTEGER NOT NULL,             -- milliseconds
    attempts  INTEGER NOT NULL DEFAULT 0,   -- finished
    leases    INTEGER NOT NULL DEFAULT 0,   -- in a row, ended without a word
    epoch     INTEGER NOT NULL DEFAULT 0,   -- the fence: counts leases
    begun     INTEGER NOT NULL DEFAULT 0 CHECK (begun IN (0, 1)),         -- under the present lease
    ambiguous INTEGER NOT NULL DEFAULT 0 CHECK (ambiguous IN (0, 1)),     -- begun under an earlier lease, never finished
    reason    TEXT,
    CHECK (begun = 0 OR state = 1),
    CHECK ((reason IS NOT NULL) = (state = 3)),
    CHECK (retry = (attempts > 0))
);
CREATE INDEX job_queue ON job (lane, state, retry, at);

CREATE TABLE payload (job INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE rendered (job INTEGER PRIMARY KEY, bytes BLOB NOT NULL);

CREATE TABLE dedup (
    k       BLOB    NOT NULL PRIMARY KEY CHECK (length(k) = 32),
    request BLOB    NOT NULL CHECK (length(request) = 16),                -- which request took it
    exp     INTEGER NOT NULL                -- known while now < exp; milliseconds
) WITHOUT ROWID;
CREATE INDEX dedup_exp ON dedup (exp);

-- AUTOINCREMENT: a number that was trimmed is never given again.
CREATE TABLE outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, report BLOB NOT NULL);
