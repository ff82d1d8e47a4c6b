-- Opens a shard of the store for a plane, making it if it is not there. Nothing is changed when it is another's.
--
-- Arguments: the time if the caller brings it, layout, shards, the id a new store gets, plane, how long a plane that is gone is
-- remembered, and 1 when the plane starts (0: it comes back). Answers layout, shards, id, and how often the plane was opened.
local now = time(arg())
local layout, shards, fresh, me = arg(), arg(), arg(), arg()
local remembered, starts = int(), arg() == '1'

local found = call('HMGET', META, 'layout', 'shards', 'store')
if not found[1] then
    call('HSET', META, 'layout', layout, 'shards', shards, 'store', fresh, 'version', 0)
    found = { layout, shards, fresh }
elseif found[1] ~= layout or found[2] ~= shards then
    return { found[1], found[2], found[3], 0 }
end
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
return { found[1], found[2], found[3], tonumber(call('HGET', PLANES, me) or 0) }
