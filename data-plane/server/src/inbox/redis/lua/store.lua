-- What every call knows: names of keys, the time, and arguments one after the other. Functions are made once, when the library is
-- loaded; what belongs to one call is set when it begins.
--
-- All keys of a shard start with its hash tag, KEYS[1], for example `{sluice:0}`:
--
--   meta       hash: layout, shards, store (its id), changes (of what is ready: its version), tick and flows (no higher numbers were
--              given), bulk (jobs of that lane that are kept)
--   planes     hash: plane -> how often it was opened
--   owners     zset: mark of a master key of the installation whose store it is -> when a plane last had it
--   seen, gone zsets: plane -> when it was heard of last, when its reports had been adopted
--   ids        hash: job id -> row of every job that is kept, and one field that is no id
--   j:<row>    one job, see jobs.lua; a hash if it is as layout 1 left it
--   p:<row>    its payload                    r:<row>  the bytes of its first attempt
--   flows, names   hashes: lane and flow -> number, and back          uses   hash: number -> jobs of it that are kept
--   q:<flow>:<0|1> list: rows that are ready, 0 first attempts, 1 retries
--   x:<lane>   zset: row -> end of its lease      z:<lane>  zset: row -> due      dead:<lane>  zset: row -> died
--   waited     zset: rows that have had no attempt, by themselves
--   d<16 bytes>, a<16 bytes>   a dedup key, a request without one: 8 bytes of the request that took it, as a number, which takes
--                              no memory of its own
--   l:<name>   hash: a limit that all planes keep together, see limits.lua
--   o:<plane>  list: reports of a plane           trimmed   hash: plane -> reports it has forgotten
--
-- Rows grow with time (milliseconds * 1024, the shard in the lowest 6 bits) and stay below 2^53, as scripts count in
-- doubles. They are texts here: Lua would round them when it joins them to others.
local call, base
local META, PLANES, SEEN, GONE, OWNERS, IDS, WAITED, TRIMMED, FLOWS, NAMES, USES
-- Of each lane.
local LEASED, DELAYED, DEAD
-- Longer than Redis packs into a list: what has it as a field or a member is none, and is not searched from its beginning each time.
local LONG = '-----------------------------------------------------------------'
-- A field of ids that is none.
local NO_ID = LONG
local REALTIME, BULK = '0', '1'

-- How many jobs are promoted, ended or forgotten, and how many reports are adopted, in one step.
local BATCH = '100'

local min, match, concat, format
-- Small things that were said, and payloads, each with the place of the last one that was taken.
local words, word_at, values, value_at

-- A call begins, on the shard whose hash tag is its only key. Its arguments are a list of small things, and payloads.
local function begin(keys, given)
    words, word_at, values, value_at = cmsgpack.unpack(given[1]), 0, given, 1
    if base == keys[1] then return end
    -- A library that is being loaded does not see them.
    call, min, match, concat, format = redis.call, math.min, string.match, table.concat, string.format
    base = keys[1]
    META, PLANES, SEEN, GONE = base .. 'meta', base .. 'planes', base .. 'seen', base .. 'gone'
    OWNERS, IDS, WAITED, TRIMMED = base .. 'owners', base .. 'ids', base .. 'waited', base .. 'trimmed'
    FLOWS, NAMES, USES = base .. 'flows', base .. 'names', base .. 'uses'
    LEASED = { [REALTIME] = base .. 'x:' .. REALTIME, [BULK] = base .. 'x:' .. BULK }
    DELAYED = { [REALTIME] = base .. 'z:' .. REALTIME, [BULK] = base .. 'z:' .. BULK }
    DEAD = { [REALTIME] = base .. 'dead:' .. REALTIME, [BULK] = base .. 'dead:' .. BULK }
end

local function arg()
    local at = word_at + 1
    word_at = at
    return words[at]
end

local function two()
    local at = word_at
    word_at = at + 2
    return words[at + 1], words[at + 2]
end

local function three()
    local at = word_at
    word_at = at + 3
    return words[at + 1], words[at + 2], words[at + 3]
end

local function value()
    local at = value_at + 1
    value_at = at
    return values[at]
end

-- The time of the store, unless the caller brings its own (a test that moves it).
local function time(given)
    if given ~= '' then return tonumber(given) end
    local t = call('TIME')
    return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Marks of an installation that are kept: the newest.
local OWNERS_MAX = 64

-- Adds these to the marks of the installation whose store it is.
local function own(marks, now)
    for _, mark in ipairs(marks) do call('ZADD', OWNERS, now, mark) end
    call('ZREMRANGEBYRANK', OWNERS, 0, -OWNERS_MAX - 1)
end

local function text(number) return format('%d', number) end
