-- Jobs and where they are. A job is read at most once in a step, and written at most once, at its end. It is a list of texts:
--   ID (16 bytes), LANE, PLACE (r ready, l leased, d delayed, x dead), BEGUN under this lease (1 or 0), AMBIGUOUS: begun under an
--   earlier one (1 or 0), FLOW, ACCEPTED, AT: since or until when, ATTEMPTS that are finished, LEASES in a row that ended without a
--   word, EPOCH (the fence), NOTE: who has brought it, until its first lease, who holds the lease, or why it is dead.
local ID, LANE, PLACE, BEGUN, AMBIGUOUS, FLOW, ACCEPTED, AT, ATTEMPTS, LEASES, EPOCH, NOTE = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
-- As it is kept.
local JOB = '^(................) (.) (.) (.) (.) (%d+) (%d+) (%-?%d+) (%d+) (%d+) (%d+) (.*)$'

local jobs, unwritten, changed, touched
-- Ids that are forgotten, and the rows they had.
local gone_ids, gone_rows, gone
-- Jobs that count against the queue quota, all but the dead, and those among them of the lane for large amounts, which count
-- against its share, too. Counted once in a step.
local live, live_bulk
-- The first time that something was delayed to in this step.
local soonest
-- Of flows: their numbers by their names, and the keys of those that are ready.
local flow_numbers, first_keys, retry_keys
-- The last number given, and the last that may be given without writing it down first.
local tick, tick_end
local TICKS = 64

local function nothing_is_known()
    jobs, unwritten, changed, touched = {}, {}, {}, false
    gone_ids, gone_rows, gone = {}, {}, 0
    flow_numbers, first_keys, retry_keys = {}, {}, {}
    live, live_bulk, soonest, tick, tick_end = nil, nil, nil, nil, nil
end

local function job_key(row) return base .. 'j:' .. row end
local function payload_key(row) return base .. 'p:' .. row end
local function rendered_key(row) return base .. 'r:' .. row end
local function leased_key(lane) return LEASED[lane] end
local function delayed_key(lane) return DELAYED[lane] end
local function dead_key(lane) return DEAD[lane] end

local function ready_key(flow, tried)
    local keys = tried and retry_keys or first_keys
    local key = keys[flow]
    if not key then
        key = base .. 'q:' .. flow .. (tried and ':1' or ':0')
        keys[flow] = key
    end
    return key
end

-- A job as layout 1 kept it, in a hash.
local function read_first_layout(row)
    local job = call('HMGET', job_key(row), 'id', 'l', 's', 'b', 'm', 'f', 'a', 'at', 'n', 'k', 'e', 'o', 'why')
    if not job[ID] then return false end
    if job[PLACE] == 'x' then job[NOTE] = job[13] end
    job[NOTE], job[13] = job[NOTE] or '', nil
    return job
end

-- Reads these jobs together.
local function read(rows)
    if #rows == 0 then return end
    local missing, keys, count = {}, {}, 0
    for n = 1, #rows do
        local row = rows[n]
        if jobs[row] == nil then
            count = count + 1
            missing[count], keys[count] = row, job_key(row)
        end
    end
    local values = get_all(keys, count)
    for n = 1, count do
        local row, kept = missing[n], values[n]
        jobs[row] = kept and { match(kept, JOB) } or read_first_layout(row)
    end
end

local function find(row)
    if jobs[row] == nil then read({ row }) end
    return jobs[row]
end

local function keep(row, job)
    jobs[row] = job
    unwritten[row] = true
end

-- Those that no other row has: a request that was forgotten and came again has brought the same ids anew.
local function forget_ids()
    for from = 1, gone, AT_ONCE do
        local upto = min(from + AT_ONCE - 1, gone)
        local rows = call('HMGET', IDS, unpack(gone_ids, from, upto))
        for n = from, upto do
            if rows[n - from + 1] == gone_rows[n] then remove('HDEL', IDS, gone_ids[n]) end
        end
    end
    gone = 0
end

-- Whatever waits is written, before something is read that it changes.
local function flush()
    if next(unwritten) then
        for row in pairs(unwritten) do
            if jobs[row] then set(job_key(row), concat(jobs[row], ' ')) end
        end
        unwritten = {}
    end
    write_all()
    if gone > 0 then
        forget_ids()
        write_all()
    end
end

local function change(flow)
    changed[flow] = true
    touched = true
end

local function count_live()
    flush()
    local dead_bulk = call('ZCARD', dead_key(BULK))
    live = call('HLEN', IDS) - 1 - call('ZCARD', dead_key(REALTIME)) - dead_bulk
    live_bulk = tonumber(call('HGET', META, 'bulk') or 0) - dead_bulk
end

local function count_one(lane, by)
    if not live then return end
    live = live + by
    if lane == BULK then live_bulk = live_bulk + by end
end

-- Ready, behind all that are.
local function make_ready(row, job)
    push(ready_key(job[FLOW], job[ATTEMPTS] ~= '0'), row)
    change(job[FLOW])
end

-- Ready since now if its time has come, otherwise delayed.
local function put_back(row, job, due)
    job[NOTE] = ''
    if due <= now then
        job[PLACE], job[AT] = 'r', NOW
        make_ready(row, job)
    else
        job[PLACE], job[AT] = 'd', text(due)
        put('ZADD', delayed_key(job[LANE]), job[AT], row)
        soonest = min(due, soonest or due)
    end
    keep(row, job)
end

-- Of a lane and a flow, named together.
local function flow_number(key)
    local flow = call('HGET', FLOWS, key)
    if not flow then
        flow = text(call('HINCRBY', META, 'flows', 1) * 64 + shard)
        call('HSET', FLOWS, key, flow)
        call('HSET', NAMES, flow, key)
    end
    flow_numbers[key] = flow
    return flow
end

-- The next arguments as jobs, and how many: id, lane, lane and flow, and payload of each.
local function read_new()
    local new, number = {}, arg()
    for n = 1, number do
        local id, lane, flow = three()
        new[n] = { id, lane, flow, value() }
    end
    return new, number
end

local function has_room(new, number)
    if number == 0 then return true end
    local bulk = 0
    for n = 1, number do
        if new[n][2] == BULK then bulk = bulk + 1 end
    end
    if not live then count_live() end
    return live + number <= quota and (bulk == 0 or live_bulk + bulk <= bulk_quota)
end

-- The number before so many new ones.
local function take_ticks(number)
    if not tick then
        tick = math.max(tonumber(call('HGET', META, 'tick') or 0), now * 16)
        tick_end = tick
    end
    local before = tick
    tick = tick + number
    if tick > tick_end then
        tick_end = tick + TICKS
        call('HSET', META, 'tick', text(tick_end))
    end
    return before
end

-- Answers the first row.
local function enqueue(new, number)
    if number == 0 then return 1 end
    local before = take_ticks(number)
    for n = 1, number do
        local one = new[n]
        local id, lane = one[1], one[2]
        local row, flow = text((before + n) * 64 + shard), flow_numbers[one[3]] or flow_number(one[3])
        local job = { id, lane, 'r', '0', '0', flow, NOW, NOW, '0', '0', '0', me }
        keep(row, job)
        set(payload_key(row), one[4])
        put('HSET', IDS, id, row)
        put('ZADD', WAITED, row, row)
        sum(USES, flow, 1)
        if lane == BULK then sum(META, 'bulk', 1) end
        count_one(lane, 1)
        make_ready(row, job)
    end
    return (before + 1) * 64 + shard
end

-- A job is gone.
local function forget(row, job)
    jobs[row] = false
    delete(job_key(row))
    delete(payload_key(row))
    -- Nothing was begun before the first lease.
    if job[EPOCH] ~= '0' then delete(rendered_key(row)) end
    gone = gone + 1
    gone_ids[gone], gone_rows[gone] = job[ID], row
    if job[ATTEMPTS] == '0' then remove('ZREM', WAITED, row) end
    sum(USES, job[FLOW], -1)
    if job[LANE] == BULK then sum(META, 'bulk', -1) end
    if job[PLACE] ~= 'x' then count_one(job[LANE], -1) end
end

-- The next row that is asked about.
local function next_row()
    row_at = row_at + 1
    return asked_rows[row_at]
end

-- The lease that is asked about (its row, and as next arguments id and epoch), if it is in force. One that ran out but was not yet ended
-- is.
local function held()
    local row, id, epoch = next_row(), two()
    local job = jobs[row]
    if not job or job[ID] ~= id or job[EPOCH] ~= epoch or job[PLACE] ~= 'l' then return row, nil, id end
    return row, job
end

-- A lease ended without a word: what was begun under it is ambiguous.
local function end_lease(row)
    local job = find(row)
    job[LEASES] = text(job[LEASES] + 1)
    if job[BEGUN] == '1' then job[AMBIGUOUS] = '1' end
    job[BEGUN] = '0'
    remove('ZREM', leased_key(job[LANE]), row)
    put_back(row, job, now)
end
