-- Books one training step. ARGV = run, step, part, then of each handle digest8, slot u32, seq u32, lease u8 and bin u8, a
-- string for each. Every digest enters the lineage, stale or not: it was trained on. Answers {applied, stale, evicted}.
call('HDEL', T .. ':n', '-') -- marks the script as writing, so that a full memory does not stop it
load()
local run, step, part, digests = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local slots, seqs = unpack_u32(ARGV[5]), unpack_u32(ARGV[6])
local tokens, goals = { string.byte(ARGV[7], 1, -1) }, { string.byte(ARGV[8], 1, -1) }
math.randomseed((N.seq + step) % 2147483647)

local CHUNK = 1000
local function write_lineage()
  local chunk = floor(step / CHUNK)
  local member = run .. ':' .. chunk
  call('HSETNX', T .. ':lin:' .. member, step .. ':' .. part, digests)
  call('ZADD', T .. ':lin', 'NX', chunk * CHUNK, member)
  call('HSETNX', T .. ':runs', run, step)
  local keep = tonumber(call('HGET', T .. ':cfg', 'lineage_steps'))
  while call('ZCARD', T .. ':lin') * CHUNK > keep + CHUNK do
    local old = call('ZPOPMIN', T .. ':lin')
    call('UNLINK', T .. ':lin:' .. old[1])
    call('HSET', T .. ':cfg', 'lineage_from', tonumber(old[2]) + CHUNK)
  end
end

local moving = {} -- records that have left their bin, without position, and name the one that they go to
-- All leave their bins before any enters: those that come fill the holes of those that went.
local function put_down()
  for _, r in ipairs(moving) do enter(r, r[BIN]) end
  moving = {}
end

-- Sends a record to a bin; one that is there already keeps its place.
local function send(r, bin)
  if r[POS] then
    if r[BIN] == bin then return store(r) end
    leave(r)
    moving[#moving + 1] = r
    r[POS] = false
  end
  r[BIN] = bin
end

local keeps_all = {} -- lanes without a reservoir
-- Algorithm R, decided when an item is trained for the first time: it may displace a trained one, or go itself.
local function reservoir_keeps(r)
  local lane = r[LANE]
  local quota, _, policy = lane_rules(lane)
  if policy ~= RESERVOIR then
    keeps_all[lane] = true
    return true
  end
  put_down()
  local seen = call('HINCRBY', T .. ':seen', lane, 1)
  if lane_get(lane, TOTAL) - lane_get(lane, UNTRAINED) < quota then return true end
  if math.random(seen) > quota then return false end
  local out = random_trained(lane)
  if out then evict(out) end
  return out ~= nil
end

local trainings, most = 0, cfg.max_sampled > 0 and cfg.max_sampled or math.huge
-- Counts the step on an item that goes to `bin` or, trained often enough, to the spent ones. Under another holder's lease
-- it waits for that there.
local function train(r, bin, token)
  local from, times, at = r[BIN], r[TIMES], r[LANE] * LANE_U32
  if times == 0 then
    r[FIRST] = step
    lanes[at + UNTRAINED] = lanes[at + UNTRAINED] - 1
  end
  if times == 0 or r[LAST] < step then
    times = times < 65535 and times + 1 or times
    r[LAST], r[TIMES] = step, times
    trainings = trainings + 1
  end
  if times >= most then bin = SPENT end
  lane_dirty[r[LANE]] = true
  if from == LEASED then
    if r[TOKEN] ~= token then
      r[PREV] = bin
      return store(r)
    end
    unleased[#unleased + 1] = r[SLOT]
  elseif from == FRESH then
    lanes[at + NEW] = lanes[at + NEW] - 1
  elseif from < LEASED then
    lanes[at + SCORED] = lanes[at + SCORED] - 1
  end
  if bin < LEASED then lanes[at + SCORED] = lanes[at + SCORED] + 1 end
  send(r, bin)
end

local stale, first_time = 0, {}
for i, slot in ipairs(slots) do
  local r, bin, digest = records[slot] or record(slot), goals[i], string.sub(digests, i * 8 - 7, i * 8)
  if bin < 1 or bin > 62 then error('a priority bin must be 1 to 62') end
  if live(r, seqs[i]) and r[DIGEST] == digest then
    local new = r[TIMES] == 0
    if new then first_time[#first_time + 1] = digest end
    if new and not keeps_all[r[LANE]] and not reservoir_keeps(r) then
      fold(r[CUST], step, step, 1)
      evict(r)
    else
      train(r, bin, tokens[i])
    end
  else
    first_time[#first_time + 1] = digest
    stale = stale + 1
  end
end
put_down()
write_lineage()
if trainings > 0 then call('HINCRBY', T .. ':n', 'trn', trainings) end
if #first_time > 0 then
  local key = T .. ':tr:' .. floor(cfg.now / 86400)
  call('SADD', key, unpack(first_time))
  call('EXPIRE', key, cfg.ledger_ttl)
  if stale > 0 then call('HINCRBY', T .. ':n', 'stale', stale) end
end
flush()
return { #slots - stale, stale, evicted }
