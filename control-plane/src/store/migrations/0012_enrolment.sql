-- The certificate authority of this installation: one row. Its key is sealed by the server's own data key.
CREATE TABLE authority (
    id                  BIGINT PRIMARY KEY,
    certificate         BLOB   NOT NULL,
    sealed_key          BLOB   NOT NULL
);

-- Join tokens: only a hash of their secret. `workspaces` is a list of ids separated by spaces, or `-` for all. `use_time` is 0 until a
-- data plane came with it: `data_plane`, with the key whose SHA-256 is `key_hash`.
CREATE TABLE join_token (
    id                  TEXT   PRIMARY KEY,
    uid                 TEXT   NOT NULL UNIQUE,
    hash                BLOB   NOT NULL,
    workspaces          TEXT   NOT NULL,
    create_time         BIGINT NOT NULL,
    expire_time         BIGINT NOT NULL,
    use_time            BIGINT NOT NULL,
    data_plane          TEXT   NOT NULL,
    key_hash            BLOB   NOT NULL
);

-- Data planes that have joined and were not deleted. `enrolment` is what the serial numbers of their certificates begin with;
-- `expire_time` is of the last one.
CREATE TABLE enrolled (
    id                  TEXT   PRIMARY KEY,
    enrolment           BLOB   NOT NULL,
    workspaces          TEXT   NOT NULL,
    enroll_time         BIGINT NOT NULL,
    renew_time          BIGINT NOT NULL,
    expire_time         BIGINT NOT NULL
);
