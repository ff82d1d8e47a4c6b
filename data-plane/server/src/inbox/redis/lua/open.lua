-- Whose jobs are read as well, see jobs.lua.
local FIRST_LAYOUT = '1'

-- One that has no mark yet, or a plane that says none, is anybody's.
local function is_ours(marks)
    if #marks == 0 or call('EXISTS', OWNERS) == 0 then return true end
    for _, mark in ipairs(marks) do
        if call('ZSCORE', OWNERS, mark) then return true end
    end
    return false
end

-- Opens a shard of the store for a plane, making it if it is not there. Nothing is changed when it is another's.
--
-- Arguments: the time if the caller brings it, layout, shards, the id a new store gets, plane, how long a plane that is gone is
-- remembered, 1 when the plane starts (0: it comes back), and the marks of its installation. Answers layout, shards, id, how often the
-- plane was opened, and 1 when the store is its installation's.
local function open(keys, given)
    begin(keys, given)
    local now = time(arg())
    local layout, shards, fresh = three()
    local me, remembered = two()
    local starts, marks = arg() == 1, arg()
    local found = call('HMGET', META, 'layout', 'shards', 'store')
    if not found[1] then
        call('HSET', META, 'layout', layout, 'shards', shards, 'store', fresh, 'changes', 0)
        found = { layout, shards, fresh }
    elseif found[1] ~= layout and found[1] ~= FIRST_LAYOUT or found[2] ~= shards then
        return { found[1], found[2], found[3], 0, 1 }
    elseif not is_ours(marks) then
        return { found[1], found[2], found[3], 0, 0 }
    elseif found[1] == FIRST_LAYOUT then
        -- Jobs are rewritten when they are next changed. A plane of a build that does not know this layout finds no number of its news any
        -- more, and is refused before it writes anything.
        call('HSET', META, 'layout', layout, 'changes', call('HGET', META, 'version'))
        call('HDEL', META, 'version')
        found[1] = layout
    end
    own(marks, now)
    call('HSET', IDS, NO_ID, '')
    if starts then
        -- Flows of which no job is kept.
        local uses = call('HGETALL', USES)
        for n = 1, #uses, 2 do
            if uses[n + 1] == '0' then
                call('HDEL', FLOWS, call('HGET', NAMES, uses[n]))
                call('HDEL', NAMES, uses[n])
                call('HDEL', USES, uses[n])
            end
        end
        for _, plane in ipairs(call('ZRANGE', GONE, '-inf', now - remembered, 'BYSCORE')) do
            call('HDEL', PLANES, plane)
            call('HDEL', TRIMMED, plane)
            call('ZREM', GONE, plane)
        end
        call('HINCRBY', PLANES, me, 1)
        call('ZADD', SEEN, now, me)
        call('ZREM', GONE, me)
    end
    return { found[1], found[2], found[3], tonumber(call('HGET', PLANES, me) or 0), 1 }
end
