-- One step of one plane on one shard: whatever it asks together, then what became so with time alone. All of it or
-- nothing is in the append-only file, and one flush pays for it.

-- Those of a set whose time has come, the first so many.
local function due(key, upto)
    local rows = call('ZRANGE', key, '-inf', upto, 'BYSCORE', 'LIMIT', '0', BATCH)
    read(rows)
    return rows
end

-- Leases that ran out and jobs that are due are ready.
local function wake_up()
    for _, lane in ipairs({ REALTIME, BULK }) do
        for _, row in ipairs(due(leased_key(lane), NOW)) do end_lease(row) end
        for _, row in ipairs(due(delayed_key(lane), NOW)) do
            local job = find(row)
            job[PLACE] = 'r'
            make_ready(row, job)
            keep(row, job)
            remove('ZREM', delayed_key(lane), row)
        end
    end
    flush()
end

-- The dead whose time is over are forgotten.
local function bury()
    for _, lane in ipairs({ REALTIME, BULK }) do
        for _, row in ipairs(due(dead_key(lane), text(now - dead_ms))) do
            forget(row, find(row))
            remove('ZREM', dead_key(lane), row)
        end
    end
    flush()
end

-- When something becomes ready next without anybody's help; 0 when nothing does.
local function next_at()
    local at = 0
    for _, key in ipairs({ leased_key(REALTIME), leased_key(BULK), delayed_key(REALTIME), delayed_key(BULK) }) do
        local first = tonumber(call('ZRANGE', key, '0', '0', 'WITHSCORES')[2] or 0)
        if first > 0 and (at == 0 or first < at) then at = first end
    end
    return at
end

local function news(version, at)
    local flows = {}
    for flow in pairs(changed) do
        local waiting = { call('LLEN', ready_key(flow, false)), call('LLEN', ready_key(flow, true)) }
        flows[#flows + 1] = { tonumber(flow), waiting[1], waiting[2], call('HGET', NAMES, flow) or '' }
    end
    if #flows == 0 then return '' end
    return cjson.encode({ version = version, next_at = at, flows = flows })
end

-- Arguments: those of plane.lua, then letters of steps.lua with theirs.
local function step(keys, given)
    begin(keys, given)
    read_plane()
    nothing_waits()
    nothing_is_known()
    local known = call('HMGET', META, 'store', 'changes')
    if known[1] ~= store then return redis.error_reply('STORECHANGED the store is not the one it was') end
    if tonumber(known[2]) < seen then return redis.error_reply('STORECHANGED the store is older than it was') end
    if call('HGET', PLANES, me) ~= opened then return redis.error_reply('SUPERSEDED the plane was opened elsewhere') end

    local answers, number = {}, 0
    some_are_late = false
    read(asked_rows)
    read_claims()
    local last = #words
    while word_at < last do
        number = number + 1
        answers[number] = steps[arg()]()
    end
    flush()
    local at = next_at()
    if at ~= 0 and at <= now then
        wake_up()
        at = next_at()
    end
    bury()
    for n = 1, some_are_late and number or 0 do
        if type(answers[n]) == 'function' then answers[n] = answers[n]() end
    end
    local version = tonumber(known[2])
    if touched then version = call('HINCRBY', META, 'changes', '1') end
    local told = news(version, at)
    if touched or soonest == at then
        call('PUBLISH', base .. 'news', told ~= '' and told or cjson.encode({ version = version, next_at = at }))
    end
    local trimmed = tonumber(call('HGET', TRIMMED, me) or 0)
    return { now, version, at, trimmed, trimmed + call('LLEN', base .. 'o:' .. me), told, answers }
end
