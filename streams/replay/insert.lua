-- Inserts groups of samples, one group an offset. ARGV[1] (msgpack): epoch, lanes, groups, items; then for each item
-- `digest8 customer8 payload` in one string. group = {topic, partition, offset} or {}; item = {group, ts, lane, numbers,
-- hex digest, events (hex), targets (how many), kind/n, claims (event's number, target, ...), replaces (hex), reason}.
-- Answers one letter an item: i inserted, d duplicate, t tombstoned, e expired, r rejected, - deferred.
local input = cmsgpack.unpack(ARGV[1])
call('HINCRBY', T .. ':n', 'calls', 1) -- denied when memory is full, so nothing has happened then
load()
math.randomseed(N.seq % 2147483647)

local tombs = call('ZCARD', T .. ':tomb') > 0
local lane_ids = {}
for i, name in ipairs(input.lanes) do lane_ids[i] = lane_id(name) end

local items, probes = {}, {}
for i, got in ipairs(input.items) do
  local binary = ARGV[i + 1]
  local item = { group = got[1], ts = got[2], lane = lane_ids[got[3]], numbers = got[4], hex = got[5], events = got[6],
    targets = got[7], kind = got[8], claims = got[9], replaces = got[10], reason = got[11], flags = LIVE,
    digest = string.sub(binary, 1, 8), customer = string.sub(binary, 9, 16), payload = string.sub(binary, 17) }
  if lane_is(item.lane, EXEMPTS) then item.flags = LIVE + EXEMPT end
  item.bucket = bucket_of(item.ts, item.flags)
  item.size = #item.payload + 8
  probes[item.bucket] = probes[item.bucket] or {}
  table.insert(probes[item.bucket], item.digest)
  items[i] = item
end
for bucket, digests in pairs(probes) do
  for i, value in ipairs(call('HMGET', T .. ':d:' .. bucket, unpack(digests))) do
    if value then resident[digests[i]] = true end
  end
end

WINDOW = math.min(64, math.max(WINDOW, #items))

local function usable(numbers)
  for _, x in ipairs(numbers) do
    if type(x) ~= 'number' or x ~= x or x <= 0 or x == math.huge then return false end
  end
  return true
end

-- The record that an item replaces and the mask over its targets; nil when it was refused or is gone. The item goes where
-- that one stands now.
local function replaced(item)
  local digest = string.gsub(item.replaces, '..', function(pair) return string.char(tonumber(pair, 16)) end)
  write_payloads()
  local names = call('HKEYS', T .. ':bk')
  table.insert(names, 1, item.bucket) -- one that this script has made is not among them yet
  for _, bucket in ipairs(names) do
    local value = call('HGET', T .. ':d:' .. bucket, digest)
    if value then
      local slot, mask = unstruct('>I4I4', value)
      local r = record(slot)
      if not (live(r) and r[DIGEST] == digest) then return nil end
      item.lane, item.flags = r[LANE], LIVE + (exempt(r[FLAGS]) and EXEMPT or 0)
      item.bucket = bucket_of(item.ts, item.flags)
      item.notes = r[FLAGS] >= ANNOTATED and call('HGET', T .. ':a:' .. bucket, digest)
      return r, mask
    end
  end
end

local held_by = {}
-- Targets that another sample already trains: a bit mask over the sample's targets, and how many are left.
local function cleared(item)
  local mask, left, mine = 0, item.targets, {}
  for i = 1, #item.claims, 2 do
    local event, bit = item.events[item.claims[i]], 2 ^ item.claims[i + 1]
    local taken
    if item.old then
      taken = floor(item.old_mask / bit) % 2 == 1
    else
      local entry = call('GET', 'led:' .. event)
      local claims = entry and select(5, ledger_split(entry)) or ''
      taken = held_by[event .. item.kind] or claims ~= '' and ledger_holder(claims, item.kind)
    end
    if taken then
      mask = mask + bit
      left = left - 1
    else
      mine[event] = true
    end
  end
  item.mask, item.mine = mask, mine
  return left
end

-- Why an item does not enter: letter and reason; nil when it does.
local function refused(item)
  if item.reason ~= '' then return 'r', item.reason end
  if not usable(item.numbers) then return 'r', 'bad_weight' end
  if item.size > cfg.max_item then return 'r', 'too_big' end
  if tombs and call('ZSCORE', T .. ':tomb', item.customer) then return 't', 'erased' end
  if not exempt(item.flags) and item.ts + cfg.ttl <= cfg.now then return 'e', 'expired' end
  if resident[item.digest] and item.replaces ~= item.hex then return 'd', 'duplicate' end
  if item.replaces ~= '' then
    item.old, item.old_mask = replaced(item)
    if not item.old then return 'd', 'duplicate' end
  end
  if cleared(item) <= 0 then return 'd', 'duplicate' end
end

local pending, pending_all, pending_bytes = {}, 0, 0
-- Makes room for one more item. True when there is; false when this call has evicted enough; nil when there never will be.
local function make_room(item)
  while true do
    local more = (pending[item.lane] or 0) + 1
    local held, quota = contested(item.lane)
    if held + more > quota then
      if held == 0 then return nil end
      if evicted >= LIMIT then return false end
      evict_from(item.lane, true)
    elseif N.n + pending_all + 1 > cfg.cap or N.bytes + pending_bytes + item.size > cfg.max_bytes then
      local lane = fullest()
      if not lane then return nil end
      if evicted >= LIMIT then return false end
      evict_from(lane, false)
    else
      pending[item.lane], pending_all, pending_bytes = more, pending_all + 1, pending_bytes + item.size
      return true
    end
  end
end

local free = N.hi - N.n -- slots that `:free` holds at the start of this call
local function new_slot()
  if next_spare > #spare and free > 0 then
    spare, next_spare = call('RPOP', T .. ':free', WINDOW) or {}, 1
    for i, slot in ipairs(spare) do spare[i] = tonumber(slot) end
    free = free - #spare
  end
  if next_spare <= #spare then
    next_spare = next_spare + 1
    return spare[next_spare - 1]
  end
  local slot = N.hi
  add('hi', 1)
  if slot % PAGE == 0 then call('SETRANGE', T .. ':m:' .. slot / PAGE, PAGE * RECORD - 1, '\0') end
  return slot
end

-- Late labels that lie over the sample which this one replaces go on lying over this one.
local function take_over(item)
  if live(item.old) then remove(item.old, 'ret') end -- making room may have evicted it
  if item.notes then
    local key = T .. ':a:' .. item.bucket
    call('HSET', key, item.digest, item.notes)
    if item.bucket ~= 'x' then call('EXPIREAT', key, (tonumber(item.bucket) + 1) * cfg.bucket + cfg.ttl) end
    item.flags = item.flags + ANNOTATED
  end
end

local function write(item)
  local slot = new_slot()
  add('seq', 1)
  local seq = N.seq % 4294967296
  local r = { item.digest, item.ts, seq, item.customer, item.lane, FRESH, item.flags, 0, item.size, 0, 0, 0, 0, 0, slot, true }
  gather(coming, item.bucket, item.digest, pack('>I4I4', slot, item.mask) .. item.payload)
  place(r, FRESH)
  call('SADD', T .. ':c:' .. item.customer, slot)
  local entry = pack('>I4I4', slot, seq)
  if select(3, lane_rules(item.lane)) ~= LOWEST then enqueue(queued, item.lane, entry) end
  if cfg.recent > 0 then enqueue(ringed, item.lane, entry) end
  buckets[item.bucket] = (buckets[item.bucket] or 0) + 1
  resident[item.digest] = true
  add('n', 1)
  add('bytes', item.size)
  add('ins', 1)
  if not lane_is(item.lane, COUNTED) then add('anchors', 1) end
end

local table_name = string.sub(T, 5, -2)
local function accept(item)
  local holder = item.hex .. ':' .. item.bucket .. ':' .. table_name
  for _, event in ipairs(item.events) do
    ledger_move('led:' .. event, 'accepted', '', 1, item.hex, cfg.ledger_ttl, item.mine[event] and item.kind, holder)
  end
end

local function reject(item, reason)
  for _, event in ipairs(item.events) do ledger_move('led:' .. event, 'rejected', reason, 0, '', cfg.ledger_ttl) end
end

-- Offset bits come in aligned windows of 512, read once and written once, behind everything else.
local windows, latest = {}, { topic = false }
local function window(group)
  local number = floor(group[3] / 512)
  local same = latest.number == number and latest.part == group[2] and latest.topic == group[1]
  local name = not same and group[1] .. ':' .. group[2] .. ':' .. number
  local w = same and latest or windows[name]
  if not w then
    w = { topic = group[1], part = group[2], number = number,
      key = offset_chunk(input.epoch, group[1], group[2], floor(group[3] / 65536)), from = number % 128 * 64 }
    w.bytes = { string.byte(call('GETRANGE', w.key, w.from, w.from + 63), 1, 64) }
    for i = #w.bytes + 1, 64 do w.bytes[i] = 0 end
    windows[name] = w
  end
  latest = w
  return w, floor(group[3] % 512 / 8) + 1, 2 ^ (7 - group[3] % 8)
end

local function is_marked(group)
  local w, at, bit = window(group)
  return floor(w.bytes[at] / bit) % 2 == 1
end

local function mark(group)
  local w, at, bit = window(group)
  w.bytes[at] = w.bytes[at] + bit
  w.first, w.last = math.min(w.first or at, at), math.max(w.last or at, at)
end

local function write_marks()
  for _, w in pairs(windows) do
    if w.first then
      call('SETRANGE', w.key, w.from + w.first - 1, string.char(unpack(w.bytes, w.first, w.last)))
      call('EXPIRE', w.key, cfg.retention)
    end
  end
end

local COUNTER = { d = 'dup', t = 'tomb', e = 'late', r = 'rej' }
local letters = {}

-- Gates, room, writes, ledger. False when the group has to come again.
local function insert_group(group, first, last)
  local again = group[1] and is_marked(group)
  local entering, reasons, mine = {}, {}, {}
  pending, pending_all, pending_bytes, held_by = {}, 0, 0, {}
  for i = first, last do
    local item = items[i]
    if again then
      letters[i] = 'd'
    else
      letters[i], reasons[i] = refused(item)
      if not letters[i] and mine[item.digest] then letters[i], reasons[i] = 'd', 'duplicate' end
      if not letters[i] then
        local room = make_room(item)
        if room == false then return false end
        if room == nil then
          letters[i], reasons[i] = 'r', 'no_room'
        else
          entering[i], mine[item.digest] = true, true
          for event in pairs(item.mine) do held_by[event .. item.kind] = true end
        end
      end
    end
  end
  for i = first, last do
    local item = items[i]
    if entering[i] then
      if item.old then take_over(item) end
      write(item)
      accept(item)
      letters[i] = 'i'
    else
      add(COUNTER[letters[i]], 1)
      if not again then reject(item, reasons[i]) end
    end
  end
  if group[1] and not again then mark(group) end
  return true
end

local first = 1
while first <= #items do
  local last = first
  while last < #items and items[last + 1].group == items[first].group do last = last + 1 end
  if not insert_group(input.groups[items[first].group], first, last) then break end
  first = last + 1
end
for i = first, #items do letters[i] = '-' end
flush()
write_marks()
return { table.concat(letters), evicted, N.n, N.bytes }
