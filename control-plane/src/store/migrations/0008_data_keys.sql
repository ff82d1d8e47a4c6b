-- The data key that a workspace had before, until nothing is sealed with it any more.
ALTER TABLE workspace ADD COLUMN old_key_id TEXT;
ALTER TABLE workspace ADD COLUMN old_wrapped_key BLOB;

-- What an operation does: 0 replays deliveries, 1 rotates a data key. `phase` says which table its position is in.
ALTER TABLE operation ADD COLUMN kind BIGINT NOT NULL DEFAULT 0;
ALTER TABLE operation ADD COLUMN phase BIGINT NOT NULL DEFAULT 0;
