-- Checks a piece of a table that others write to meanwhile: a script sees one moment. It only reads, and shares no code
-- with the scripts that write. KEYS[1] is the prefix; ARGV = what, then where. Answers the violations, {name, detail, ...}.
local T = KEYS[1]
local call, unstruct = redis.call, struct.unpack
local RECORD, PAGE, BINS, FRESH, LEASED = 48, 1023, 65, 0, 63
local FORMAT = '>c8I4I4c8I2BBI4I4I2BBI4I4'
local LANES = 16 -- of one piece
local QUEUE = 1024 -- stale entries of a queue, beside as many as live ones

local now, bucket_s, ttl
do
  local cfg = call('HMGET', T .. ':cfg', 'clock', 'bucket', 'ttl')
  now, bucket_s, ttl = tonumber(cfg[1] or call('TIME')[1]), tonumber(cfg[2]), tonumber(cfg[3])
end

local broken = {}
local function report(name, detail)
  broken[#broken + 1] = name
  broken[#broken + 1] = detail
end

local function expect(name, what, found, wanted)
  if found ~= wanted then report(name, what .. ': ' .. tostring(found) .. ' against ' .. tostring(wanted)) end
end

local function u32s(key, first, count)
  local raw = call('GETRANGE', key, first * 4, (first + count) * 4 - 1)
  local values = {}
  for at = 1, #raw, 4 do values[#values + 1] = unstruct('>I4', raw, at) end
  return values
end

local function counters(...)
  local values = call('HMGET', T .. ':n', ...)
  for i = 1, select('#', ...) do values[i] = tonumber(values[i] or 0) end
  return unpack(values)
end

-- Redis itself drops a bucket whose last item is past its ttl.
local function overdue(bucket) return bucket ~= 'x' and (tonumber(bucket) + 1) * bucket_s + ttl <= now end

local function bucket_of(ts, flags) return flags % 4 >= 2 and 'x' or string.format('%d', math.floor(ts / bucket_s)) end

-- One record: fields as an array, nil where no live one is.
local function record(slot, raw)
  local at = slot % PAGE * RECORD
  raw = raw or call('GETRANGE', T .. ':m:' .. math.floor(slot / PAGE), at, at + RECORD - 1)
  if #raw < RECORD then return nil end
  local r = { unstruct(FORMAT, raw) }
  return r[7] % 2 == 1 and r or nil
end

local check = {}

-- The table's own sums (I2, I5, I10, I11).
function check.sums()
  local n, hi, ins, ev, era, exp, ret = counters('n', 'hi', 'ins', 'ev', 'era', 'exp', 'ret')
  expect('I10', 'inserted less what left', ins - ev - era - exp - ret, n)
  expect('I5', 'free slots and samples', call('LLEN', T .. ':free') + n, hi)
  local total, leased, stored, lanes = 0, 0, 0, call('HLEN', T .. ':lanes')
  for lane = 0, lanes - 1 do
    total = total + (u32s(T .. ':lc', lane * 4, 1)[1] or 0)
    leased = leased + (u32s(T .. ':bc:' .. lane, LEASED, 1)[1] or 0)
  end
  expect('I2', 'samples of all lanes', total, n)
  expect('I11', 'leases', call('ZCARD', T .. ':ls'), leased)
  local buckets = call('HGETALL', T .. ':bk')
  for i = 1, #buckets, 2 do
    local held = call('HLEN', T .. ':d:' .. buckets[i])
    if not (held == 0 and overdue(buckets[i])) then
      expect('I2', 'payloads of bucket ' .. buckets[i], held, tonumber(buckets[i + 1]))
    end
    stored = stored + tonumber(buckets[i + 1])
  end
  expect('I2', 'samples of all buckets', stored, n)
end

-- Some lanes: their counts against those of their bins (I2).
function check.lanes(first)
  for lane = first, math.min(first + LANES, call('HLEN', T .. ':lanes')) - 1 do
    local counts, bins = u32s(T .. ':lc', lane * 4, 4), u32s(T .. ':bc:' .. lane, 0, BINS)
    local sum, scored = 0, 0
    for bin = 0, BINS - 1 do
      local count = bins[bin + 1] or 0
      sum = sum + count
      if bin > FRESH and bin < LEASED then scored = scored + count end
    end
    expect('I2', 'samples of lane ' .. lane, counts[1], sum)
    expect('I2', 'fresh ones of lane ' .. lane, counts[2], bins[1] or 0)
    expect('I2', 'scored ones of lane ' .. lane, counts[3], scored)
  end
end

-- Some slots: each live record is where every index looks for it (I1, I3, I4, I8, I9, I11).
function check.records(first, count)
  local page, at = math.floor(first / PAGE), first % PAGE * RECORD
  local raw = call('GETRANGE', T .. ':m:' .. page, at, at + count * RECORD - 1)
  local tombs = call('ZCARD', T .. ':tomb') > 0
  for slot = first, first + math.floor(#raw / RECORD) - 1 do
    local place = (slot - first) * RECORD
    local r = record(slot, string.sub(raw, place + 1, place + RECORD))
    if r then
      local digest, cust, lane, bin, pos = r[1], r[4], r[5], r[6], r[8]
      local named = 'slot ' .. slot
      expect('I1', named .. ' at its place', u32s(T .. ':b:' .. lane .. ':' .. bin, pos, 1)[1], slot)
      expect('I4', named .. ' among its customer\'s', call('SISMEMBER', T .. ':c:' .. cust, slot), 1)
      expect('I11', named .. ' leased', call('ZSCORE', T .. ':ls', slot) and true or false, bin == LEASED)
      local bucket = bucket_of(r[2], r[7])
      local value = call('HGET', T .. ':d:' .. bucket, digest)
      if value then
        expect('I3', named .. ', bytes', #value, r[9])
        expect('I9', named .. ', slot of its digest', (unstruct('>I4', value)), slot)
      elseif not overdue(bucket) then
        report('I3', named .. ' has no payload')
      end
      if tombs and call('ZSCORE', T .. ':tomb', cust) and call('SISMEMBER', T .. ':er', cust) == 0 then
        report('I8', named .. ' is of an erased customer')
      end
    end
  end
end

-- Some cells of a bin: each holds a live record that says so (I1, I2).
function check.cells(lane, bin, first, count)
  local size = u32s(T .. ':bc:' .. lane, bin, 1)[1] or 0
  for i, slot in ipairs(u32s(T .. ':b:' .. lane .. ':' .. bin, first, math.min(count, size - first))) do
    local r = record(slot)
    if not (r and r[5] == lane and r[6] == bin and r[8] == first + i - 1) then
      report('I1', 'slot ' .. slot .. ' stands in lane ' .. lane .. ', bin ' .. bin .. ', its record does not say so')
    end
  end
end

-- Some of the free list: nothing there lives (I5).
function check.free(first, count)
  for _, slot in ipairs(call('LRANGE', T .. ':free', first, first + count - 1)) do
    if record(tonumber(slot)) then report('I5', 'slot ' .. slot .. ' is free and lives') end
  end
end

-- By how much the table and each lane are above their limits: legal while sweeps step a lowered limit down (I7).
function check.limits()
  local cfg, n, bytes = call('HMGET', T .. ':cfg', 'cap', 'max_bytes'), counters('n', 'bytes')
  local function above(what, amount)
    if amount > 0 then report(what, string.format('%d', amount)) end
  end
  above('samples', n - tonumber(cfg[1]))
  above('bytes', bytes - tonumber(cfg[2]))
  for lane = 0, call('HLEN', T .. ':lanes') - 1 do
    local rules, counts = u32s(T .. ':lq', lane * 3, 3), u32s(T .. ':lc', lane * 4, 4)
    local reservoir = math.floor(rules[3] / 16777216) == 1
    local queued = reservoir and counts[4] or counts[1]
    above('lane ' .. lane, (reservoir and counts[1] - counts[4] or counts[1]) - rules[1])
    above('fresh of lane ' .. lane, reservoir and counts[4] - rules[2] or 0)
    above('queue of lane ' .. lane, call('LLEN', T .. ':q:' .. lane) - 2 * queued - QUEUE)
  end
end

local where = {}
for i = 2, #ARGV do where[i - 1] = tonumber(ARGV[i]) end
check[ARGV[1]](unpack(where))
return broken
