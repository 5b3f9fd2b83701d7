-- Draws a mini-batch and declares how likely each item was. ARGV[1] (msgpack): seed, k, tau, alpha, lease, limiter,
-- parts = {{policy, share, "*" or {lane names}}, ...}, payloads. Without lease it writes one counter only.
-- Answers {"wait", reason, n} or {"draw", now, seq, N, least p, rows, expected shares, drawn counts of the parts,
-- payloads, notes}; a row is the record, then slot, part and probability.
call('HDEL', T .. ':n', '-') -- marks the script as writing, so that a full memory does not stop it
load()
local input = cmsgpack.unpack(ARGV[1])
math.randomseed(input.seed)

local powers = {} -- weight^alpha of a bin
for _, part in ipairs(input.parts) do
  for bin = 1, part[1] == 'prio' and 62 or 0 do powers[bin] = 2 ^ ((bin - 40) / 4 * input.alpha) end
end

local rings = {}
-- Slots of the lane's newest items that may be drawn, and slot -> bin of each.
local function ring(lane)
  if not rings[lane] then
    local slots, bin_of = {}, {}
    for _, entry in ipairs(call('LRANGE', T .. ':r:' .. lane, 0, -1)) do
      local slot, seq = unstruct('>I4I4', entry)
      local r = record(slot)
      if live(r, seq) and r[LANE] == lane and r[BIN] < LEASED then
        slots[#slots + 1] = slot
        bin_of[slot] = r[BIN]
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
  whole[lane] = whole[lane] or unpack_u32(call('GET', T .. ':bc:' .. lane))
  return whole[lane]
end

local ladders = {}
-- The lane's bins that `prio` or `uniform` draws from, and the sum up to and with each of weight^alpha or of items.
local function ladder(lane, policy)
  local id = policy .. lane
  local found = ladders[id]
  if not found then
    local bins, upto, sum, prio = {}, {}, 0, policy == 'prio'
    for at, items in ipairs(bins_at(lane)) do
      local bin = at - 1
      if items > 0 and bin < LEASED and not (prio and bin == FRESH) then
        sum = sum + (prio and items * powers[bin] or items)
        bins[#bins + 1] = bin
        upto[#bins] = sum
      end
    end
    found = { bins = bins, upto = upto, sum = sum }
    ladders[id] = found
  end
  return found
end

-- Sum of weight^alpha over the lane's scored bins.
local function prio_mass(lane) return ladder(lane, 'prio').sum end

local function lanes_of(part)
  local ids = {}
  if part[3] == '*' then
    for lane = 0, lane_count() - 1 do
      if lane_is(lane, STARRED) then ids[#ids + 1] = lane end
    end
  else
    local names = #part[3] > 0 and call('HMGET', T .. ':lanes', unpack(part[3])) or {}
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

-- A bin by its sum, and a place in it.
local function pick_bin(lane, policy)
  local steps = ladder(lane, policy)
  local upto, low, high = steps.upto, 1, #steps.upto
  local u = policy == 'prio' and math.random() * steps.sum or math.random(steps.sum) - 1
  while low < high do
    local middle = floor((low + high) / 2)
    if u < upto[middle] then high = middle else low = middle + 1 end
  end
  local bin = steps.bins[low]
  return bin, policy == 'prio' and math.random(bins_at(lane)[bin + 1]) - 1 or u - (upto[low - 1] or 0)
end

-- The next pick of a cell: an array cell {lane, bin, pos} or, from a ring, a slot; nil when a draw without replacement
-- has seen them all.
local function pick(cell)
  if cell.policy == 'recent' then
    local newest = ring(cell.lane)
    local slot = newest.slots[math.random(#newest.slots)]
    return { cell = cell, bin = newest.bin_of[slot], slot = slot }
  end
  if cell.policy ~= 'fresh' then
    local bin, pos = pick_bin(cell.lane, cell.policy)
    return { cell = cell, bin = bin, pos = pos }
  end
  cell.swaps, cell.used = cell.swaps or {}, cell.used or 0
  if cell.used >= cell.n then return nil end
  local at = math.random(cell.n - cell.used) - 1
  local top = cell.n - cell.used - 1
  local pos = cell.swaps[at] or at
  cell.swaps[at] = cell.swaps[top] or top
  cell.used = cell.used + 1
  return { cell = cell, bin = FRESH, pos = pos }
end

-- Reads the slots of picks, those of one array together.
local function resolve(picks)
  local by_array = {}
  for _, one in ipairs(picks) do
    if not one.slot then
      local id = one.cell.lane * BINS + one.bin
      by_array[id] = by_array[id] or {}
      table.insert(by_array[id], one)
    end
  end
  for _, group in pairs(by_array) do
    local key = T .. ':b:' .. group[1].cell.lane .. ':' .. group[1].bin
    if #group == 1 then
      local at = group[1].pos * 4
      group[1].slot = unstruct('>I4', call('GETRANGE', key, format('%d', at), format('%d', at + 3)))
    end
    for from = 1, #group > 1 and #group or 0, MANY do
      local gets = {}
      for i = from, math.min(from + MANY - 1, #group) do
        local at = #gets
        gets[at + 1], gets[at + 2], gets[at + 3] = 'GET', 'u32', format('%d', group[i].pos * 32)
      end
      for i, slot in ipairs(call('BITFIELD', key, unpack(gets))) do group[from + i - 1].slot = slot end
    end
  end
end

local erasing = nil
if call('SCARD', T .. ':er') > 0 then
  erasing = {}
  for _, cust in ipairs(call('SMEMBERS', T .. ':er')) do erasing[cust] = true end
end

-- The record of a drawn item as it is stored; nil when it may not leave.
local function drawable(slot)
  local page, offset = record_at(slot)
  local raw = call('GETRANGE', page, format('%d', offset), format('%d', offset + RECORD - 1))
  local overdue = unstruct('>I4', raw, 9) + cfg.ttl <= cfg.now and not exempt(string.byte(raw, 28))
  if overdue or erasing and erasing[string.sub(raw, 17, 24)] then return nil end
  if input.lease > 0 and not records[slot] then adopt(slot, raw) end
  return raw
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
  local deadlines = {}
  for _, slot in ipairs(drawn) do
    local r = record(slot)
    if live(r) and r[BIN] ~= LEASED then
      take(r)
      r[PREV], r[TOKEN] = r[BIN], r[TOKEN] % 255 + 1
      place(r, LEASED)
      local at = #deadlines
      deadlines[at + 1], deadlines[at + 2] = cfg.now + input.lease, slot
    end
  end
  in_parts(deadlines, 'ZADD', T .. ':ls')
end

-- Payloads of the rows in their order, and the late notes of those that have some, {row, notes, ...}.
local function payloads(rows)
  local values, notes, by_bucket = {}, {}, {}
  for i, row in ipairs(rows) do
    local flags = string.byte(row, 28)
    local bucket = bucket_of(unstruct('>I4', row, 9), flags)
    by_bucket[bucket] = by_bucket[bucket] or { at = {}, digests = {} }
    table.insert(by_bucket[bucket].at, i)
    table.insert(by_bucket[bucket].digests, string.sub(row, 1, 8))
    if flags >= ANNOTATED then
      table.insert(notes, i - 1)
      table.insert(notes, call('HGET', T .. ':a:' .. bucket, string.sub(row, 1, 8)) or '')
    end
  end
  for bucket, wanted in pairs(by_bucket) do
    for from = 1, #wanted.at, MANY do
      local last = math.min(from + MANY - 1, #wanted.at)
      local found = call('HMGET', T .. ':d:' .. bucket, unpack(wanted.digests, from, last))
      for i = from, last do values[wanted.at[i]] = found[i - from + 1] end
    end
  end
  return values, notes
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
for _, cell in ipairs(cells) do shares[cell.part] = shares[cell.part] + cell.expected / input.planned end
for _ = 1, 8 do -- what may not leave is drawn again from the same cell
  local picks = {}
  for _, cell in ipairs(cells) do
    for _ = 1, cell.count do picks[#picks + 1] = pick(cell) end
    cell.count = 0
  end
  resolve(picks)
  for _, one in ipairs(picks) do
    local raw, cell = drawable(one.slot), one.cell
    if raw then
      local p = probability(cell.lane, one.bin, one.slot)
      rows[#rows + 1] = raw .. pack('>I4Bd', one.slot, cell.part - 1, p)
      slots[#slots + 1] = one.slot
      realised[cell.part] = realised[cell.part] + 1
      N.smp = N.smp + cell.counted
    else
      cell.count = cell.count + 1
    end
  end
  if #rows == input.k or #picks == 0 then break end
end
if input.lease > 0 then lease(slots) end
flush()
local values, notes = {}, {}
if input.payloads then values, notes = payloads(rows) end
for i = 1, #shares do shares[i] = string.format('%.17g', shares[i]) end
return { 'draw', cfg.now, N.seq, n, string.format('%.17g', least), table.concat(rows), shares, realised, values, notes }
