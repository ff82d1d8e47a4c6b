-- Who may do what: API keys, roles and service accounts, each an encoded message of sluice.admin.v1. `workspace` is NULL for those of
-- the server.
CREATE TABLE principal (
    name                TEXT   PRIMARY KEY,
    workspace           TEXT   REFERENCES workspace (id) ON DELETE CASCADE,
    collection          TEXT   NOT NULL,
    uid                 TEXT   NOT NULL UNIQUE,
    saves               BIGINT NOT NULL,
    body                BLOB   NOT NULL,
    create_time         BIGINT NOT NULL,
    update_time         BIGINT NOT NULL
);
CREATE INDEX principal_by_workspace ON principal (workspace, collection, name);

-- API keys by their public part, as calls are checked with. `role` is filled for the two keys that are kept in files. `permissions`
-- is a list separated by spaces: permissions, and `@role` for built-in roles, whose permissions are the program's. `networks` is a
-- list separated by spaces. A time of 0 is none.
DROP TABLE api_key;
CREATE TABLE api_key (
    id                  TEXT   PRIMARY KEY,
    workspace           TEXT   REFERENCES workspace (id) ON DELETE CASCADE,
    role                TEXT   NOT NULL,
    account             TEXT   NOT NULL,
    hash                BLOB   NOT NULL,
    permissions         TEXT   NOT NULL,
    networks            TEXT   NOT NULL,
    expire_time         BIGINT NOT NULL,
    last_use_time       BIGINT NOT NULL,
    create_time         BIGINT NOT NULL,
    revoke_time         BIGINT NOT NULL
);
CREATE INDEX api_key_by_workspace ON api_key (workspace, id);
