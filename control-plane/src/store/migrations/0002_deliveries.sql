-- Deliveries can be found by what an operator knows of them, and change until they end. `sequence` is given once,
-- `change_sequence` with every change; both come from the counter in store_meta. Of two reports of one delivery the one with
-- the greater `report_order` counts. `status` is the last attempt's, 0 without a response.
ALTER TABLE delivery ADD COLUMN change_sequence BIGINT NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN report_order BIGINT NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN workflow TEXT NOT NULL DEFAULT '';
ALTER TABLE delivery ADD COLUMN step TEXT NOT NULL DEFAULT '';
ALTER TABLE delivery ADD COLUMN incoming TEXT NOT NULL DEFAULT '';
ALTER TABLE delivery ADD COLUMN trigger_id TEXT NOT NULL DEFAULT '';
ALTER TABLE delivery ADD COLUMN reason BIGINT NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN status BIGINT NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN accept_time BIGINT NOT NULL DEFAULT 0;
UPDATE delivery SET change_sequence = sequence, accept_time = store_time;

DROP INDEX delivery_by_workspace;
CREATE INDEX delivery_by_accept ON delivery (workspace, accept_time, sequence);
CREATE INDEX delivery_by_change ON delivery (workspace, change_sequence);
CREATE INDEX delivery_by_workflow ON delivery (workspace, workflow, accept_time, sequence);
CREATE INDEX delivery_by_incoming ON delivery (workspace, incoming, accept_time, sequence);
CREATE INDEX delivery_by_trigger ON delivery (workspace, trigger_id, accept_time, sequence);
-- What was delivered is most of the table and has no reason; it is found by time.
CREATE INDEX delivery_by_state ON delivery (workspace, state, accept_time, sequence) WHERE state <> 1;
CREATE INDEX delivery_by_reason ON delivery (workspace, reason, accept_time, sequence) WHERE reason <> 0;

-- What was sent and answered at each attempt, sealed with the workspace's data key: an encoded Delivery with nothing but the
-- request (with the first one) and the attempt.
CREATE TABLE exchange (
    delivery            TEXT   NOT NULL REFERENCES delivery (name) ON DELETE CASCADE,
    attempt             BIGINT NOT NULL,
    sealed              BLOB   NOT NULL,
    PRIMARY KEY (delivery, attempt)
);

-- Accepted triggers: an encoded sluice.admin.v1.IncomingRequest, and the envelope, sealed with the workspace's data key.
-- `store_time` moves with every change of one of its deliveries.
CREATE TABLE incoming_request (
    sequence            BIGINT PRIMARY KEY,
    workspace           TEXT   NOT NULL REFERENCES workspace (id) ON DELETE CASCADE,
    name                TEXT   NOT NULL UNIQUE,
    incoming            TEXT   NOT NULL,
    accept_time         BIGINT NOT NULL,
    store_time          BIGINT NOT NULL,
    body                BLOB   NOT NULL,
    envelope            BLOB   NOT NULL
);
CREATE INDEX incoming_request_by_accept ON incoming_request (workspace, accept_time, sequence);
CREATE INDEX incoming_request_by_incoming ON incoming_request (workspace, incoming, accept_time, sequence);
CREATE INDEX incoming_request_by_time ON incoming_request (store_time);
