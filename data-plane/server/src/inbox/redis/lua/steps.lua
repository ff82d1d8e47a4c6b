-- What may be asked of the store, by one letter; each reads its arguments and answers.
local steps = {}

-- Accepts a request: jobs first, then its key, and nothing without room for all of it. 1 accepted, 2 duplicate, 3 full.
function steps.A()
    local request, key, window = arg(), base .. arg(), int()
    local jobs = read_jobs()
    -- A key goes by itself when its time is over. Where time is given, it is written down as well.
    local until_when = is_time_given and ':' .. text(now + window) or ''
    local first, over = string.match(call('GET', key) or '', '^(%-?%d+):?(%d*)$')
    if first and (over == '' or now < tonumber(over)) then
        call('SET', key, first .. until_when, 'PX', window)
        return first == request and 1 or 2
    end
    if not has_room(jobs) then return 3 end
    enqueue(jobs)
    call('SET', key, request .. until_when, 'PX', window)
    return 1
end

local function lease_one(row)
    local key = job_key(row)
    local job = call('HMGET', key, 'id', 'l', 'f', 'n', 'k', 'm', 'a')
    local epoch = call('HINCRBY', key, 'e', 1)
    call('ZADD', leased_key(job[2]), now + lease_ms, row)
    call('HSET', key, 's', 'l', 'o', me)
    -- Bytes of an attempt are left by an earlier lease.
    return { row, epoch, job[1], job[2], job[3], job[4], job[5], job[6], job[7], call('GET', base .. 'p:' .. row),
        epoch > 1 and call('GET', base .. 'r:' .. row) }
end

-- The longest waiting rows of a flow that were accepted at a time or before; any if it is empty.
local function take(flow, tried, most, accepted_until, heads)
    local key = ready_key(flow, tried)
    if most <= 0 then return {} end
    if accepted_until == '' then return call('LPOP', key, most) or {} end
    local rows = {}
    for _, row in ipairs(call('LRANGE', key, 0, heads - 1)) do
        if #rows == most then break end
        if tonumber(call('HGET', job_key(row), 'a')) <= tonumber(accepted_until) then
            call('LREM', key, 1, row)
            rows[#rows + 1] = row
        end
    end
    return rows
end

-- Leases what is granted, at most so many.
function steps.L()
    local room, heads, jobs = int(), int(), {}
    for _ = 1, int() do
        local flow, first, retries, accepted_until = arg(), int(), int(), arg()
        for kind, most in ipairs({ first, retries }) do
            for _, row in ipairs(take(flow, kind == 2, math.min(most, room), accepted_until, heads)) do
                jobs[#jobs + 1] = lease_one(row)
                room = room - 1
                change(flow)
            end
        end
        -- Told in any case: who was granted more than there was does not know it.
        changed[flow] = true
    end
    return jobs
end

-- Renews leases; answers the ids of those that are lost.
function steps.N()
    local lost = {}
    for _ = 1, int() do
        local id, row, epoch = arg(), arg(), arg()
        local job = call('HMGET', job_key(row), 'id', 'e', 's', 'l')
        if job[1] == id and job[2] == epoch and job[3] == 'l' then
            call('ZADD', leased_key(job[4]), now + lease_ms, row)
        else
            lost[#lost + 1] = id
        end
    end
    return lost
end

-- An attempt begins; the first bytes stay.
function steps.B()
    local row, job = held()
    local bytes = arg()
    if not job then return 0 end
    call('SET', base .. 'r:' .. row, bytes, 'NX')
    call('HSET', job_key(row), 'b', 1)
    return 1
end

-- Gives a job back without an attempt: nothing was sent under this lease.
function steps.P()
    local row, job = held()
    local due = int()
    if not job then return 0 end
    put_back(row, job.lane, job.flow, job.attempts > 0, due)
    call('HSET', job_key(row), 'b', 0)
    call('ZREM', leased_key(job.lane), row)
    return 1
end

local ends = {}

-- Done.
function ends.D(row, job)
    forget(row, job.id, job.lane, job.flow)
end

-- Tried again.
function ends.R(row, job, due, rendered)
    call('SET', base .. 'r:' .. row, rendered)
    call('ZREM', WAITED, row)
    put_back(row, job.lane, job.flow, true, due)
    call('HSET', job_key(row), 'n', job.attempts + 1, 'k', 0, 'b', 0, 'm', 0)
end

-- Dead. An attempt that was begun is finished by this.
function ends.X(row, job, _, rendered, reason)
    if rendered then call('SET', base .. 'r:' .. row, rendered) end
    call('ZADD', dead_key(job.lane), now, row)
    live = nil
    call('ZREM', WAITED, row)
    call('HSET', job_key(row), 's', 'x', 'at', now, 'n', job.attempts + (job.begun and 1 or 0), 'b', 0,
        'm', job.begun and 0 or job.ambiguous, 'why', reason)
end

-- Ends a lease with an outcome, its report, and what it starts. 2: that was not taken, as there is no room.
function steps.F()
    local row, job = held()
    local kind, due, reason, has_rendered, rendered, told = arg(), int(), arg(), arg(), arg(), arg()
    local jobs = read_jobs()
    if not job then return 0 end
    ends[kind](row, job, due, has_rendered == '1' and rendered or nil, reason)
    call('ZREM', leased_key(job.lane), row)
    call('RPUSH', base .. 'o:' .. me, told)
    if not has_room(jobs) then return 2 end
    enqueue(jobs)
    return 1
end

-- What an operator wants (R due now, C cancelled) of a job that nobody works on and nothing happened to since.
function steps.S()
    local id, row, epoch, wish, told = arg(), arg(), arg(), arg(), arg()
    local key = job_key(row)
    local job = call('HMGET', key, 'id', 'e', 's', 'l', 'f', 'n')
    local place, lane, flow, tried = job[3], job[4], job[5], job[6] ~= '0'
    local can = wish == 'R' and (place == 'd' or place == 'x') or wish == 'C' and (place == 'r' or place == 'd')
    if job[1] ~= id or job[2] ~= epoch or not can then return 0 end
    call('RPUSH', base .. 'o:' .. me, told)
    if place == 'r' then
        call('LREM', ready_key(flow, tried), 1, row)
        change(flow)
    else
        call('ZREM', place == 'd' and delayed_key(lane) or dead_key(lane), row)
        live = nil
    end
    if wish == 'C' then
        forget(row, id, lane, flow)
    else
        if not tried then call('ZADD', WAITED, row, row) end
        put_back(row, lane, flow, tried, now)
        call('HSET', key, 'k', 0)
        call('HINCRBY', key, 'e', 1)
        call('HDEL', key, 'why')
    end
    return 1
end

-- Finds a job by its id.
function steps.I()
    local row = call('HGET', IDS, arg())
    if not row then return false end
    local job = call('HMGET', job_key(row), 'e', 's', 'a')
    return { row, job[1], job[2], job[3], call('GET', base .. 'p:' .. row), call('GET', base .. 'r:' .. row) }
end

-- Jobs without an attempt after a row, accepted at a time or before; no more than fit, but at least one.
function steps.W()
    local after, accepted_before, rows, room, found = arg(), int(), int(), int(), {}
    for _, row in ipairs(call('ZRANGE', WAITED, '(' .. after, '+inf', 'BYSCORE', 'LIMIT', 0, rows)) do
        local job = call('HMGET', job_key(row), 'id', 'e', 's', 'a', 'at')
        if tonumber(job[4]) > accepted_before then break end
        local payload = call('GET', base .. 'p:' .. row)
        room = room - #payload
        if room < 0 and #found > 0 then break end
        found[#found + 1] = { row, job[1], job[2], job[3], job[4], job[5], payload }
    end
    return found
end

-- Reports of this plane after a number; no more than fit, but at least one. None if what follows it is forgotten already.
function steps.O()
    local after, rows, room, read = int(), int(), int(), {}
    local from = after - tonumber(call('HGET', TRIMMED, me) or 0)
    if from < 0 then return read end
    while rows > #read do
        local chunk = call('LRANGE', base .. 'o:' .. me, from + #read, from + math.min(#read + 16, rows) - 1)
        if #chunk == 0 then return read end
        for _, report in ipairs(chunk) do
            room = room - #report
            if room < 0 and #read > 0 then return read end
            read[#read + 1] = report
        end
    end
    return read
end

-- Forgets this plane's reports up to a number.
function steps.T()
    local up_to = int()
    local key = base .. 'o:' .. me
    local trimmed = tonumber(call('HGET', TRIMMED, me) or 0)
    local number = math.min(up_to - trimmed, call('LLEN', key))
    if number > 0 then
        call('LTRIM', key, number, -1)
        call('HINCRBY', TRIMMED, me, number)
    end
    return 1
end

-- Every flow counts as changed: who asks has heard nothing yet, or may have missed something.
function steps.V()
    for _, flow in ipairs(call('HKEYS', NAMES)) do changed[flow] = true end
    return 1
end

-- What is held by lane (leased, delayed, dead), and how long the longest waiting job of these flows is ready. Counted when the
-- step is over.
function steps.C()
    local flows = {}
    for _, lane in ipairs({ REALTIME, BULK }) do
        flows[lane] = {}
        for n = 1, int() do flows[lane][n] = arg() end
    end
    return function()
        local counts = {}
        for _, lane in ipairs({ REALTIME, BULK }) do
            for _, key in ipairs({ leased_key(lane), delayed_key(lane), dead_key(lane) }) do
                counts[#counts + 1] = call('ZCARD', key)
            end
            local oldest = now
            for _, flow in ipairs(flows[lane]) do
                for _, tried in ipairs({ false, true }) do
                    local row = call('LINDEX', ready_key(flow, tried), 0)
                    if row then oldest = math.min(oldest, tonumber(call('HGET', job_key(row), 'at'))) end
                end
            end
            counts[#counts + 1] = now - oldest
        end
        return counts
    end
end

-- This plane is here. Adopts reports of one that was not heard of for so long or has left, unless this one was away
-- itself: then the others get the time to say that they are here. Answers whether there is more to adopt.
function steps.H()
    local away, absent_after = int(), int()
    own(texts(), now)
    local before = tonumber(call('ZSCORE', SEEN, me) or 0)
    call('ZADD', SEEN, now, me)
    if now - before > away then return 0 end
    local gone = call('ZRANGE', SEEN, '-inf', now - absent_after, 'BYSCORE', 'LIMIT', 0, 1)[1]
    if not gone or gone == me then return 0 end
    local theirs = base .. 'o:' .. gone
    for _ = 1, BATCH do
        local report = call('LPOP', theirs)
        if not report then break end
        call('RPUSH', base .. 'o:' .. me, report)
        call('HINCRBY', TRIMMED, gone, 1)
    end
    if call('LLEN', theirs) == 0 then
        call('ZREM', SEEN, gone)
        call('ZADD', GONE, now, gone)
    end
    return 1
end

-- This plane holds nothing yet: leases of its earlier lives end.
function steps.E()
    for _, lane in ipairs({ REALTIME, BULK }) do
        for _, row in ipairs(call('ZRANGE', leased_key(lane), 0, -1)) do
            if call('HGET', job_key(row), 'o') == me then end_lease(row, lane) end
        end
    end
    return 1
end

-- This plane leaves in good order: its leases end, and others need not wait to adopt its reports.
function steps.Q()
    steps.E()
    call('ZADD', SEEN, 0, me)
    return 1
end
