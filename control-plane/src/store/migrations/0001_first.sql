-- Times are milliseconds since 1970-01-01 UTC.

-- One row. `epoch` names this store: revisions only grow within one epoch. `server_key` is wrapped by a master key and seals
-- `hash_key`, which signs page tokens and keys the hashes of remembered requests.
CREATE TABLE store_meta (
    id                  BIGINT PRIMARY KEY CHECK (id = 1),
    epoch               TEXT   NOT NULL,
    business_profile_id BIGINT NOT NULL,
    outcome_sequence    BIGINT NOT NULL,
    server_key_id       TEXT,
    server_key          BLOB,
    hash_key            BLOB
);

-- The row every change of a workspace takes first, so that its revisions are ordered as they were committed.
CREATE TABLE workspace (
    id                  TEXT   PRIMARY KEY,
    uid                 TEXT   NOT NULL UNIQUE,
    display_name        TEXT   NOT NULL,
    business_profile_id BIGINT NOT NULL UNIQUE,
    revision            BIGINT NOT NULL,
    digest              BLOB   NOT NULL,
    key_id              TEXT   NOT NULL,
    wrapped_key         BLOB   NOT NULL,
    saves               BIGINT NOT NULL,
    create_time         BIGINT NOT NULL,
    update_time         BIGINT NOT NULL
);

-- Deleted workspaces, for data planes that come back later. A workspace made again under the id goes on from `revision`.
CREATE TABLE tombstone (
    workspace           TEXT   PRIMARY KEY,
    revision            BIGINT NOT NULL,
    delete_time         BIGINT NOT NULL
);

-- Drafts: an encoded sluice.sync.v1.Resource without version, secrets sealed. `saves` counts every change and makes the etag.
CREATE TABLE document (
    name                TEXT   PRIMARY KEY,
    workspace           TEXT   NOT NULL REFERENCES workspace (id),
    collection          TEXT   NOT NULL,
    uid                 TEXT   NOT NULL UNIQUE,
    saves               BIGINT NOT NULL,
    draft               BLOB   NOT NULL,
    draft_hash          BLOB   NOT NULL,
    last_version        BIGINT NOT NULL,
    published_version   BIGINT NOT NULL,
    published_hash      BLOB   NOT NULL,
    create_time         BIGINT NOT NULL,
    update_time         BIGINT NOT NULL
);
CREATE INDEX document_by_workspace ON document (workspace, collection, name);

-- Published versions; never changed.
CREATE TABLE version (
    document            TEXT   NOT NULL REFERENCES document (name) ON DELETE CASCADE,
    version             BIGINT NOT NULL,
    resource            BLOB   NOT NULL,
    create_time         BIGINT NOT NULL,
    PRIMARY KEY (document, version)
);

-- What is in force: the encoded sluice.sync.v1.Resource as data planes get it, and its hash.
CREATE TABLE head (
    name                TEXT   PRIMARY KEY,
    workspace           TEXT   NOT NULL REFERENCES workspace (id),
    resource            BLOB   NOT NULL,
    content_hash        BLOB   NOT NULL
);
CREATE INDEX head_by_workspace ON head (workspace, name);

-- The latest changes of each workspace: an encoded sluice.sync.v1.WorkspaceBody, the same bytes for every data plane.
CREATE TABLE revision (
    workspace           TEXT   NOT NULL REFERENCES workspace (id) ON DELETE CASCADE,
    revision            BIGINT NOT NULL,
    digest              BLOB   NOT NULL,
    body                BLOB   NOT NULL,
    commit_time         BIGINT NOT NULL,
    PRIMARY KEY (workspace, revision)
);

-- Who uses what: by its draft (0) or by its version in force (1).
CREATE TABLE reference (
    source              TEXT   NOT NULL REFERENCES document (name) ON DELETE CASCADE,
    target              TEXT   NOT NULL,
    published           BIGINT NOT NULL,
    PRIMARY KEY (source, target, published)
);
CREATE INDEX reference_by_target ON reference (target);

-- Answers to requests that carried a request_id.
CREATE TABLE request (
    api_key             TEXT   NOT NULL,
    id                  TEXT   NOT NULL,
    hash                BLOB   NOT NULL,
    answer              BLOB   NOT NULL,
    create_time         BIGINT NOT NULL,
    PRIMARY KEY (api_key, id)
);
CREATE INDEX request_by_time ON request (create_time);

-- API keys by their public part. `permissions` is a space-separated list of patterns.
CREATE TABLE api_key (
    id                  TEXT   PRIMARY KEY,
    role                TEXT   NOT NULL,
    hash                BLOB   NOT NULL,
    permissions         TEXT   NOT NULL,
    create_time         BIGINT NOT NULL,
    revoke_time         BIGINT
);

-- Outcomes as data planes reported them. Sequences are given under the lock of the store_meta row: a reader that has seen
-- one has seen all before it.
CREATE TABLE delivery (
    sequence            BIGINT PRIMARY KEY,
    workspace           TEXT   NOT NULL REFERENCES workspace (id) ON DELETE CASCADE,
    name                TEXT   NOT NULL UNIQUE,
    state               BIGINT NOT NULL,
    body                BLOB   NOT NULL,
    store_time          BIGINT NOT NULL
);
CREATE INDEX delivery_by_workspace ON delivery (workspace, sequence);
CREATE INDEX delivery_by_time ON delivery (store_time);

CREATE TABLE event (
    sequence            BIGINT PRIMARY KEY,
    workspace           TEXT   NOT NULL REFERENCES workspace (id) ON DELETE CASCADE,
    name                TEXT   NOT NULL UNIQUE,
    action              TEXT   NOT NULL,
    body                BLOB   NOT NULL,
    store_time          BIGINT NOT NULL
);
CREATE INDEX event_by_workspace ON event (workspace, sequence);
CREATE INDEX event_by_time ON event (store_time);
