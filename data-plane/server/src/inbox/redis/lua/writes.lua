-- Writes that wait until the step is over, or until somebody reads what they change: what many jobs do to one key, or to keys of one
-- kind, is one command then. Additions come first: within a step nothing comes back under a name that went.

-- A shard that is moving lets nobody name several keys of which one is not there.
local function keys_at_once() return is_moving and 1 or 500 end
-- Arguments of one command; an even number, so that pairs stay together.
local AT_ONCE = 1000

local sets, set_count, deletions, deletion_count, additions, removals, sums
-- Dedup keys: key, what is to be under it, and for how long, one after the other.
local claims, claim_count

local function nothing_waits()
    sets, set_count, deletions, deletion_count, additions, removals, sums = {}, 0, {}, 0, {}, {}, {}
    claims, claim_count = {}, 0
end

local function set(key, value)
    local count = set_count
    sets[count + 1], sets[count + 2] = key, value
    set_count = count + 2
end

local function delete(key)
    local count = deletion_count + 1
    deletions[count], deletion_count = key, count
end

-- What is done to a key: the command, and how many arguments it has by now.
local function batch(all, key, command)
    local new = { command = command, count = 0 }
    all[key] = new
    return new
end

-- RPUSH of a value.
local function push(key, value)
    local of = additions[key] or batch(additions, key, 'RPUSH')
    local count = of.count + 1
    of[count], of.count = value, count
end

-- ZADD of a score and a member, or HSET of a field and a value.
local function put(command, key, first, second)
    local of = additions[key] or batch(additions, key, command)
    local count = of.count
    of[count + 1], of[count + 2] = first, second
    of.count = count + 2
end

-- ZREM or HDEL of a member.
local function remove(command, key, member)
    local of = removals[key] or batch(removals, key, command)
    local count = of.count + 1
    of[count], of.count = member, count
end

-- Adds to a number in a hash.
local function sum(key, field, by)
    local of = sums[key] or {}
    sums[key] = of
    of[field] = (of[field] or 0) + by
end

-- What is under those that are asked about.
local claimed

local function claim(key, value, window)
    claimed[key] = value
    claims[claim_count + 1], claims[claim_count + 2], claims[claim_count + 3] = key, value, window
    claim_count = claim_count + 3
end

-- Members that come together, from which on it pays that their set is no list: it stays none until it is empty.
local MANY = 32

local function write(all)
    for key, of in pairs(all) do
        if of.command == 'ZADD' and of.count >= 2 * MANY then
            call('ZADD', key, '0', LONG, of[1], of[2])
            call('ZREM', key, LONG)
        end
        for from = 1, of.count, AT_ONCE do
            call(of.command, key, unpack(of, from, min(from + AT_ONCE - 1, of.count)))
        end
    end
end

local function is_written()
    return set_count + deletion_count + claim_count == 0 and not (next(additions) or next(removals) or next(sums))
end

local function write_all()
    if is_written() then return end
    local at_once = keys_at_once()
    for from = 1, set_count, 2 * at_once do
        call('MSET', unpack(sets, from, min(from + 2 * at_once - 1, set_count)))
    end
    write(additions)
    write(removals)
    for from = 1, deletion_count, at_once do
        call('DEL', unpack(deletions, from, min(from + at_once - 1, deletion_count)))
    end
    for key, of in pairs(sums) do
        for field, by in pairs(of) do
            if by ~= 0 then call('HINCRBY', key, field, by) end
        end
    end
    -- Behind the jobs: what ends a step in the middle must not leave a key whose jobs are not there.
    for n = 1, claim_count, 3 do call('SET', claims[n], claims[n + 1], 'PX', claims[n + 2]) end
    nothing_waits()
end

-- The values of so many keys, false where there is none.
local function get_all(keys, number)
    local at_once = keys_at_once()
    if number <= at_once then return number > 0 and call('MGET', unpack(keys, 1, number)) or {} end
    local values = {}
    for from = 1, number, at_once do
        local part = call('MGET', unpack(keys, from, min(from + at_once - 1, number)))
        for n = 1, #part do values[from + n - 1] = part[n] end
    end
    return values
end

local function read_claims()
    claimed = {}
    local number = #asked_keys
    for n = 1, number do asked_keys[n] = base .. asked_keys[n] end
    local values = get_all(asked_keys, number)
    for n = 1, number do claimed[asked_keys[n]] = values[n] end
end
