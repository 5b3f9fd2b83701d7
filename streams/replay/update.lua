-- Books one training step. ARGV = run, step, part, then handles of 17 bytes each in one string: slot, seq, digest8, bin.
-- Every digest enters the lineage, stale or not: it was trained on. Answers {applied, stale, evicted}.
redis.call('HDEL', T .. ':n', '-') -- marks the script as writing, so that a full memory does not stop it
load()
local input = { run = ARGV[1], step = tonumber(ARGV[2]), part = ARGV[3], handles = {} }
for at = 1, #ARGV[4], 17 do
  local slot, seq, digest, bin = struct.unpack('>I4I4c8B', ARGV[4], at)
  if bin < 1 or bin > 62 then error('a priority bin must be 1 to 62') end
  table.insert(input.handles, { slot, seq, digest, bin })
end
math.randomseed((N.seq + input.step) % 2147483647)

local CHUNK = 1000
local function write_lineage()
  local digests = {}
  for i, handle in ipairs(input.handles) do digests[i] = handle[3] end
  local chunk = math.floor(input.step / CHUNK)
  local member = input.run .. ':' .. chunk
  redis.call('HSETNX', T .. ':lin:' .. member, input.step .. ':' .. input.part, table.concat(digests))
  redis.call('ZADD', T .. ':lin', 'NX', chunk * CHUNK, member)
  redis.call('HSETNX', T .. ':runs', input.run, input.step)
  local keep = tonumber(redis.call('HGET', T .. ':cfg', 'lineage_steps'))
  while redis.call('ZCARD', T .. ':lin') * CHUNK > keep + CHUNK do
    local old = redis.call('ZPOPMIN', T .. ':lin')
    redis.call('UNLINK', T .. ':lin:' .. old[1])
    redis.call('HSET', T .. ':cfg', 'lineage_from', tonumber(old[2]) + CHUNK)
  end
end

-- Algorithm R, decided when an item is trained for the first time: it may displace a trained one, or go itself.
local function reservoir_keeps(r)
  local quota, _, policy = lane_rules(r.lane)
  if policy ~= RESERVOIR then return true end
  local seen = redis.call('HINCRBY', T .. ':seen', r.lane, 1)
  if lane_get(r.lane, TOTAL) - lane_get(r.lane, UNTRAINED) < quota then return true end
  if math.random(seen) > quota then return false end
  local out = random_trained(r.lane)
  if out then evict(out) end
  return out ~= nil
end

local function train(r, bin)
  local new = r.times == 0
  if r.bin == LEASED then redis.call('ZREM', T .. ':ls', r.slot) end
  if new and not reservoir_keeps(r) then
    fold({ cust = r.cust, first = input.step, last = input.step, times = 1 })
    evict(r)
    return new
  end
  take(r)
  if new or r.last < input.step then
    r.first = new and input.step or r.first
    r.last = input.step
    r.times = math.min(r.times + 1, 65535)
  end
  if cfg.max_sampled > 0 and r.times >= cfg.max_sampled then bin = SPENT end
  place(r, bin)
  return new
end

write_lineage()
local applied, stale, first_time = 0, 0, {}
for _, handle in ipairs(input.handles) do
  local r = record(handle[1])
  if live(r, handle[2]) and r.digest == handle[3] then
    if train(r, handle[4]) then first_time[#first_time + 1] = handle[3] end
    applied = applied + 1
  else
    first_time[#first_time + 1] = handle[3]
    stale = stale + 1
  end
end
if #first_time > 0 then
  local key = T .. ':tr:' .. math.floor(cfg.now / 86400)
  redis.call('SADD', key, unpack(first_time))
  redis.call('EXPIRE', key, cfg.ledger_ttl)
  redis.call('HINCRBY', T .. ':n', 'stale', stale)
end
flush()
return { applied, stale, evicted }
