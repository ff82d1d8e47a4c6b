-- The newest revision that may take away most of what data planes serve; 0: none.
ALTER TABLE workspace ADD COLUMN deletes_confirmed BIGINT NOT NULL DEFAULT 0;

-- The store was set back: data planes have served revisions of this workspace up to this one, or another content under the one before it.
-- Where it is larger than `revision`, nothing is published. 0 from the start of an epoch on.
ALTER TABLE workspace ADD COLUMN seen_ahead BIGINT NOT NULL DEFAULT 0;
