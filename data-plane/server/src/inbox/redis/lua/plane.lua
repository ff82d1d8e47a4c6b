-- Who asks, what it knows of the store, and its limits: the first arguments of every step.
local is_time_given = ARGV[1] ~= ''
local now = time(arg())
local store = arg()
local me = arg()
local opened = arg()
local seen = int()
local shard = int()
local lease_ms = int()
local dead_ms = int()
local quota = int()
local bulk_quota = int()
-- Whether the keys of the shard are on their way to this node, and the rows of jobs that are asked about.
local is_moving = arg() == '1'
local named = texts()
