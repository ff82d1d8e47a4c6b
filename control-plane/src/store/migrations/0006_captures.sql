-- The last capture of each incoming integration. `opening` is an encoded sluice.sync.v1.OpenCapture as it was when it began; `sample`
-- is the envelope of what came, sealed, and empty until then.
CREATE TABLE capture (
    integration         TEXT   PRIMARY KEY REFERENCES document (name) ON DELETE CASCADE,
    workspace           TEXT   NOT NULL,
    uid                 TEXT   NOT NULL UNIQUE,
    start_time          BIGINT NOT NULL,
    expire_time         BIGINT NOT NULL,
    opening             BLOB   NOT NULL,
    data_plane          TEXT   NOT NULL,
    sample              BLOB   NOT NULL
);
CREATE INDEX capture_by_time ON capture (start_time);
