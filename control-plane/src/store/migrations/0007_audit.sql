-- The audit log. `place` is the uid of a workspace, or empty for the server's own log; logs outlive their workspace. `body` is an
-- encoded sluice.admin.v1.AuditEntry; `hash` chains it to the entry before.
CREATE TABLE audit_entry (
    place               TEXT   NOT NULL,
    number              BIGINT NOT NULL,
    time                BIGINT NOT NULL,
    principal           TEXT   NOT NULL,
    method              TEXT   NOT NULL,
    resource            TEXT   NOT NULL,
    outcome             BIGINT NOT NULL,
    body                BLOB   NOT NULL,
    hash                BLOB   NOT NULL,
    PRIMARY KEY (place, number)
);
