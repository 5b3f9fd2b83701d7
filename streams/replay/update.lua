-- Books one training step. ARGV = run, step, part, then handles of 18 bytes each in one string: slot, seq, digest8, lease,
-- bin. Every digest enters the lineage, stale or not: it was trained on. Answers {applied, stale, evicted}.
call('HDEL', T .. ':n', '-') -- marks the script as writing, so that a full memory does not stop it
load()
local run, step, part, handles = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
math.randomseed((N.seq + step) % 2147483647)

local CHUNK = 1000
local function write_lineage(digests)
  local chunk = floor(step / CHUNK)
  local member = run .. ':' .. chunk
  call('HSETNX', T .. ':lin:' .. member, step .. ':' .. part, table.concat(digests))
  call('ZADD', T .. ':lin', 'NX', chunk * CHUNK, member)
  call('HSETNX', T .. ':runs', run, step)
  local keep = tonumber(call('HGET', T .. ':cfg', 'lineage_steps'))
  while call('ZCARD', T .. ':lin') * CHUNK > keep + CHUNK do
    local old = call('ZPOPMIN', T .. ':lin')
    call('UNLINK', T .. ':lin:' .. old[1])
    call('HSET', T .. ':cfg', 'lineage_from', tonumber(old[2]) + CHUNK)
  end
end

local moving, goal = {}, {} -- records that are in no bin, and slot -> the bin that they go to
-- All leave their bins before any enters: those that come fill the holes of those that went.
local function put_down()
  for _, r in ipairs(moving) do enter(r, goal[r[SLOT]]) end
  moving, goal = {}, {}
end

-- Algorithm R, decided when an item is trained for the first time: it may displace a trained one, or go itself.
local function reservoir_keeps(r)
  local quota, _, policy = lane_rules(r[LANE])
  if policy ~= RESERVOIR then return true end
  put_down()
  local seen = call('HINCRBY', T .. ':seen', r[LANE], 1)
  if lane_get(r[LANE], TOTAL) - lane_get(r[LANE], UNTRAINED) < quota then return true end
  if math.random(seen) > quota then return false end
  local out = random_trained(r[LANE])
  if out then evict(out) end
  return out ~= nil
end

local trainings = 0
-- Counts the step on an item and in its lane, which from now on counts it in `stays` or in the bin that is answered: the
-- one that it belongs into.
local function book(r, bin, stays)
  local from, new, at = goal[r[SLOT]] or r[BIN], r[TIMES] == 0, r[LANE] * LANE_U32
  if new then
    r[FIRST] = step
    lanes[at + UNTRAINED] = lanes[at + UNTRAINED] - 1
  end
  if new or r[LAST] < step then
    r[LAST] = step
    r[TIMES] = math.min(r[TIMES] + 1, 65535)
    trainings = trainings + 1
  end
  if cfg.max_sampled > 0 and r[TIMES] >= cfg.max_sampled then bin = SPENT end
  if from == FRESH then
    lanes[at + NEW] = lanes[at + NEW] - 1
  elseif from < LEASED then
    lanes[at + SCORED] = lanes[at + SCORED] - 1
  end
  if (stays or bin) < LEASED then lanes[at + SCORED] = lanes[at + SCORED] + 1 end
  lane_dirty[r[LANE]] = true
  return bin
end

-- Sends an item to its bin; one that stays where it is keeps its place.
local function send(r, bin)
  local slot = r[SLOT]
  if bin ~= r[BIN] and not goal[slot] then
    leave(r)
    moving[#moving + 1] = r
  end
  if bin ~= r[BIN] or goal[slot] then goal[slot] = bin end
  store(r)
end

local function train(r, bin, token)
  local new, held = r[TIMES] == 0, r[BIN] == LEASED and not goal[r[SLOT]]
  if new and not reservoir_keeps(r) then
    fold(r[CUST], step, step, 1)
    evict(r)
  elseif held and r[TOKEN] ~= token then -- another holder's lease stands: the item waits there for its new bin
    r[PREV] = book(r, bin, LEASED)
    store(r)
  else
    if held then unleased[#unleased + 1] = r[SLOT] end
    send(r, book(r, bin))
  end
  return new
end

local applied, stale, first_time, digests = 0, 0, {}, {}
for at = 1, #handles, 18 do
  local slot, seq, digest, token, bin = unstruct('>I4I4c8BB', handles, at)
  if bin < 1 or bin > 62 then error('a priority bin must be 1 to 62') end
  digests[#digests + 1] = digest
  local r = record(slot)
  if live(r, seq) and r[DIGEST] == digest then
    if train(r, bin, token) then first_time[#first_time + 1] = digest end
    applied = applied + 1
  else
    first_time[#first_time + 1] = digest
    stale = stale + 1
  end
end
put_down()
write_lineage(digests)
if trainings > 0 then call('HINCRBY', T .. ':n', 'trn', trainings) end
if #first_time > 0 then
  local key = T .. ':tr:' .. floor(cfg.now / 86400)
  call('SADD', key, unpack(first_time))
  call('EXPIRE', key, cfg.ledger_ttl)
  if stale > 0 then call('HINCRBY', T .. ':n', 'stale', stale) end
end
flush()
return { applied, stale, evicted }
