-- Where an audit log begins when its oldest entries were let go: number and hash of the last of those. `seal` is keyed over all of it:
-- whoever can write into the database but cannot open the server's key can neither make one nor move it unseen.
CREATE TABLE audit_anchor (
    place               TEXT   PRIMARY KEY,
    number              BIGINT NOT NULL,
    hash                BLOB   NOT NULL,
    seal                BLOB   NOT NULL
);
