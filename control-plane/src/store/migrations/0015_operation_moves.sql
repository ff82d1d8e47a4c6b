-- How often an operation has moved: who has read it before another one moved it moves it no more.
ALTER TABLE operation ADD COLUMN moves BIGINT NOT NULL DEFAULT 0;
