-- Inserts groups of samples, one group an offset. ARGV[1] (msgpack): epoch, lanes, groups, items; then for each item
-- `digest8 customer8 payload` in one string. group = {topic, partition, offset} or {}; item = {group, ts, lane, numbers,
-- events (hex), targets (how many), claims = {{event (hex), kind/n, target}, ...}, replaces (hex), reason}.
-- Answers one letter an item: i inserted, d duplicate, t tombstoned, e expired, r rejected, - deferred.
local input = cmsgpack.unpack(ARGV[1])
redis.call('HINCRBY', T .. ':n', 'calls', 1) -- denied when memory is full, so nothing has happened then
load()
for i, item in ipairs(input.items) do
  local binary = ARGV[i + 1]
  item.digest, item.customer, item.payload = string.sub(binary, 1, 8), string.sub(binary, 9, 16), string.sub(binary, 17)
end
math.randomseed(N.seq % 2147483647)

local function hex(raw)
  return (string.gsub(raw, '.', function(c) return string.format('%02x', string.byte(c)) end))
end

local function usable(numbers)
  for _, x in ipairs(numbers) do
    if type(x) ~= 'number' or x ~= x or x <= 0 or x == math.huge then return false end
  end
  return true
end

local held_by = {}
-- Targets that another sample already trains: a bit mask over the sample's targets, and how many are left.
local function cleared(item)
  local mask, left = 0, item.targets
  for i, claim in ipairs(item.claims) do
    local holder = redis.call('HGET', '{rb:src}:t:' .. claim[1], claim[2])
    if (holder or held_by[claim[1] .. claim[2]]) and item.replaces == '' then
      mask = mask + 2 ^ claim[3]
      left = left - 1
      item.claims[i][4] = true
    end
  end
  return mask, left
end

local tombs = redis.call('ZCARD', T .. ':tomb') > 0
local seen_here = {}
-- Why an item does not enter: letter and reason; nil when it does.
local function refused(item)
  if item.reason ~= '' then return 'r', item.reason end
  if not usable(item.numbers) then return 'r', 'bad_weight' end
  if #item.payload + 8 > cfg.max_item then return 'r', 'too_big' end
  if tombs and redis.call('ZSCORE', T .. ':tomb', item.customer) then return 't', 'erased' end
  local exempt = lane_is(item.lane, EXEMPTS)
  item.flags = LIVE + (exempt and EXEMPT or 0)
  if not exempt and item.ts + cfg.ttl <= cfg.now then return 'e', 'expired' end
  item.bucket = bucket_of(item.ts, item.flags)
  local again = seen_here[item.digest] or redis.call('HEXISTS', T .. ':d:' .. item.bucket, item.digest) == 1
  if again and item.replaces ~= hex(item.digest) then return 'd', 'duplicate' end
  local left
  item.mask, left = cleared(item)
  if left <= 0 then return 'd', 'duplicate' end
end

local pending, pending_all, pending_bytes = {}, 0, 0
-- Makes room for one more item. True when there is; false when this call has evicted enough; nil when there never will be.
local function make_room(item)
  local size = #item.payload + 8
  while true do
    local more = (pending[item.lane] or 0) + 1
    local held, quota = contested(item.lane)
    if held + more > quota then
      if held == 0 then return nil end
      if evicted >= LIMIT then return false end
      evict_from(item.lane, true)
    elseif N.n + pending_all + 1 > cfg.cap or N.bytes + pending_bytes + size > cfg.max_bytes then
      local lane = fullest()
      if not lane then return nil end
      if evicted >= LIMIT then return false end
      evict_from(lane, false)
    else
      pending[item.lane], pending_all, pending_bytes = more, pending_all + 1, pending_bytes + size
      return true
    end
  end
end

local free = N.hi - N.n -- slots that `:free` holds at the start of this call
local function new_slot()
  if #spare > 0 then return table.remove(spare) end
  local slot = free > 0 and redis.call('RPOP', T .. ':free')
  free = free - 1
  if slot then return tonumber(slot) end
  slot = N.hi
  add('hi', 1)
  if slot % PAGE == 0 then redis.call('SETRANGE', T .. ':m:' .. slot / PAGE, PAGE * RECORD - 1, '\0') end
  return slot
end

local function retire_replaced(hex)
  local digest = string.gsub(hex, '..', function(pair) return string.char(tonumber(pair, 16)) end)
  for _, bucket in ipairs(redis.call('HKEYS', T .. ':bk')) do
    local value = redis.call('HGET', T .. ':d:' .. bucket, digest)
    if value then
      local r = record((struct.unpack('>I4', value)))
      if live(r) and r.digest == digest then remove(r, 'ret') end
      return
    end
  end
end

local expiring = {}
local function write(item)
  local slot = new_slot()
  add('seq', 1)
  local r = { slot = slot, digest = item.digest, ts = item.ts, seq = N.seq % 4294967296, cust = item.customer, lane = item.lane,
    flags = item.flags, bytes = #item.payload + 8, times = 0, prev = 0, first = 0, last = 0 }
  redis.call('HSET', T .. ':d:' .. item.bucket, item.digest, struct.pack('>I4I4', slot, item.mask) .. item.payload)
  if item.bucket ~= 'x' and not expiring[item.bucket] then
    expiring[item.bucket] = true
    redis.call('EXPIREAT', T .. ':d:' .. item.bucket, (math.floor(item.ts / cfg.bucket) + 1) * cfg.bucket + cfg.ttl)
  end
  place(r, FRESH)
  redis.call('SADD', T .. ':c:' .. item.customer, slot)
  local entry = struct.pack('>I4I4', slot, r.seq)
  if select(3, lane_rules(item.lane)) ~= LOWEST then enqueue(queued, item.lane, entry) end
  if cfg.recent > 0 then enqueue(ringed, item.lane, entry) end
  for _, claim in ipairs(item.claims) do
    if not claim[4] then
      local key = '{rb:src}:t:' .. claim[1]
      redis.call('HSET', key, claim[2], item.digest .. item.bucket .. '|' .. T)
      redis.call('EXPIRE', key, cfg.ledger_ttl)
    end
  end
  buckets[item.bucket] = (buckets[item.bucket] or 0) + 1
  add('n', 1)
  add('bytes', r.bytes)
  add('ins', 1)
  if not lane_is(item.lane, COUNTED) then add('anchors', 1) end
end

local function file(item, outcome, reason)
  local sample = outcome == 'accepted' and hex(item.digest) or ''
  local effects = outcome == 'accepted' and 1 or 0
  for _, event in ipairs(item.events) do ledger_move('led:' .. event, outcome, reason, effects, sample, cfg.ledger_ttl) end
end

local COUNTER = { d = 'dup', t = 'tomb', e = 'late', r = 'rej' }
local letters = {}

local ids = {}
-- Gates, room, writes, ledger, and last of all the offset's bit. False when the group has to come again.
local function insert_group(group, first, last)
  local bit_set = group[1] and offset_seen(input.epoch, group[1], group[2], group[3])
  local entering, reasons = {}, {}
  pending, pending_all, pending_bytes, seen_here, held_by = {}, 0, 0, {}, {}
  for i = first, last do
    local item = input.items[i]
    if bit_set then
      letters[i] = 'd'
    else
      local name = input.lanes[item.lane]
      ids[name] = ids[name] or lane_id(name)
      item.lane = ids[name]
      letters[i], reasons[i] = refused(item)
      if not letters[i] then
        local room = make_room(item)
        if room == false then return false end
        if room == nil then
          letters[i], reasons[i] = 'r', 'no_room'
        else
          entering[i], seen_here[item.digest] = true, true
          for _, claim in ipairs(item.claims) do held_by[claim[1] .. claim[2]] = true end
        end
      end
    end
  end
  for i = first, last do
    local item = input.items[i]
    if entering[i] then
      if item.replaces ~= '' then retire_replaced(item.replaces) end
      write(item)
      file(item, 'accepted', '')
      letters[i] = 'i'
    else
      add(COUNTER[letters[i]], 1)
      if not bit_set then file(item, 'rejected', reasons[i]) end
    end
  end
  if group[1] and not bit_set then offset_mark(input.epoch, group[1], group[2], group[3], cfg.retention) end
  return true
end

local first = 1
while first <= #input.items do
  local last = first
  while last < #input.items and input.items[last + 1].group == input.items[first].group do last = last + 1 end
  if not insert_group(input.groups[input.items[first].group], first, last) then break end
  first = last + 1
end
for i = first, #input.items do letters[i] = '-' end
flush()
return { table.concat(letters), evicted, N.n, N.bytes }
