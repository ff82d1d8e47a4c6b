-- When something was deleted; 0: it is there. What was deleted keeps its id and can come back until it is purged.
ALTER TABLE workspace ADD COLUMN delete_time BIGINT NOT NULL DEFAULT 0;
ALTER TABLE document ADD COLUMN delete_time BIGINT NOT NULL DEFAULT 0;
CREATE INDEX workspace_by_delete ON workspace (delete_time) WHERE delete_time > 0;
CREATE INDEX document_by_delete ON document (delete_time) WHERE delete_time > 0;
