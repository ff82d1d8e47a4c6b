-- Control planes that work on this database at once. What they tell each other is of the moment: nothing of it survives a crash of the
-- server, after which each tells it again, so it costs no journal.
CREATE UNLOGGED TABLE replica (
    id                  TEXT   PRIMARY KEY,
    seen                TIMESTAMPTZ NOT NULL
);

-- Each replica's data planes: an encoded part of what it knows of one. `session` says which stream of the data plane it is of; the
-- greater one is the later one. Each replica counts its changes by itself and writes one transaction after the other, so whoever has
-- seen one of its changes has seen all before it.
CREATE UNLOGGED TABLE data_plane_part (
    replica             TEXT   NOT NULL REFERENCES replica (id) ON DELETE CASCADE,
    data_plane          TEXT   NOT NULL,
    part                TEXT   NOT NULL,
    session             BIGINT NOT NULL,
    change              BIGINT NOT NULL,
    body                BLOB   NOT NULL,
    PRIMARY KEY (replica, data_plane, part)
);
CREATE INDEX data_plane_part_by_change ON data_plane_part (replica, change);

-- Commands for data planes of another replica, and what came of them, sealed by the server's key. An answer names no data plane.
CREATE UNLOGGED TABLE letter (
    sequence            BIGSERIAL PRIMARY KEY,
    receiver            TEXT   NOT NULL,
    sender              TEXT   NOT NULL,
    number              BIGINT NOT NULL,
    data_plane          TEXT   NOT NULL,
    session             BIGINT NOT NULL,
    body                BLOB   NOT NULL,
    sent                TIMESTAMPTZ NOT NULL
);
CREATE INDEX letter_by_receiver ON letter (receiver, sequence);

-- Streams of data planes, in the order in which they began.
CREATE SEQUENCE session_number;
