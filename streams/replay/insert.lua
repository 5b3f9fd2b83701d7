-- Inserts groups of samples, one group an offset. ARGV[1] (msgpack): epoch, lanes, groups = {topic, partition, offset}
-- or {}, and a column for each thing to know of the items: group, ts, lane, least and most (of priority and weights),
-- hex (of the digest), events (keys of their ledger entries), targets (how many), kind (kind/n), claims (number of an
-- event and of the target that is its reply, one after the other), replaces (hex), reason. ARGV[2]: `digest8 customer8` of each item
-- in one string; then each item's payload. Answers one letter an item: i inserted, d duplicate, t tombstoned, e expired,
-- r rejected, - deferred.
local item = cmsgpack.unpack(ARGV[1])
call('HINCRBY', T .. ':n', 'calls', 1) -- denied when memory is full, so nothing has happened then
load()
math.randomseed(N.seq % 2147483647)

local items = #item.ts
for _, more in ipairs({ 'digest', 'customer', 'flags', 'bucket', 'size', 'old', 'old_mask', 'mask', 'mine', 'notes' }) do
  item[more] = {}
end

local tombs = call('ZCARD', T .. ':tomb') > 0
local lane_ids = {}
for i, name in ipairs(item.lanes) do lane_ids[i] = lane_id(name) end

local probes, entries = {}, {}
for i = 1, items do
  item.digest[i] = string.sub(ARGV[2], i * 16 - 15, i * 16 - 8)
  item.customer[i] = string.sub(ARGV[2], i * 16 - 7, i * 16)
  local id = lane_ids[item.lane[i]]
  item.lane[i], item.flags[i], item.size[i] = id, lane_is(id, EXEMPTS) and LIVE + EXEMPT or LIVE, #ARGV[i + 2] + 8
  local name = bucket_of(item.ts[i], item.flags[i])
  item.bucket[i] = name
  probes[name] = probes[name] or {}
  table.insert(probes[name], item.digest[i])
  for _, event in ipairs(item.events[i]) do entries[#entries + 1] = event end
end
for name, wanted in pairs(probes) do
  for i, value in ipairs(call('HMGET', T .. ':d:' .. name, unpack(wanted))) do
    if value then resident[wanted[i]] = true end
  end
end
ledger_load(entries)

WINDOW = math.min(64, math.max(WINDOW, items))

local function usable(i)
  local least, most = item.least[i], item.most[i]
  return type(least) == 'number' and type(most) == 'number' and least > 0 and most >= least and most < math.huge
end

-- The record that an item replaces and the mask over its targets; nil when it was refused or is gone. The item goes where
-- that one stands now.
local function replaced(i)
  local digest = string.gsub(item.replaces[i], '..', function(pair) return string.char(tonumber(pair, 16)) end)
  write_payloads()
  local names = call('HKEYS', T .. ':bk')
  table.insert(names, 1, item.bucket[i]) -- one that this script has made is not among them yet
  for _, name in ipairs(names) do
    local value = call('HGET', T .. ':d:' .. name, digest)
    if value then
      local slot, mask = unstruct('>I4I4', value)
      local r = record(slot)
      if not (live(r) and r[DIGEST] == digest) then return nil end
      item.lane[i], item.flags[i] = r[LANE], LIVE + (exempt(r[FLAGS]) and EXEMPT or 0)
      item.bucket[i] = bucket_of(item.ts[i], item.flags[i])
      item.notes[i] = r[FLAGS] >= ANNOTATED and call('HGET', T .. ':a:' .. name, digest)
      return r, mask
    end
  end
end

local held_by = {}
-- Targets that another sample already trains: a bit mask over the sample's targets, and how many are left.
local function cleared(i)
  local mask, left, own, claims, kind = 0, item.targets[i], {}, item.claims[i], item.kind[i]
  for at = 1, #claims, 2 do
    local event, bit, taken = item.events[i][claims[at]], 2 ^ claims[at + 1], nil
    if item.old[i] then
      taken = floor(item.old_mask[i] / bit) % 2 == 1
    else
      local entry = ledger_read(event)
      local claimed = entry and select(5, ledger_split(entry)) or ''
      taken = held_by[event .. kind] or claimed ~= '' and ledger_holder(claimed, kind)
    end
    if taken then
      mask = mask + bit
      left = left - 1
    else
      own[event] = true
    end
  end
  item.mask[i], item.mine[i] = mask, own
  return left
end

-- Why an item does not enter: letter and reason; nil when it does.
local function refused(i)
  if item.reason[i] ~= '' then return 'r', item.reason[i] end
  if not usable(i) then return 'r', 'bad_weight' end
  if item.size[i] > cfg.max_item then return 'r', 'too_big' end
  if tombs and call('ZSCORE', T .. ':tomb', item.customer[i]) then return 't', 'erased' end
  if not exempt(item.flags[i]) and item.ts[i] + cfg.ttl <= cfg.now then return 'e', 'expired' end
  if resident[item.digest[i]] and item.replaces[i] ~= item.hex[i] then return 'd', 'duplicate' end
  if item.replaces[i] ~= '' then
    item.old[i], item.old_mask[i] = replaced(i)
    if not item.old[i] then return 'd', 'duplicate' end
  end
  if cleared(i) <= 0 then return 'd', 'duplicate' end
end

local pending, pending_all, pending_bytes = {}, 0, 0
-- Makes room for one more item. True when there is; false when this call has evicted enough; nil when there never will be.
local function make_room(i)
  local to = item.lane[i]
  while true do
    local more = (pending[to] or 0) + 1
    local held, quota = contested(to)
    if held + more > quota then
      if held == 0 then return nil end
      if evicted >= LIMIT then return false end
      evict_from(to, true)
    elseif N.n + pending_all + 1 > cfg.cap or N.bytes + pending_bytes + item.size[i] > cfg.max_bytes then
      local fuller = fullest()
      if not fuller then return nil end
      if evicted >= LIMIT then return false end
      evict_from(fuller, false)
    else
      pending[to], pending_all, pending_bytes = more, pending_all + 1, pending_bytes + item.size[i]
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
  N.hi = slot + 1
  if slot % PAGE == 0 then call('SETRANGE', T .. ':m:' .. slot / PAGE, PAGE * RECORD - 1, '\0') end
  return slot
end

-- Late labels that lie over the sample which this one replaces go on lying over this one.
local function take_over(i)
  if live(item.old[i]) then remove(item.old[i], 'ret') end -- making room may have evicted it
  if item.notes[i] then
    local key = T .. ':a:' .. item.bucket[i]
    call('HSET', key, item.digest[i], item.notes[i])
    if item.bucket[i] ~= 'x' then call('EXPIREAT', key, (tonumber(item.bucket[i]) + 1) * cfg.bucket + cfg.ttl) end
    item.flags[i] = item.flags[i] + ANNOTATED
  end
end

local function write(i)
  local slot, to = new_slot(), item.lane[i]
  N.seq = N.seq + 1
  local seq = N.seq % 4294967296
  local r = { item.digest[i], item.ts[i], seq, item.customer[i], to, FRESH, item.flags[i], 0, item.size[i], 0, 0, 0, 0, 0,
    slot, true }
  records[slot] = r
  made[#made + 1] = r
  gather(coming, item.bucket[i], item.digest[i], pack('>I4I4', slot, item.mask[i]) .. ARGV[i + 2])
  place(r, FRESH)
  assign(item.customer[i], slot, true)
  local entry = pack('>I4I4', slot, seq)
  if select(3, lane_rules(to)) ~= LOWEST then enqueue(queued, to, entry) end
  if cfg.recent > 0 then enqueue(ringed, to, entry) end
  buckets[item.bucket[i]] = (buckets[item.bucket[i]] or 0) + 1
  resident[item.digest[i]] = true
  N.n, N.bytes, N.ins = N.n + 1, N.bytes + item.size[i], N.ins + 1
  if not lane_is(to, COUNTED) then N.anchors = N.anchors + 1 end
end

local table_name, ledger_ttl = string.sub(T, 5, -2), format('%d', cfg.ledger_ttl)
local function accept(i)
  local holder = item.hex[i] .. ':' .. item.bucket[i] .. ':' .. table_name
  for _, event in ipairs(item.events[i]) do
    local claimed = item.mine[i][event] and item.kind[i]
    ledger_move(event, 'accepted', '', 1, item.hex[i], ledger_ttl, claimed, holder)
  end
end

local function reject(i, reason)
  for _, event in ipairs(item.events[i]) do ledger_move(event, 'rejected', reason, 0, '', ledger_ttl) end
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
      key = offset_chunk(item.epoch, group[1], group[2], floor(group[3] / 65536)), from = number % 128 * 64 }
    w.bytes = { string.byte(call('GETRANGE', w.key, w.from, w.from + 63), 1, 64) }
    for i = #w.bytes + 1, 64 do w.bytes[i] = 0 end
    windows[name] = w
  end
  latest = w
  return w, floor(group[3] % 512 / 8) + 1, 2 ^ (7 - group[3] % 8)
end

local function mark(w, at, bit)
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
local letters, reasons, entering = {}, {}, {}

-- Decides on an item of a group; false when this call has evicted enough, and the group has to come again.
local function decide(i, together)
  letters[i], reasons[i] = refused(i)
  if not letters[i] and together[item.digest[i]] then letters[i], reasons[i] = 'd', 'duplicate' end
  if letters[i] then return true end
  local room = make_room(i)
  if room == nil then
    letters[i], reasons[i] = 'r', 'no_room'
  elseif room then
    entering[i], together[item.digest[i]] = true, true
    for event in pairs(item.mine[i]) do held_by[event .. item.kind[i]] = true end
  end
  return room ~= false
end

-- Gates, room, writes, ledger. False when the group has to come again.
local function insert_group(group, first, last)
  local w, at, bit
  if group[1] then w, at, bit = window(group) end
  local again, together = w and floor(w.bytes[at] / bit) % 2 == 1, {}
  pending, pending_all, pending_bytes, held_by = {}, 0, 0, {}
  for i = first, last do
    if again then
      letters[i] = 'd'
    elseif not decide(i, together) then
      return false
    end
  end
  for i = first, last do
    if entering[i] then
      if item.old[i] then take_over(i) end
      write(i)
      accept(i)
      letters[i] = 'i'
    else
      local counter = COUNTER[letters[i]]
      N[counter] = N[counter] + 1
      if not again then reject(i, reasons[i]) end
    end
  end
  if w and not again then mark(w, at, bit) end
  return true
end

local groups, first = item.group, 1
while first <= items do
  local last = first
  while last < items and groups[last + 1] == groups[first] do last = last + 1 end
  if not insert_group(item.groups[groups[first]], first, last) then break end
  first = last + 1
end
for i = first, items do letters[i] = '-' end
flush()
write_marks()
return { table.concat(letters), evicted, N.n, N.bytes }
