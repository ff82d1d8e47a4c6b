-- Version 2: jobs belong to flows, so that turns, limits and holds are decided for a whole queue and never job by job.
-- Each index holds only the state it is for: a job that is worked on is in none.

CREATE TABLE flow (
    id          INTEGER PRIMARY KEY,
    lane        INTEGER NOT NULL CHECK (lane IN (0, 1)),
    workspace   TEXT    NOT NULL,
    destination TEXT    NOT NULL,
    owner       TEXT    NOT NULL,
    UNIQUE (lane, workspace, destination, owner)
);
-- Jobs accepted before there were flows. Removed at the next start without such jobs.
INSERT INTO flow VALUES (0, 0, '', '', ''), (1, 1, '', '', '');

ALTER TABLE job ADD COLUMN flow INTEGER NOT NULL DEFAULT 0;
UPDATE job SET flow = 1 WHERE lane = 1;

DROP INDEX job_queue;
CREATE INDEX job_ready ON job (flow, retry, at) WHERE state = 0;
CREATE INDEX job_due ON job (lane, at) WHERE state = 2;
CREATE INDEX job_dead ON job (at) WHERE state = 3;
