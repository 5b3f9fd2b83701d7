-- Writes back what a script changed. Appended to core.lua; neighbours go out together.
local queued, ringed, heads = {}, {}, {}
local function enqueue(pushed, lane, entry)
  local list = under(pushed, lane)
  list[#list + 1] = entry
end

local FEW = 4 -- changed cells up to which a call each costs less than gathering them

local function write_cells(a)
  local dirty, cells, sets = a.dirty, a.cells, {}
  local i, n, at = 1, #dirty, 0
  while i <= n do
    local first = dirty[i]
    local last = first
    while i < n and dirty[i + 1] == last + 1 and last - first < MANY do
      i, last = i + 1, last + 1
    end
    last = math.min(last, a.size - 1) -- cells behind the end were given up again
    if last > first or last == first and n <= FEW then
      call('SETRANGE', a.key, format('%d', first * 4), pack_u32(cells, first, last))
    elseif last == first then
      sets[at + 1], sets[at + 2], sets[at + 3], sets[at + 4] = 'SET', 'u32', format('%d', first * 32), format('%d', cells[first])
      at = at + 4
    end
    i = i + 1
  end
  in_parts(sets, 'BITFIELD', a.key)
end

local function write_arrays()
  local changed_in = {}
  for _, a in pairs(arrays) do
    settle(a)
    write_cells(a)
    if a.size ~= a.was then
      if a.size == 0 then call('DEL', a.key) end
      changed_in[a.lane] = changed_in[a.lane] or {}
      changed_in[a.lane][a.bin] = a.size
    end
  end
  for lane, bins in pairs(changed_in) do
    local low, high = BINS, -1
    for bin in pairs(bins) do low, high = math.min(low, bin), math.max(high, bin) end
    local values = unpack_u32(string.sub(counts[lane], low * 4 + 1, high * 4 + 4))
    for bin, size in pairs(bins) do values[bin - low + 1] = size end
    call('SETRANGE', T .. ':bc:' .. lane, low * 4, pack_u32(values, 1, #values))
  end
end

local function write_records()
  for slot, r in pairs(touched) do
    local page, offset = record_at(slot)
    call('SETRANGE', page, format('%d', offset + TAIL_AT), pack(TAIL, unpack(r, LANE, LAST)))
  end
  local i, n = 1, #made
  while i <= n do
    local slot, parts = made[i][SLOT], {}
    repeat
      parts[#parts + 1] = pack(FORMAT, unpack(made[i], DIGEST, LAST))
      i = i + 1
    until i > n or made[i][SLOT] ~= slot + #parts or made[i][SLOT] % PAGE == 0
    local page, offset = record_at(slot)
    call('SETRANGE', page, format('%d', offset), table.concat(parts))
  end
end

local function write_lanes()
  local many = 0
  for _ in pairs(lane_dirty) do many = many + 1 end
  for lane in pairs(many <= 8 and lane_dirty or {}) do
    local at = lane * LANE_U32
    call('SETRANGE', T .. ':lc', at * 4, pack_u32(lanes, at + 1, at + LANE_U32))
  end
  for at = 1, many > 8 and #lanes or 0, MANY do
    call('SETRANGE', T .. ':lc', (at - 1) * 4, pack_u32(lanes, at, math.min(at + MANY - 1, #lanes)))
  end
end

local function write_members()
  for cust, slots in pairs(members) do
    local key, came, went = T .. ':c:' .. cust, {}, {}
    for slot, theirs in pairs(slots) do
      local list = theirs and came or went
      list[#list + 1] = format('%d', slot)
    end
    in_parts(went, 'SREM', key)
    in_parts(came, 'SADD', key)
  end
end

local function flush()
  local fields = {}
  for _, name in ipairs(COUNTERS) do
    if N[name] ~= loaded[name] then
      fields[#fields + 1] = name
      fields[#fields + 1] = format('%d', N[name])
    end
  end
  if #fields > 0 then call('HSET', T .. ':n', unpack(fields)) end
  write_arrays() -- before the records: it may move some
  write_records()
  write_lanes()
  write_payloads()
  write_members()
  write_folds()
  for lane, head in pairs(heads) do
    if head.at > 0 then call('LTRIM', T .. ':q:' .. lane, head.at, -1) end
  end
  for lane, entries in pairs(queued) do in_parts(entries, 'RPUSH', T .. ':q:' .. lane) end
  for lane, entries in pairs(ringed) do
    in_parts(entries, 'RPUSH', T .. ':r:' .. lane)
    call('LTRIM', T .. ':r:' .. lane, -cfg.recent, -1)
  end
  for bucket, by in pairs(buckets) do
    if by ~= 0 and call('HINCRBY', T .. ':bk', bucket, by) == 0 then call('HDEL', T .. ':bk', bucket) end
  end
  for lane, by in pairs(evictions) do call('HINCRBY', T .. ':ev', lane .. ':' .. select(3, lane_rules(lane)), by) end
  in_parts(unleased, 'ZREM', T .. ':ls')
  local left = {}
  for i = next_spare, #spare do left[#left + 1] = spare[i] end
  in_parts(left, 'RPUSH', T .. ':free')
end
