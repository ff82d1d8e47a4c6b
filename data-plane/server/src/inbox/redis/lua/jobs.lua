-- Jobs and where they are. Fields of `j:<row>`:
--   id (16 bytes), l lane, f flow, s place (r ready, l leased, d delayed, x dead), a accepted, at since or until when,
--   n finished attempts, k leases in a row that ended without a word, e epoch (the fence), b begun under this lease,
--   m ambiguous: begun under an earlier one, o who holds the lease, why it is dead.
local changed, touched = {}, false

local function job_key(row) return base .. 'j:' .. row end
local function ready_key(flow, tried) return base .. 'q:' .. flow .. (tried and ':1' or ':0') end
local function leased_key(lane) return base .. 'x:' .. lane end
local function delayed_key(lane) return base .. 'z:' .. lane end
local function dead_key(lane) return base .. 'dead:' .. lane end

local function change(flow)
    changed[flow] = true
    touched = true
end

-- Jobs that count against the queue quota, all but the dead, and those among them of the lane for large amounts, which count
-- against its share, too. Asked for once in a step, unless something else than a request changes them.
local live, live_bulk

local function count_live()
    local dead_bulk = call('ZCARD', dead_key(BULK))
    live = call('HLEN', IDS) - call('ZCARD', dead_key(REALTIME)) - dead_bulk
    live_bulk = tonumber(call('HGET', META, 'bulk') or 0) - dead_bulk
end

-- Ready, behind all that are.
local function make_ready(row, flow, tried)
    call('RPUSH', ready_key(flow, tried), row)
    change(flow)
end

-- Ready since now if its time has come, otherwise delayed.
local function put_back(row, lane, flow, tried, due)
    if due <= now then
        make_ready(row, flow, tried)
        call('HSET', job_key(row), 's', 'r', 'at', now)
    else
        call('ZADD', delayed_key(lane), due, row)
        call('HSET', job_key(row), 's', 'd', 'at', due)
    end
end

local flow_numbers = {}

local function flow_number(lane, name)
    local key = lane .. name
    local flow = flow_numbers[key] or call('HGET', FLOWS, key)
    if not flow then
        flow = text(call('HINCRBY', META, 'flows', 1) * 64 + shard)
        call('HSET', FLOWS, key, flow)
        call('HSET', NAMES, flow, key)
    end
    flow_numbers[key] = flow
    return flow
end

-- The next arguments as jobs: how many, then id, lane, flow and payload of each.
local function read_jobs()
    local jobs = {}
    for n = 1, int() do jobs[n] = { id = arg(), lane = arg(), flow = arg(), payload = arg() } end
    return jobs
end

local function has_room(jobs)
    local bulk = 0
    for _, job in ipairs(jobs) do
        if job.lane == BULK then bulk = bulk + 1 end
    end
    if #jobs == 0 then return true end
    if not live then count_live() end
    return live + #jobs <= quota and (bulk == 0 or live_bulk + bulk <= bulk_quota)
end

-- The last number given, and the last that may be given without writing it down first.
local tick, tick_end
local TICKS = 64

-- The number before so many new ones.
local function take_ticks(count)
    if not tick then
        tick = math.max(tonumber(call('HGET', META, 'tick') or 0), now * 16)
        tick_end = tick
    end
    local before = tick
    tick = tick + count
    if tick > tick_end then
        tick_end = tick + TICKS
        call('HSET', META, 'tick', tick_end)
    end
    return before
end

local function enqueue(jobs)
    if #jobs == 0 then return end
    local before = take_ticks(#jobs)
    for n, job in ipairs(jobs) do
        local row, flow = text((before + n) * 64 + shard), flow_number(job.lane, job.flow)
        call('HINCRBY', USES, flow, 1)
        live = live + 1
        if job.lane == BULK then
            call('HINCRBY', META, 'bulk', 1)
            live_bulk = live_bulk + 1
        end
        call('SET', base .. 'p:' .. row, job.payload)
        call('HSET', job_key(row), 'id', job.id, 'l', job.lane, 'f', flow, 's', 'r', 'a', now, 'at', now,
            'n', 0, 'k', 0, 'e', 0, 'b', 0, 'm', 0)
        call('HSET', IDS, job.id, row)
        call('ZADD', WAITED, row, row)
        make_ready(row, flow, false)
    end
end

-- A job is gone.
local function forget(row, id, lane, flow)
    live = nil
    -- One by one, as everything here is: a shard that is moving lets nobody name several keys of which one is not there.
    for _, key in ipairs({ job_key(row), base .. 'p:' .. row, base .. 'r:' .. row }) do call('DEL', key) end
    -- A request that was forgotten and came again has brought the same ids anew.
    if call('HGET', IDS, id) == row then call('HDEL', IDS, id) end
    call('ZREM', WAITED, row)
    call('HINCRBY', USES, flow, -1)
    if lane == BULK then call('HINCRBY', META, 'bulk', -1) end
end

-- The lease that the next arguments name (id, row, epoch), if it is in force. One that ran out but was not yet ended is.
local function held()
    local id, row, epoch = arg(), arg(), arg()
    local job = call('HMGET', job_key(row), 'id', 'e', 's', 'l', 'f', 'n', 'b', 'm')
    if job[1] ~= id or job[2] ~= epoch or job[3] ~= 'l' then return row, nil end
    return row, { id = id, lane = job[4], flow = job[5], attempts = tonumber(job[6]), begun = job[7] == '1',
        ambiguous = job[8] }
end

-- A lease ended without a word: what was begun under it is ambiguous.
local function end_lease(row, lane)
    local job = call('HMGET', job_key(row), 'f', 'n', 'b', 'm')
    call('HINCRBY', job_key(row), 'k', 1)
    make_ready(row, job[1], job[2] ~= '0')
    call('HSET', job_key(row), 's', 'r', 'at', now, 'b', 0, 'm', job[3] == '1' and 1 or job[4])
    call('ZREM', leased_key(lane), row)
end
