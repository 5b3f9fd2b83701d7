-- State of one table, shared by every script on it: records, bins, lanes. KEYS[1] is the prefix `{rb:<table>}`.
-- A script loads what it touches, works on Lua copies of the counters, and writes them back in `flush()`.
local T = KEYS[1]
local RECORD, PAGE = 48, 1023
local FORMAT = '>c8I4I4c8I2BBI4I4I2BBI4I4'
local FRESH, LEASED, SPENT, BINS = 0, 63, 64, 65
local LIVE, EXEMPT, ANNOTATED = 1, 2, 4
local FIFO, RESERVOIR, LOWEST = 0, 1, 2
local LANE_U32 = 4
local TOTAL, NEW, SCORED, UNTRAINED = 1, 2, 3, 4
local COUNTERS = { 'n', 'bytes', 'seq', 'hi', 'ins', 'anchors', 'smp', 'ev', 'era', 'exp', 'ret', 'dup', 'tomb', 'late', 'rej' }
local LIMIT = 256

local cfg, N, changed = {}, {}, {}
local lanes, lane_dirty, quotas = {}, {}, {}
local counts = {}
local buckets, evictions, spare = {}, {}, {}
local evicted = 0

local function has(flags, bit) return math.floor(flags / bit) % 2 == 1 end

local function add(name, by)
  N[name] = N[name] + by
  changed[name] = true
end

local function unpack_u32(raw)
  local out = {}
  for at = 1, #raw, 4000 do
    local part = { struct.unpack('>' .. string.rep('I4', math.min(1000, (#raw - at + 1) / 4)), raw, at) }
    part[#part] = nil -- where the next value would start
    if #raw <= 4000 then return part end
    for _, value in ipairs(part) do out[#out + 1] = value end
  end
  return out
end

-- Reads settings and counters; `cfg.now` is the server's clock, or the test clock of a table made with one.
local function load()
  local names = { 'cap', 'max_bytes', 'max_item', 'ttl', 'bucket', 'max_sampled', 'clock', 'recent', 'ledger_ttl', 'retention' }
  local values = redis.call('HMGET', T .. ':cfg', unpack(names))
  if not values[1] then error('table ' .. T .. ' was never configured') end
  for i, name in ipairs(names) do cfg[name] = tonumber(values[i] or 0) end
  cfg.now = values[7] and cfg.clock or tonumber(redis.call('TIME')[1])
  values = redis.call('HMGET', T .. ':n', unpack(COUNTERS))
  for i, name in ipairs(COUNTERS) do N[name] = tonumber(values[i] or 0) end
  lanes = unpack_u32(redis.call('GET', T .. ':lc') or '')
  quotas = unpack_u32(redis.call('GET', T .. ':lq') or '')
end

local function lane_count() return #lanes / LANE_U32 end
local function lane_get(lane, field) return lanes[lane * LANE_U32 + field] end

-- quota, fresh quota, policy
local function lane_rules(lane)
  return quotas[lane * 3 + 1], quotas[lane * 3 + 2], math.floor(quotas[lane * 3 + 3] / 16777216)
end

-- One of a lane's marks: kept without ttl, drawn by "*", counted by the limiter.
local EXEMPTS, STARRED, COUNTED = 65536, 256, 1
local function lane_is(lane, mark) return math.floor(quotas[lane * 3 + 3] / mark) % 256 == 1 end

-- The id of a lane's name; a new name gets the next id, for ever.
local function lane_id(name)
  local id = redis.call('HGET', T .. ':lanes', name)
  if id then return tonumber(id) end
  id = lane_count()
  local packed = redis.call('HGET', T .. ':cfg', 'rules:' .. name) or redis.call('HGET', T .. ':cfg', 'rules:*')
  redis.call('HSET', T .. ':lanes', name, id)
  redis.call('SETRANGE', T .. ':lq', id * 12, packed)
  redis.call('SETRANGE', T .. ':lc', id * LANE_U32 * 4, string.rep('\0', LANE_U32 * 4))
  redis.call('SETRANGE', T .. ':bc:' .. id, BINS * 4 - 1, '\0')
  for _, value in ipairs(unpack_u32(packed)) do quotas[#quotas + 1] = value end
  for _ = 1, LANE_U32 do lanes[#lanes + 1] = 0 end
  return id
end

-- How many items a bin of a lane holds; decoded one by one, for most scripts touch few of a lane's 65 bins.
local function bin_count(lane, bin)
  local bins = counts[lane]
  if not bins then
    bins = { raw = redis.call('GET', T .. ':bc:' .. lane) or string.rep('\0', BINS * 4), changed = {} }
    counts[lane] = bins
  end
  local count = bins[bin]
  if not count then
    count = struct.unpack('>I4', bins.raw, bin * 4 + 1)
    bins[bin] = count
  end
  return count
end

local function bin_add(lane, bin, by)
  local count = bin_count(lane, bin) + by
  counts[lane][bin] = count
  counts[lane].changed[bin] = true
end

-- All counts of a lane, from bin 0 at index 0.
local function bins_of(lane)
  local first = bin_count(lane, 0)
  local bins = counts[lane]
  if not bins.whole then
    local found = unpack_u32(bins.raw)
    for bin = 0, BINS - 1 do bins[bin] = bins[bin] or found[bin + 1] end
    bins.whole = first
  end
  return bins
end

-- Records and bin arrays are read once and written back once: an array cell or record that several moves touch costs
-- one call, and neighbours go out together.
local records, stored, shifts, arrays = {}, {}, {}, {}

local pages = {}
local function record_at(slot)
  local number = math.floor(slot / PAGE)
  local page = pages[number]
  if not page then
    page = T .. ':m:' .. number
    pages[number] = page
  end
  return page, (slot % PAGE) * RECORD
end

-- The record of a slot, live or not; nil where no page exists.
local function record(slot)
  local r = records[slot]
  if r then return r end
  local page, offset = record_at(slot)
  local raw = redis.call('GETRANGE', page, offset, offset + RECORD - 1)
  if #raw < RECORD then return nil end
  r = { slot = slot }
  r.digest, r.ts, r.seq, r.cust, r.lane, r.bin, r.flags, r.pos, r.bytes, r.times, r.prev, r.pad, r.first, r.last =
    struct.unpack(FORMAT, raw)
  r.pos = shifts[slot] or r.pos
  records[slot] = r
  return r
end

local function live(r, seq) return r and has(r.flags, LIVE) and (not seq or r.seq == seq) end

local function store(r)
  records[r.slot] = r
  stored[#stored + 1] = r.slot
end

local function array(lane, bin)
  local a = arrays[lane * BINS + bin]
  if not a then
    a = { lane = lane, bin = bin, key = T .. ':b:' .. lane .. ':' .. bin, cells = {}, dirty = {}, holes = {} }
    arrays[lane * BINS + bin] = a
  end
  return a
end

-- The slot at `pos`; what is not known yet is read together with the `before` cells that precede it.
local function cell(a, pos, before)
  local slot = a.cells[pos]
  if slot then return slot end
  local from = math.max(0, pos - before)
  local found = unpack_u32(redis.call('GETRANGE', a.key, from * 4, pos * 4 + 3))
  for i, value in ipairs(found) do
    if not a.cells[from + i - 1] then a.cells[from + i - 1] = value end
  end
  return a.cells[pos]
end

local function set_cell(a, pos, slot)
  a.cells[pos] = slot
  a.dirty[#a.dirty + 1] = pos
end

-- Fills the holes that nothing came into with the array's last slots, so that it is dense again.
local function settle(a)
  if #a.holes == 0 then return end
  local size = bin_count(a.lane, a.bin) + #a.holes
  table.sort(a.holes)
  for i = #a.holes, 1, -1 do
    local hole, last = a.holes[i], size - 1
    if hole ~= last then
      local moved = cell(a, last, 15)
      set_cell(a, hole, moved)
      if records[moved] then records[moved].pos = hole end
      shifts[moved] = hole
    end
    a.cells[last] = nil
    size = last
  end
  a.holes = {}
end

local function slot_in(lane, bin, pos)
  local a = array(lane, bin)
  settle(a)
  return cell(a, pos, 0)
end

-- Writes numbered things once each: neighbours that follow each other as one run(first, last), others by lone(number).
local function write_back(numbers, apart, run, lone)
  local done, first, last = {}, nil, nil
  local function finish()
    if first == last then lone(first) else run(first, last) end
  end
  for _, number in ipairs(numbers) do
    if not done[number] then
      done[number] = true
      if last and number == last + 1 and not apart(first, number) then
        last = number
      else
        if first then finish() end
        first, last = number, number
      end
    end
  end
  if first then finish() end
end

local FEW = 6 -- changes of one key up to which a call each costs less than gathering them

local function write_array(a)
  local count = bin_count(a.lane, a.bin)
  if count == 0 then return redis.call('DEL', a.key) end
  if #a.dirty <= FEW then
    for _, pos in ipairs(a.dirty) do
      if pos < count then redis.call('SETRANGE', a.key, pos * 4, struct.pack('>I4', a.cells[pos])) end
    end
    return
  end
  local alive, sets = {}, {}
  for _, pos in ipairs(a.dirty) do
    if pos < count then alive[#alive + 1] = pos end
  end
  write_back(alive, function(first, pos) return pos - first > 500 end, function(first, last)
    redis.call('SETRANGE', a.key, first * 4, struct.pack('>' .. string.rep('I4', last - first + 1), unpack(a.cells, first, last)))
  end, function(pos)
    local n = #sets
    sets[n + 1], sets[n + 2], sets[n + 3], sets[n + 4] = 'SET', 'u32', '#' .. pos, a.cells[pos]
  end)
  if #sets > 0 then redis.call('BITFIELD', a.key, unpack(sets)) end
end

local function packed_record(r)
  return struct.pack(FORMAT, r.digest, r.ts, r.seq, r.cust, r.lane, r.bin, r.flags, r.pos, r.bytes, r.times, r.prev, 0, r.first, r.last)
end

local function write_records()
  for slot, pos in pairs(shifts) do
    if records[slot] then
      stored[#stored + 1] = slot
    else
      local page, offset = record_at(slot)
      redis.call('SETRANGE', page, offset + 28, struct.pack('>I4', pos))
    end
  end
  local function lone(slot)
    local page, offset = record_at(slot)
    redis.call('SETRANGE', page, offset, packed_record(records[slot]))
  end
  local function run(first, last)
    local page, offset = record_at(first)
    local parts = {}
    for slot = first, last do parts[#parts + 1] = packed_record(records[slot]) end
    redis.call('SETRANGE', page, offset, table.concat(parts))
  end
  write_back(stored, function(_, slot) return slot % PAGE == 0 end, run, lone)
end

local function write_counts()
  for lane, bins in pairs(counts) do
    local low, high = BINS, -1
    for bin in pairs(bins.changed) do low, high = math.min(low, bin), math.max(high, bin) end
    if high >= 0 then
      local values = unpack_u32(string.sub(bins.raw, low * 4 + 1, high * 4 + 4))
      for bin in pairs(bins.changed) do values[bin - low + 1] = bins[bin] end
      redis.call('SETRANGE', T .. ':bc:' .. lane, low * 4, struct.pack('>' .. string.rep('I4', #values), unpack(values)))
    end
  end
end

local function push_all(suffix, pushed)
  for lane, entries in pairs(pushed) do redis.call('RPUSH', T .. suffix .. lane, unpack(entries)) end
end

local queued, ringed = {}, {}
local function enqueue(pushed, lane, entry)
  pushed[lane] = pushed[lane] or {}
  table.insert(pushed[lane], entry)
end

local function flush()
  local fields = {}
  for name in pairs(changed) do
    fields[#fields + 1] = name
    fields[#fields + 1] = string.format('%d', N[name])
  end
  if #fields > 0 then redis.call('HSET', T .. ':n', unpack(fields)) end
  for _, a in pairs(arrays) do
    settle(a)
    if #a.dirty > 0 or a.touched then write_array(a) end
  end
  write_records()
  local many = 0
  for lane in pairs(lane_dirty) do many = many + 1 end
  for lane in pairs(many <= 8 and lane_dirty or {}) do
    local at = lane * LANE_U32
    redis.call('SETRANGE', T .. ':lc', at * 4, struct.pack('>I4I4I4I4', lanes[at + 1], lanes[at + 2], lanes[at + 3], lanes[at + 4]))
  end
  for at = 1, many > 8 and #lanes or 0, 1000 do
    local last = math.min(at + 999, #lanes)
    redis.call('SETRANGE', T .. ':lc', (at - 1) * 4, struct.pack('>' .. string.rep('I4', last - at + 1), unpack(lanes, at, last)))
  end
  write_counts()
  push_all(':q:', queued)
  push_all(':r:', ringed)
  for lane in pairs(ringed) do redis.call('LTRIM', T .. ':r:' .. lane, -cfg.recent, -1) end
  for bucket, by in pairs(buckets) do
    if by ~= 0 and redis.call('HINCRBY', T .. ':bk', bucket, by) == 0 then redis.call('HDEL', T .. ':bk', bucket) end
  end
  for what, by in pairs(evictions) do redis.call('HINCRBY', T .. ':ev', what, by) end
  if #spare > 0 then redis.call('RPUSH', T .. ':free', unpack(spare)) end
end

local function tally(r, by)
  local at, bin = r.lane * LANE_U32, r.bin
  lanes[at + TOTAL] = lanes[at + TOTAL] + by
  if bin == FRESH then
    lanes[at + NEW] = lanes[at + NEW] + by
  elseif bin < LEASED then
    lanes[at + SCORED] = lanes[at + SCORED] + by
  end
  if r.times == 0 then lanes[at + UNTRAINED] = lanes[at + UNTRAINED] + by end
  lane_dirty[r.lane] = true
  bin_add(r.lane, bin, by)
end

-- Takes a record out of its bin and leaves a hole there.
local function take(r)
  local a = array(r.lane, r.bin)
  table.insert(a.holes, r.pos)
  a.touched = true
  shifts[r.slot] = nil
  tally(r, -1)
end

-- Puts a record into a hole of a bin, or at its end.
local function place(r, bin)
  local a = array(r.lane, bin)
  r.bin = bin
  r.pos = table.remove(a.holes) or bin_count(r.lane, bin)
  set_cell(a, r.pos, r.slot)
  tally(r, 1)
  store(r)
end

local function bucket_of(ts, flags)
  return has(flags, EXEMPT) and 'x' or string.format('%d', math.floor(ts / cfg.bucket))
end

-- What a trained item leaves behind when it goes: first and last step and how often, by customer.
local function fold(r)
  local key = T .. ':cf:' .. math.floor(cfg.now / 2592000)
  local old = redis.call('HGET', key, r.cust)
  local first, last, times = r.first, r.last, r.times
  if old then
    local f, l, t = struct.unpack('>I4I4I4', old)
    first, last, times = math.min(f, first), math.max(l, last), t + times
  end
  redis.call('HSET', key, r.cust, struct.pack('>I4I4I4', first, last, times))
  redis.call('EXPIRE', key, 34560000)
end

-- Removes a live record from every index; `counter` is ev, era, exp or ret.
local function remove(r, counter)
  local bucket = bucket_of(r.ts, r.flags)
  take(r)
  redis.call('HDEL', T .. ':d:' .. bucket, r.digest)
  if has(r.flags, ANNOTATED) then redis.call('HDEL', T .. ':a:' .. bucket, r.digest) end
  redis.call('SREM', T .. ':c:' .. r.cust, r.slot)
  if r.bin == LEASED then redis.call('ZREM', T .. ':ls', r.slot) end
  if r.times > 0 then fold(r) end
  r.flags = 0
  store(r)
  buckets[bucket] = (buckets[bucket] or 0) - 1
  spare[#spare + 1] = r.slot
  add('n', -1)
  add('bytes', -r.bytes)
  add(counter, 1)
end
