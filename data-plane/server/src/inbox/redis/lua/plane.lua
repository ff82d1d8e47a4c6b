-- Who asks, what it knows of the store, and its limits: the first arguments of every step.
local is_time_given, now, NOW, store, me, opened, seen, shard, lease_ms, dead_ms, quota, bulk_quota
-- Whether the keys of the shard are on their way to this node, and the rows of jobs that are asked about.
local is_moving, named

local function read_plane()
    local given = arg()
    is_time_given, now = given ~= '', time(given)
    NOW = text(now)
    store, me, opened, seen, shard = arg(), arg(), arg(), int(), int()
    lease_ms, dead_ms, quota, bulk_quota = int(), int(), int(), int()
    is_moving, named = arg() == '1', texts()
end
