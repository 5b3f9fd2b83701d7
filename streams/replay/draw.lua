-- Draws a mini-batch and declares how likely each item was. ARGV[1] (msgpack): seed, k, tau, alpha, lease, limiter,
-- parts = {{policy, share, "*" or {lane names}}, ...}. Without lease it writes one counter only.
-- Answers {"wait", reason, n} or {"draw", now, seq, N, least p, rows, expected shares, drawn counts of the parts}.
redis.call('HDEL', T .. ':n', '-') -- marks the script as writing, so that a full memory does not stop it
load()
local input = cmsgpack.unpack(ARGV[1])
math.randomseed(input.seed)

local powers = {}
for bin = 1, 62 do powers[bin] = 2 ^ ((bin - 40) / 4 * input.alpha) end

local rings = {}
-- Slots of the lane's newest items that may be drawn, and slot -> bin of each.
local function ring(lane)
  if not rings[lane] then
    local slots, bin_of = {}, {}
    for _, entry in ipairs(redis.call('LRANGE', T .. ':r:' .. lane, 0, -1)) do
      local slot, seq = struct.unpack('>I4I4', entry)
      local r = record(slot)
      if live(r, seq) and r.lane == lane and r.bin < LEASED then
        slots[#slots + 1] = slot
        bin_of[slot] = r.bin
      end
    end
    rings[lane] = { slots = slots, bin_of = bin_of }
  end
  return rings[lane]
end

local function eligible(policy, lane)
  if policy == 'fresh' then return lane_get(lane, NEW) end
  if policy == 'prio' then return lane_get(lane, SCORED) end
  if policy == 'recent' then return #ring(lane).slots end
  return lane_get(lane, NEW) + lane_get(lane, SCORED)
end

local whole = {}
-- All bin counts of a lane, from bin 0 at index 1.
local function bins_at(lane)
  whole[lane] = whole[lane] or unpack_u32(redis.call('GET', T .. ':bc:' .. lane))
  return whole[lane]
end

local mass = {}
-- Sum of weight^alpha over the lane's scored bins.
local function prio_mass(lane)
  if not mass[lane] then
    local sum, bins = 0, bins_at(lane)
    for bin = 1, 62 do
      if bins[bin + 1] > 0 then sum = sum + bins[bin + 1] * powers[bin] end
    end
    mass[lane] = sum
  end
  return mass[lane]
end

local function lanes_of(part)
  local ids = {}
  if part[3] == '*' then
    for lane = 0, lane_count() - 1 do
      if lane_is(lane, STARRED) then ids[#ids + 1] = lane end
    end
  else
    local names = #part[3] > 0 and redis.call('HMGET', T .. ':lanes', unpack(part[3])) or {}
    for _, id in ipairs(names) do
      if id then ids[#ids + 1] = tonumber(id) end
    end
    table.sort(ids)
  end
  return ids
end

-- Spreads `amount` over cells by weight; where `cap` holds back (fresh: each item once) the others take the rest.
local function spread(amount, cells)
  local open, left = cells, amount
  for _, cell in ipairs(cells) do cell.expected = 0 end
  while left > 1e-12 and #open > 0 do
    local sum, rest, used = 0, {}, 0
    for _, cell in ipairs(open) do sum = sum + cell.weight end
    for _, cell in ipairs(open) do
      local give = math.min(left * cell.weight / sum, cell.cap - cell.expected)
      cell.expected = cell.expected + give
      used = used + give
      if cell.expected < cell.cap - 1e-9 then rest[#rest + 1] = cell end
    end
    if #rest == #open then break end
    open, left = rest, left - used
  end
end

-- Parts and their lanes with the expected number of draws from each.
local function plan()
  local parts, all = {}, {}
  for i, part in ipairs(input.parts) do
    local policy, cells, total = part[1], {}, 0
    local once = policy == 'fresh'
    for _, lane in ipairs(lanes_of(part)) do
      local n = eligible(policy, lane)
      if n > 0 then
        local weight = input.tau == 1 and n or n ^ input.tau
        cells[#cells + 1] = { policy = policy, lane = lane, n = n, part = i, weight = weight, cap = once and n or math.huge,
          counted = lane_is(lane, COUNTED) and 1 or 0 }
        total = total + n
      end
    end
    if total > 0 and part[2] > 0 then
      parts[#parts + 1] = { cells = cells, weight = part[2], cap = once and total or math.huge }
    end
  end
  spread(input.k, parts)
  for _, part in ipairs(parts) do
    spread(part.expected, part.cells)
    for _, cell in ipairs(part.cells) do all[#all + 1] = cell end
  end
  return all
end

-- Systematic rounding: each cell gets the floor or ceiling of its expectation, and the sum is exact.
local function round(cells)
  local u, sum, given, drawn = math.random(), 0, 0, 0
  for _, cell in ipairs(cells) do
    sum = sum + cell.expected
    local upto = math.floor(sum + u + 1e-9)
    cell.count = upto - given
    given = upto
    drawn = drawn + cell.count * cell.counted
  end
  return drawn
end

local function pick_bin(lane, policy)
  local bins = bins_at(lane)
  if policy == 'prio' then
    local u = math.random() * prio_mass(lane)
    local last
    for bin = 1, 62 do
      if bins[bin + 1] > 0 then
        last = bin
        u = u - bins[bin + 1] * powers[bin]
        if u < 0 then break end
      end
    end
    return last, math.random(bins[last + 1]) - 1
  end
  local nth = math.random(lane_get(lane, NEW) + lane_get(lane, SCORED)) - 1
  for bin = 0, 62 do
    if nth < bins[bin + 1] then return bin, nth end
    nth = nth - bins[bin + 1]
  end
end

local function slot_at(lane, bin, pos)
  return (struct.unpack('>I4', redis.call('GETRANGE', T .. ':b:' .. lane .. ':' .. bin, pos * 4, pos * 4 + 3)))
end

-- One more slot of a cell and its bin, or nil when a draw without replacement has seen them all.
local function next_slot(cell)
  if cell.policy == 'recent' then
    local newest = ring(cell.lane)
    local slot = newest.slots[math.random(#newest.slots)]
    return slot, newest.bin_of[slot]
  end
  if cell.policy ~= 'fresh' then
    local bin, pos = pick_bin(cell.lane, cell.policy)
    return slot_at(cell.lane, bin, pos), bin
  end
  cell.swaps, cell.used = cell.swaps or {}, cell.used or 0
  if cell.used >= cell.n then return nil end
  local at = math.random(cell.n - cell.used) - 1
  local top = cell.n - cell.used - 1
  local pos = cell.swaps[at] or at
  cell.swaps[at] = cell.swaps[top] or top
  cell.used = cell.used + 1
  return slot_at(cell.lane, FRESH, pos), FRESH
end

local erasing = nil
if redis.call('SCARD', T .. ':er') > 0 then
  erasing = {}
  for _, cust in ipairs(redis.call('SMEMBERS', T .. ':er')) do erasing[cust] = true end
end

-- What a drawn item is named by: digest, ts, seq, flags, times; nil when it may not leave.
local function drawable(slot)
  local page, offset = record_at(slot)
  local raw = redis.call('GETRANGE', page, offset, offset + 37)
  local digest, ts, seq, cust, _, _, flags, _, _, times = struct.unpack('>c8I4I4c8I2BBI4I4I2', raw)
  local exempt = has(flags, EXEMPT)
  if not exempt and ts + cfg.ttl <= cfg.now or erasing and erasing[cust] then return nil end
  return digest, exempt and 4294967295 or math.floor(ts / cfg.bucket), seq, times
end

local chances = {}
-- What the parts give an item of a lane: `even` any, `new` untrained ones, `heavy` per weight^alpha, `ring` the newest.
local function gather(cells)
  for _, cell in ipairs(cells) do
    local c = chances[cell.lane]
    if not c then
      c = { even = 0, new = 0, heavy = 0, ring = 0 }
      chances[cell.lane] = c
    end
    if cell.policy == 'fresh' then
      c.new = c.new + cell.expected / cell.n
    elseif cell.policy == 'uniform' then
      c.even = c.even + cell.expected / cell.n
    elseif cell.policy == 'prio' then
      c.heavy = c.heavy + cell.expected / prio_mass(cell.lane)
    else
      c.ring = c.ring + cell.expected / cell.n
    end
  end
end

-- Declared probability of an item: sum over the parts of expected share times chance inside the part.
local function probability(lane, bin, slot)
  local c = chances[lane]
  local p = c.even + (bin == FRESH and c.new or bin > FRESH and c.heavy > 0 and c.heavy * powers[bin] or 0)
  if slot and c.ring > 0 and ring(lane).bin_of[slot] then p = p + c.ring end
  return p / input.planned
end

-- The scored bin of a lane whose items have the least probability: the lowest, if priorities matter there.
local function lowest_scored(lane)
  if chances[lane].heavy == 0 or input.alpha <= 0 then return 62 end
  local bins = bins_at(lane)
  for bin = 1, 62 do
    if bins[bin + 1] > 0 then return bin end
  end
end

-- Items that some part can draw, and the least probability among them: the largest importance weight hangs on it.
local function support()
  local n, least = 0, math.huge
  local function count(items, p)
    if items > 0 and p > 0 then n, least = n + items, math.min(least, p) end
    return items > 0 and p > 0
  end
  for lane in pairs(chances) do
    local fresh, trained = lane_get(lane, NEW), lane_get(lane, SCORED)
    local new = fresh > 0 and count(fresh, probability(lane, FRESH))
    local scored = trained > 0 and count(trained, probability(lane, lowest_scored(lane)))
    for slot, bin in pairs(rings[lane] and rings[lane].bin_of or {}) do
      if not (bin == FRESH and new or bin > FRESH and scored) then count(1, probability(lane, bin, slot)) end
    end
  end
  return n, least
end

local function lease(drawn)
  for _, slot in ipairs(drawn) do
    local r = record(slot)
    if live(r) and r.bin ~= LEASED then
      take(r)
      r.prev = r.bin
      place(r, LEASED)
      redis.call('ZADD', T .. ':ls', cfg.now + input.lease, slot)
    end
  end
end

local cells = plan()
if N.n < input.min_size or #cells == 0 then return { 'wait', 'empty', N.n } end
input.planned = 0
for _, cell in ipairs(cells) do input.planned = input.planned + cell.expected end
local limited = round(cells)
if input.spi and (N.ins - N.anchors) * input.spi - N.smp - limited < -input.error_buffer then
  return { 'wait', 'limiter', N.n }
end

gather(cells)
local n, least = support()
local rows, slots, shares, realised = {}, {}, {}, {}
for i = 1, #input.parts do shares[i], realised[i] = 0, 0 end
for _, cell in ipairs(cells) do
  shares[cell.part] = shares[cell.part] + cell.expected / input.planned
  local tries = cell.count * 4 + 16
  while cell.count > 0 and tries > 0 do
    tries = tries - 1
    local slot, bin = next_slot(cell)
    if not slot then break end
    local digest, bucket, seq, times = drawable(slot)
    if digest then
      local p = probability(cell.lane, bin, slot)
      rows[#rows + 1] = struct.pack('>c8I4I4I4I2I2Bd', digest, bucket, seq, slot, cell.lane, times, cell.part - 1, p)
      slots[#slots + 1] = slot
      realised[cell.part] = realised[cell.part] + 1
      cell.count = cell.count - 1
      add('smp', cell.counted)
    end
  end
end
if input.lease > 0 then lease(slots) end
flush()
for i = 1, #shares do shares[i] = string.format('%.17g', shares[i]) end
return { 'draw', cfg.now, N.seq, n, string.format('%.17g', least), table.concat(rows), shares, realised }
