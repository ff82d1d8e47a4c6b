-- What may be asked of the store, by one letter; each reads its arguments and answers. What reads more than jobs writes first whatever
-- waits.
local steps = {}

-- Whether some answer when the step is over: with a function.
local some_are_late

-- Accepts a request: jobs first, then its key, and nothing without room for all of it. 1 accepted, 2 duplicate, 3 full; or, accepted now,
-- the first row of its jobs, which follow each other.
function steps.A()
    local request, window = two()
    key_at = key_at + 1
    local key, new, number = asked_keys[key_at], read_new()
    -- A key goes by itself when its time is over. Where time is given, it is written down as well.
    local until_when = is_time_given and ':' .. text(now + window) or ''
    local kept, first, over = claimed[key]
    if kept then first, over = match(kept, '^(%-?%d+):?(%d*)$') end
    if first and (over == '' or now < tonumber(over)) then
        claim(key, first .. until_when, window)
        return first == request and 1 or 2
    end
    if not has_room(new, number) then return 3 end
    local row = enqueue(new, number)
    claim(key, request .. until_when, window)
    return row
end

-- The longest waiting rows of a flow that were accepted at a time or before; any if it is empty.
local function take(flow, tried, most, accepted_until, heads)
    local key = ready_key(flow, tried)
    if most <= 0 then return {} end
    if accepted_until == '' then return call('LPOP', key, most) or {} end
    local first, rows = call('LRANGE', key, 0, heads - 1), {}
    read(first)
    for _, row in ipairs(first) do
        if #rows == most then break end
        if tonumber(find(row)[ACCEPTED]) <= tonumber(accepted_until) then
            call('LREM', key, 1, row)
            rows[#rows + 1] = row
        end
    end
    return rows
end

-- Whether it is new, and the plane that asks has brought it.
local function is_remembered(row, job)
    return job[EPOCH] == '0' and job[NOTE] == me and remembered ~= '' and row >= remembered
end

-- All that is needed to work on a job.
local function whole(row, job, epoch, payload, rendered)
    return { row, epoch, job[ID], job[LANE], job[FLOW], job[ATTEMPTS], job[LEASES], job[AMBIGUOUS], job[ACCEPTED], payload, rendered }
end

-- What the jobs of one answer have together, more or less: when 32 MB wait to be sent to somebody who hears news, a server ends the
-- connection, and nobody would know what was leased.
local LEASE_BYTES = 8388608

local function bytes_of(row, job)
    local rendered = job[EPOCH] ~= '0' and call('STRLEN', rendered_key(row)) or 0
    return call('STRLEN', payload_key(row)) + rendered
end

-- Those from here on wait on, in the order they had.
local function leave(rows, from, to)
    for n = to, from, -1 do
        local job = jobs[rows[n]]
        call('LPUSH', ready_key(job[FLOW], job[ATTEMPTS] ~= '0'), rows[n])
    end
end

-- Leases so many, and answers what is needed to work on them; fewer of very large ones, but one at least.
local function lease(rows, number)
    read(rows)
    local keys, unknown, count, leased, upto, bytes = {}, {}, 0, {}, text(now + lease_ms), 0
    for n = 1, number do
        local row = rows[n]
        local job = jobs[row]
        if is_remembered(row, job) then
            leased[n] = { row, job[ID], job[FLOW] }
            job[EPOCH] = '1'
        else
            bytes = bytes + bytes_of(row, job)
            if bytes > LEASE_BYTES and n > 1 then
                leave(rows, n, number)
                number = n - 1
                break
            end
            count = count + 1
            keys[count], unknown[count] = payload_key(row), n
        end
        put('ZADD', leased_key(job[LANE]), upto, row)
        keep(row, job)
    end
    local payloads = get_all(keys, count)
    for at = 1, count do
        local n = unknown[at]
        local row = rows[n]
        local job = jobs[row]
        -- Bytes of an attempt are left by an earlier lease.
        local rendered = job[EPOCH] ~= '0' and call('GET', rendered_key(row))
        job[EPOCH] = text(job[EPOCH] + 1)
        leased[n] = whole(row, job, job[EPOCH], payloads[at], rendered)
    end
    for n = 1, number do
        local job = jobs[rows[n]]
        job[PLACE], job[NOTE] = 'l', me
    end
    return leased
end

-- Leases what is granted, at most so many.
function steps.L()
    flush()
    local room, heads, grants = three()
    local rows, number = {}, 0
    for _ = 1, grants do
        local flow, first, retries = three()
        local accepted_until = arg()
        for kind, most in ipairs({ first, retries }) do
            for _, row in ipairs(take(flow, kind == 2, min(most, room - number), accepted_until, heads)) do
                number = number + 1
                rows[number] = row
                change(flow)
            end
        end
        -- Told in any case: who was granted more than there was does not know it.
        changed[flow] = true
    end
    return lease(rows, number)
end

-- What is in jobs that are leased.
function steps.R()
    flush()
    local found = {}
    for _ = 1, arg() do
        local row, job = held()
        if job then
            found[#found + 1] = whole(row, job, job[EPOCH], call('GET', payload_key(row)), call('GET', rendered_key(row)))
        end
    end
    return found
end

-- Renews leases; answers the ids of those that are lost.
function steps.N()
    local upto, lost = text(now + lease_ms), {}
    for _ = 1, arg() do
        local row, job, id = held()
        if job then
            put('ZADD', leased_key(job[LANE]), upto, row)
        else
            lost[#lost + 1] = id
        end
    end
    return lost
end

-- An attempt begins; the first bytes stay.
function steps.B()
    local row, job = held()
    local bytes = value()
    if not job then return 0 end
    -- Under its first lease there are none yet.
    if job[EPOCH] == '1' and job[BEGUN] == '0' then
        set(rendered_key(row), bytes)
    else
        call('SET', rendered_key(row), bytes, 'NX')
    end
    job[BEGUN] = '1'
    keep(row, job)
    return 1
end

-- Gives a job back without an attempt: nothing was sent under this lease.
function steps.P()
    local row, job = held()
    local due = arg()
    if not job then return 0 end
    job[BEGUN] = '0'
    remove('ZREM', leased_key(job[LANE]), row)
    put_back(row, job, due)
    return 1
end

local ends = {}

-- Done.
function ends.D(row, job)
    forget(row, job)
end

-- Tried again.
function ends.R(row, job, due, rendered)
    set(rendered_key(row), rendered)
    remove('ZREM', WAITED, row)
    job[ATTEMPTS], job[LEASES], job[BEGUN], job[AMBIGUOUS] = text(job[ATTEMPTS] + 1), '0', '0', '0'
    put_back(row, job, due)
end

-- Dead. An attempt that was begun is finished by this.
function ends.X(row, job, _, rendered, reason)
    if rendered then set(rendered_key(row), rendered) end
    put('ZADD', dead_key(job[LANE]), NOW, row)
    remove('ZREM', WAITED, row)
    count_one(job[LANE], -1)
    if job[BEGUN] == '1' then job[ATTEMPTS], job[BEGUN], job[AMBIGUOUS] = text(job[ATTEMPTS] + 1), '0', '0' end
    job[PLACE], job[AT], job[NOTE] = 'x', NOW, reason
    keep(row, job)
end

-- Ends a lease with an outcome, its report, and what it starts; answers like A. 2: that was not taken, as there is no room.
function steps.F()
    local row, job = held()
    local kind, due, reason = three()
    local rendered, told = arg() == 1 and value() or nil, value()
    local new, number = read_new()
    if not job then return 0 end
    remove('ZREM', leased_key(job[LANE]), row)
    ends[kind](row, job, due, rendered, reason)
    push(base .. 'o:' .. me, told)
    if not has_room(new, number) then return 2 end
    return enqueue(new, number)
end

-- What an operator wants (R due now, C cancelled) of a job that nobody works on and nothing happened to since.
function steps.S()
    flush()
    local row, id, epoch, wish = next_row(), three()
    local told, job = value(), jobs[row]
    if not job or job[ID] ~= id or job[EPOCH] ~= epoch then return 0 end
    local place = job[PLACE]
    local can = wish == 'R' and (place == 'd' or place == 'x') or wish == 'C' and (place == 'r' or place == 'd')
    if not can then return 0 end
    push(base .. 'o:' .. me, told)
    if place == 'r' then
        call('LREM', ready_key(job[FLOW], job[ATTEMPTS] ~= '0'), 1, row)
        change(job[FLOW])
    else
        call('ZREM', place == 'd' and delayed_key(job[LANE]) or dead_key(job[LANE]), row)
    end
    if wish == 'C' then
        forget(row, job)
    else
        if place == 'x' then count_one(job[LANE], 1) end
        if job[ATTEMPTS] == '0' then put('ZADD', WAITED, row, row) end
        job[LEASES], job[EPOCH] = '0', text(job[EPOCH] + 1)
        put_back(row, job, now)
    end
    return 1
end

-- Finds a job by its id.
function steps.I()
    flush()
    local row = call('HGET', IDS, arg())
    local job = row and find(row)
    if not job then return false end
    return { row, job[EPOCH], job[PLACE], job[ACCEPTED], call('GET', payload_key(row)), call('GET', rendered_key(row)) }
end

-- Jobs without an attempt after a row, accepted at a time or before; no more than fit, but at least one.
function steps.W()
    flush()
    local after, accepted_before, most = three()
    local room, found = arg(), {}
    local rows = call('ZRANGE', WAITED, '(' .. after, '+inf', 'BYSCORE', 'LIMIT', 0, most)
    read(rows)
    for _, row in ipairs(rows) do
        local job = find(row)
        if tonumber(job[ACCEPTED]) > accepted_before then break end
        local payload = call('GET', payload_key(row))
        room = room - #payload
        if room < 0 and #found > 0 then break end
        found[#found + 1] = { row, job[ID], job[EPOCH], job[PLACE], job[ACCEPTED], job[AT], payload }
    end
    return found
end

-- Reports of this plane after a number; no more than fit, but at least one. None if what follows it is forgotten already.
function steps.O()
    flush()
    local after, rows, room = three()
    local read = {}
    local from = after - tonumber(call('HGET', TRIMMED, me) or 0)
    if from < 0 then return read end
    while rows > #read do
        local chunk = call('LRANGE', base .. 'o:' .. me, from + #read, from + min(#read + 16, rows) - 1)
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
    flush()
    local up_to = arg()
    local key = base .. 'o:' .. me
    local trimmed = tonumber(call('HGET', TRIMMED, me) or 0)
    local number = min(up_to - trimmed, call('LLEN', key))
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
    local flows = { [REALTIME] = arg(), [BULK] = arg() }
    some_are_late = true
    return function()
        flush()
        local counts = {}
        for _, lane in ipairs({ REALTIME, BULK }) do
            for _, key in ipairs({ leased_key(lane), delayed_key(lane), dead_key(lane) }) do
                counts[#counts + 1] = call('ZCARD', key)
            end
            local oldest = now
            for _, flow in ipairs(flows[lane]) do
                for _, tried in ipairs({ false, true }) do
                    local row = call('LINDEX', ready_key(flow, tried), 0)
                    if row then oldest = min(oldest, tonumber(find(row)[AT])) end
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
    flush()
    local away, absent_after, marks = three()
    own(marks, now)
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
    flush()
    for _, lane in ipairs({ REALTIME, BULK }) do
        local rows = call('ZRANGE', leased_key(lane), 0, -1)
        read(rows)
        for _, row in ipairs(rows) do
            if find(row)[NOTE] == me then end_lease(row) end
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
