-- Work that goes on after its call was answered. `position_time` and `position_sequence` say how far it came, `until_sequence`
-- where it ends; `data_plane` is the one that may have done the step after the position. `filter` and `plan` are encoded.
CREATE TABLE operation (
    sequence            BIGINT PRIMARY KEY,
    workspace           TEXT   NOT NULL REFERENCES workspace (id) ON DELETE CASCADE,
    name                TEXT   NOT NULL UNIQUE,
    state               BIGINT NOT NULL,
    message             TEXT   NOT NULL,
    filter              BLOB   NOT NULL,
    plan                BLOB   NOT NULL,
    done                BIGINT NOT NULL,
    failed              BIGINT NOT NULL,
    position_time       BIGINT NOT NULL,
    position_sequence   BIGINT NOT NULL,
    until_sequence      BIGINT NOT NULL,
    data_plane          TEXT   NOT NULL,
    create_time         BIGINT NOT NULL,
    update_time         BIGINT NOT NULL,
    end_time            BIGINT NOT NULL
);
CREATE INDEX operation_by_workspace ON operation (workspace, sequence);
CREATE INDEX operation_by_state ON operation (state, sequence);
CREATE INDEX operation_by_end ON operation (end_time) WHERE end_time > 0;

-- Deliveries that a replay made.
ALTER TABLE delivery ADD COLUMN operation TEXT NOT NULL DEFAULT '';
CREATE INDEX delivery_by_operation ON delivery (workspace, operation, accept_time, sequence) WHERE operation <> '';
