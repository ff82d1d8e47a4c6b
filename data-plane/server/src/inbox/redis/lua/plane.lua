-- Who asks, what it knows of the store, and its limits: the first arguments of every step.
local is_time_given, now, NOW, store, me, opened, seen, shard, lease_ms, dead_ms, quota, bulk_quota
-- Whether the keys of the shard are on their way to this node.
local is_moving
-- The rows of jobs that are asked about, and the keys of requests, in the order in which they are: they are read together.
local asked_rows, row_at, asked_keys, key_at
-- The plane remembers the jobs that it has brought from this row on; none if it is empty.
local remembered

local function read_plane()
    local given = arg()
    is_time_given, now = given ~= '', time(given)
    NOW = text(now)
    store, me, opened = three()
    seen, shard = two()
    lease_ms, dead_ms = two()
    quota, bulk_quota = two()
    is_moving = arg() == 1
    asked_rows, row_at, asked_keys, key_at = arg(), 0, arg(), 0
    remembered = arg()
end
