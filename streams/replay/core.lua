-- State of one table, shared by every script on it: records, bins, lanes. KEYS[1] is the prefix `{rb:<table>}`.
-- A script loads what it touches, works on Lua copies, and writes each thing back once, in `flush()`: a call of Redis
-- costs 1 us, another 0.5 us if it writes (append-only file), and 0.3 us for each number among its arguments.
local T = KEYS[1]
local call, pack, unstruct, floor, format = redis.call, struct.pack, struct.unpack, math.floor, string.format
local RECORD, PAGE = 48, 1023
local FORMAT = '>c8I4I4c8I2BBI4I4I2BBI4I4'
local TAIL, TAIL_AT = '>I2BBI4I4I2BBI4I4', 24 -- what changes in a record once it is stored: from its lane on
-- A record is an array in the order of FORMAT, then its slot, and whether this script made it.
local DIGEST, TS, SEQ, CUST, LANE, BIN, FLAGS, POS = 1, 2, 3, 4, 5, 6, 7, 8
local BYTES, TIMES, PREV, TOKEN, FIRST, LAST, SLOT, MADE = 9, 10, 11, 12, 13, 14, 15, 16
local FRESH, LEASED, SPENT, BINS = 0, 63, 64, 65
local LIVE, EXEMPT, ANNOTATED = 1, 2, 4
local FIFO, RESERVOIR, LOWEST = 0, 1, 2
local LANE_U32 = 4
local TOTAL, NEW, SCORED, UNTRAINED = 1, 2, 3, 4
local COUNTERS = { 'n', 'bytes', 'seq', 'hi', 'ins', 'anchors', 'smp', 'ev', 'era', 'exp', 'ret', 'dup', 'tomb', 'late', 'rej' }
local LIMIT = 256
local MANY = 500 -- values that one call or one unpack carries

local cfg, N, loaded = {}, {}, {}
local lanes, lane_dirty, quotas = {}, {}, {}
local buckets, evictions, spare, next_spare = {}, {}, {}, 1
local evicted = 0

local function exempt(flags) return flags % 4 >= 2 end

local formats = {} -- of so many u32
local function u32s(count)
  local known = formats[count]
  if not known then
    known = '>' .. string.rep('I4', count)
    formats[count] = known
  end
  return known
end

local function unpack_u32(raw)
  local out = {}
  for at = 1, #raw, 4000 do
    local part = { unstruct(u32s(math.min(1000, (#raw - at + 1) / 4)), raw, at) }
    part[#part] = nil -- where the next value would start
    if #raw <= 4000 then return part end
    for _, value in ipairs(part) do out[#out + 1] = value end
  end
  return out
end

local function pack_u32(values, first, last)
  if first == last then return pack('>I4', values[first]) end
  return pack(u32s(last - first + 1), unpack(values, first, last))
end

-- Reads settings and counters; `cfg.now` is the server's clock, or the test clock of a table made with one.
local function load()
  local names = { 'cap', 'max_bytes', 'max_item', 'ttl', 'bucket', 'max_sampled', 'clock', 'recent', 'ledger_ttl', 'retention' }
  local values = call('HMGET', T .. ':cfg', unpack(names))
  if not values[1] then error('table ' .. T .. ' was never configured') end
  for i, name in ipairs(names) do cfg[name] = tonumber(values[i] or 0) end
  cfg.now = values[7] and cfg.clock or tonumber(call('TIME')[1])
  values = call('HMGET', T .. ':n', unpack(COUNTERS))
  for i, name in ipairs(COUNTERS) do
    loaded[name] = tonumber(values[i] or 0)
    N[name] = loaded[name]
  end
  lanes = unpack_u32(call('GET', T .. ':lc') or '')
  quotas = unpack_u32(call('GET', T .. ':lq') or '')
end

local function lane_count() return #lanes / LANE_U32 end
local function lane_get(lane, field) return lanes[lane * LANE_U32 + field] end

-- quota, fresh quota, policy
local function lane_rules(lane)
  return quotas[lane * 3 + 1], quotas[lane * 3 + 2], floor(quotas[lane * 3 + 3] / 16777216)
end

-- One of a lane's marks: kept without ttl, drawn by "*", counted by the limiter.
local EXEMPTS, STARRED, COUNTED = 65536, 256, 1
local function lane_is(lane, mark) return floor(quotas[lane * 3 + 3] / mark) % 256 == 1 end

-- The id of a lane's name; a new name gets the next id, for ever.
local function lane_id(name)
  local id = call('HGET', T .. ':lanes', name)
  if id then return tonumber(id) end
  id = lane_count()
  local packed = call('HGET', T .. ':cfg', 'rules:' .. name) or call('HGET', T .. ':cfg', 'rules:*')
  call('HSET', T .. ':lanes', name, id)
  call('SETRANGE', T .. ':lq', id * 12, packed)
  call('SETRANGE', T .. ':lc', id * LANE_U32 * 4, string.rep('\0', LANE_U32 * 4))
  call('SETRANGE', T .. ':bc:' .. id, BINS * 4 - 1, '\0')
  for _, value in ipairs(unpack_u32(packed)) do quotas[#quotas + 1] = value end
  for _ = 1, LANE_U32 do lanes[#lanes + 1] = 0 end
  return id
end

local pages, records = {}, {} -- by number, by slot
local touched, made = {}, {} -- records to write back: slot -> those that are stored, and new ones in their order
local function record_at(slot)
  local number = floor(slot / PAGE)
  local page = pages[number]
  if not page then
    page = T .. ':m:' .. number
    pages[number] = page
  end
  return page, (slot - number * PAGE) * RECORD
end

-- The record of a slot by its stored bytes.
local function adopt(slot, raw)
  local r = { unstruct(FORMAT, raw) }
  r[SLOT] = slot -- where unstruct told how far it read
  records[slot] = r
  return r
end

-- The record of a slot, live or not; nil where no page exists.
local function record(slot)
  local r = records[slot]
  if r then return r end
  local page, offset = record_at(slot)
  local raw = call('GETRANGE', page, format('%d', offset), format('%d', offset + RECORD - 1))
  return #raw == RECORD and adopt(slot, raw) or nil
end

local function live(r, seq) return r and r[FLAGS] % 2 == LIVE and (not seq or r[SEQ] == seq) end

local function store(r)
  if not r[MADE] then touched[r[SLOT]] = r end
end

-- Bin arrays. `size` counts their items; behind them stand as many cells as there are `holes`, in the order they came.
local arrays, counts = {}, {}
local function array(lane, bin)
  local a = arrays[lane * BINS + bin]
  if a then return a end
  if not counts[lane] then counts[lane] = call('GET', T .. ':bc:' .. lane) or string.rep('\0', BINS * 4) end
  local size = unstruct('>I4', counts[lane], bin * 4 + 1)
  a = { lane = lane, bin = bin, key = T .. ':b:' .. lane .. ':' .. bin, size = size, was = size, first = 1, last = 0,
    holes = {}, cells = {}, dirty = {} }
  arrays[lane * BINS + bin] = a
  return a
end

-- All counts of a lane, from bin 0 at index 0.
local function bins_of(lane)
  array(lane, FRESH)
  local bins = {}
  for bin, count in ipairs(unpack_u32(counts[lane])) do
    local a = arrays[lane * BINS + bin - 1]
    bins[bin - 1] = a and a.size or count
  end
  return bins
end

-- The slot at `pos`; what is not known yet is read together with the `before` cells that precede it.
local function cell(a, pos, before)
  local slot = a.cells[pos]
  if slot then return slot end
  local from = math.max(0, pos - before)
  local raw = call('GETRANGE', a.key, from * 4, pos * 4 + 3)
  for at = 1, #raw, 4 do
    local known = from + (at - 1) / 4
    if not a.cells[known] then a.cells[known] = unstruct('>I4', raw, at) end
  end
  return a.cells[pos]
end

-- Tells a slot's record that it stands elsewhere in its bin now.
local function moved_to(slot, pos)
  local r = records[slot]
  if r then
    r[POS] = pos
    return store(r)
  end
  local page, offset = record_at(slot)
  call('SETRANGE', page, format('%d', offset + 28), pack('>I4', pos))
end

-- Fills the holes that nothing came into with the array's last slots, so that it is dense again.
local function settle(a)
  local open = a.last - a.first + 1
  if open == 0 then return end
  local holes, last = a.holes, a.size + open - 1
  if open < a.last then holes = { unpack(holes, a.first, a.last) } end
  if open > 1 then table.sort(holes) end
  for i = open, 1, -1 do
    local hole = holes[i]
    if hole ~= last then
      local slot = cell(a, last, i - 1)
      a.cells[hole] = slot
      a.dirty[#a.dirty + 1] = hole
      moved_to(slot, hole)
    end
    a.cells[last] = nil
    last = last - 1
  end
  a.first, a.last, a.holes = 1, 0, {}
end

local function slot_in(lane, bin, pos)
  local a = array(lane, bin)
  settle(a)
  return cell(a, pos, 0)
end

local function tally(r, by)
  local at, bin = r[LANE] * LANE_U32, r[BIN]
  lanes[at + TOTAL] = lanes[at + TOTAL] + by
  if bin == FRESH then
    lanes[at + NEW] = lanes[at + NEW] + by
  elseif bin < LEASED then
    lanes[at + SCORED] = lanes[at + SCORED] + by
  end
  if r[TIMES] == 0 then lanes[at + UNTRAINED] = lanes[at + UNTRAINED] + by end
  lane_dirty[r[LANE]] = true
end

-- Takes a record out of its bin and leaves a hole there.
local function leave(r)
  local a = arrays[r[LANE] * BINS + r[BIN]] or array(r[LANE], r[BIN])
  local last = a.last + 1
  a.last = last
  a.holes[last] = r[POS]
  a.size = a.size - 1
end

-- Puts a record into the oldest hole of a bin (neighbours that left are followed by neighbours), or at its end.
local function enter(r, bin)
  local a = arrays[r[LANE] * BINS + bin] or array(r[LANE], bin)
  local pos, first = a.size, a.first
  if first <= a.last then
    pos = a.holes[first]
    a.first = first + 1
  end
  a.size = a.size + 1
  r[BIN], r[POS] = bin, pos
  a.cells[pos] = r[SLOT]
  a.dirty[#a.dirty + 1] = pos
  store(r)
end

local function take(r)
  leave(r)
  tally(r, -1)
end

local function place(r, bin)
  enter(r, bin)
  tally(r, 1)
end

local bucket_names = {}
local function bucket_of(ts, flags)
  if exempt(flags) then return 'x' end
  local number = floor(ts / cfg.bucket)
  local name = bucket_names[number]
  if not name then
    name = format('%d', number)
    bucket_names[number] = name
  end
  return name
end

-- The table under a key, made when it is first asked for.
local function under(tables, key)
  local found = tables[key]
  if not found then
    found = {}
    tables[key] = found
  end
  return found
end

-- Stored payloads that leave, and those that come: bucket -> arguments. What leaves goes first.
local gone, coming = {}, {}
local function gather(by_bucket, bucket, digest, value)
  local list = under(by_bucket, bucket)
  local at = #list
  list[at + 1], list[at + 2] = digest, value
end

local function in_parts(list, command, key)
  for at = 1, #list, MANY do call(command, key, unpack(list, at, math.min(at + MANY - 1, #list))) end
end

local function write_payloads()
  for bucket, digests in pairs(gone) do in_parts(digests, 'HDEL', T .. ':d:' .. bucket) end
  for bucket, pairs_ in pairs(coming) do
    in_parts(pairs_, 'HSET', T .. ':d:' .. bucket)
    if bucket ~= 'x' then call('EXPIREAT', T .. ':d:' .. bucket, (tonumber(bucket) + 1) * cfg.bucket + cfg.ttl) end
  end
  gone, coming = {}, {}
end

local folds = {}
-- What a trained item leaves behind when it goes: first and last step and how often, by customer.
local function fold(cust, first, last, times)
  local f = folds[cust]
  if f then first, last, times = math.min(f[1], first), math.max(f[2], last), f[3] + times end
  folds[cust] = { first, last, times }
end

local function write_folds()
  local key = next(folds) and T .. ':cf:' .. floor(cfg.now / 2592000)
  for cust, f in pairs(folds) do
    local old = call('HGET', key, cust)
    if old then fold(cust, unstruct('>I4I4I4', old)) end
    call('HSET', key, cust, pack('>I4I4I4', unpack(folds[cust])))
  end
  if key then call('EXPIRE', key, 34560000) end
end

local members = {} -- customer -> slot -> whether it is theirs from now on
local function assign(cust, slot, theirs) under(members, cust)[slot] = theirs end

local unleased, resident = {}, {} -- slots of leases that end; digest -> whether it is known to be stored
-- Removes a live record from every index; `counter` is ev, era, exp or ret.
local function remove(r, counter)
  local bucket = bucket_of(r[TS], r[FLAGS])
  if r[MADE] then write_payloads() end
  take(r)
  gather(gone, bucket, r[DIGEST])
  resident[r[DIGEST]] = false
  if r[FLAGS] >= ANNOTATED then call('HDEL', T .. ':a:' .. bucket, r[DIGEST]) end
  assign(r[CUST], r[SLOT], false)
  if r[BIN] == LEASED then unleased[#unleased + 1] = r[SLOT] end
  if r[TIMES] > 0 then fold(r[CUST], r[FIRST], r[LAST], r[TIMES]) end
  r[FLAGS] = 0
  store(r)
  buckets[bucket] = (buckets[bucket] or 0) - 1
  spare[#spare + 1] = r[SLOT]
  N.n, N.bytes, N[counter] = N.n - 1, N.bytes - r[BYTES], N[counter] + 1
end
