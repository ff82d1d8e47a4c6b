-- Limits that all planes keep together. Fields of `l:<name>`:
--   c      what is left of its rate, in millionths of a request: `n` requests per second bring `n` of them each microsecond, so that
--          nothing is rounded away
--   at     when that was so, in microseconds
--   full   when nothing was missing of it last, in microseconds
--   p:<plane>  how many of its requests at once that plane has, and until when that is believed: one that died says no more
local REQUEST = 1000000

local micros
local function read_time()
    micros = now * 1000
    if is_time_given then return end
    local t = call('TIME')
    micros = t[1] * 1000000 + t[2]
end

-- What other planes have under way.
local function others(key)
    local sum, fields = 0, call('HGETALL', key)
    for n = 1, #fields, 2 do
        local count, until_when = string.match(fields[n + 1], '^(%d+):(%d+)$')
        if count and fields[n] ~= 'p:' .. me then
            if tonumber(until_when) > now then
                sum = sum + count
            else
                call('HDEL', key, fields[n])
            end
        end
    end
    return sum
end

-- What is left of a rate now, and when it was full last; all of it where nothing was taken lately. What was given at a time or later
-- and is given back counts unless it was full in between: then the time has brought it already.
local function credit(key, rate, full, back, since)
    local left, at, full_at = unpack(call('HMGET', key, 'c', 'at', 'full'))
    if not left then return full, micros end
    local came = math.max(0, micros - tonumber(at))
    if came >= full / rate then return full, micros end
    left, full_at = tonumber(left) + came * rate, tonumber(full_at)
    if left < full and since >= full_at then left = left + back end
    if left < full then return left, full_at end
    return full, micros
end

-- Of each limit that is named: its rate and burst (0: none), its requests at once (-1: no limit), how many of these this plane has
-- under way, how many that it was given at a time or later it gives back, and how many it wants. Answers how many it gets, what is
-- left of the rate then, and when that is.
function steps.G()
    local answers = {}
    read_time()
    for _ = 1, arg() do
        local key = base .. 'l:' .. arg()
        local rate, full, most = three()
        local in_use, back = two()
        local since, given = two()
        local left, full_at, keep_ms = 0, 0, 0
        full, back = full * REQUEST, back * REQUEST
        if most >= 0 then given = math.min(given, math.max(0, most - others(key) - in_use)) end
        if rate > 0 then
            left, full_at = credit(key, rate, full, back, since)
            given = math.min(given, math.floor(left / REQUEST))
            left = left - given * REQUEST
            call('HSET', key, 'c', text(left), 'at', text(micros), 'full', text(full_at))
            -- Then it is full again, and no limit that need be remembered.
            keep_ms = math.ceil((full - left) / rate / 1000)
        end
        if most >= 0 then
            if in_use + given > 0 then
                call('HSET', key, 'p:' .. me, in_use + given .. ':' .. text(now + lease_ms))
            else
                call('HDEL', key, 'p:' .. me)
            end
            keep_ms = math.max(keep_ms, lease_ms)
        end
        if not is_time_given then call('PEXPIRE', key, keep_ms + 1) end
        answers[#answers + 1] = given
        answers[#answers + 1] = left
        answers[#answers + 1] = micros
    end
    return answers
end
