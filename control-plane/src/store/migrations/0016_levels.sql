-- Which level of configuration data planes must understand to serve what is in force, and the workspace as a whole. What was in force before
-- levels were counted is of the first: a data plane that does not understand it refuses it by its digest, as it did before.
ALTER TABLE head ADD COLUMN config_level BIGINT NOT NULL DEFAULT 1;
CREATE INDEX head_by_level ON head (workspace, config_level) WHERE config_level > 1;
ALTER TABLE workspace ADD COLUMN config_level BIGINT NOT NULL DEFAULT 1;
