-- Version 4: keys are written in the order they come, one row for each step of the committer, and moved among all others later, many of
-- those that lie side by side at once. A key alone would cost a page of `dedup`, as it may belong anywhere in it.

-- Keys of one step, 56 bytes each: the key, which request took it, and until when it is known. The latest row that names a key is right,
-- and says more than `dedup` does.
CREATE TABLE claim (step INTEGER PRIMARY KEY, keys BLOB NOT NULL);

-- By spans of 2^18 ms, in the order of the keys within each: what is moved together stays together here, too.
DROP INDEX dedup_exp;
CREATE INDEX dedup_over ON dedup (exp >> 18);
