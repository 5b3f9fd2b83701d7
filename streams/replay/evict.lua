-- Which item leaves when a lane or the table is full. Prepended, behind core.lua, to scripts that evict.
local WINDOW = 4 -- queue entries read at once; an insert of many raises it

-- Reads the records of queue entries whose slots follow each other, as those of one insert do, with one call.
local function adopt_runs(entries)
  local i, n = 1, #entries
  while i <= n do
    local slot, length = unstruct('>I4', entries[i]), 1
    while i + length <= n and (slot + length) % PAGE ~= 0 and unstruct('>I4', entries[i + length]) == slot + length do
      length = length + 1
    end
    if length > 1 then
      local page, offset = record_at(slot)
      local raw = call('GETRANGE', page, offset, offset + length * RECORD - 1)
      for k = 0, length - 1 do
        if not records[slot + k] then adopt(slot + k, string.sub(raw, k * RECORD + 1, k * RECORD + RECORD)) end
      end
    end
    i = i + length
  end
end

-- The entry at the front of a lane's queue, this script's own entries behind those in Redis; nil when there is none.
local function front(lane)
  local head = heads[lane]
  if not head then
    head = { at = 0, from = 0, entries = {} }
    heads[lane] = head
  end
  local entry = head.entries[head.at - head.from + 1]
  if entry then return entry end
  if not head.read then
    head.from = head.at
    head.entries = call('LRANGE', T .. ':q:' .. lane, head.at, head.at + WINDOW - 1)
    head.read = #head.entries < WINDOW -- nothing behind it
    adopt_runs(head.entries)
    if head.entries[1] then return head.entries[1] end
  end
  return queued[lane] and queued[lane][1]
end

local function drop_front(lane)
  local head = heads[lane]
  if head.entries[head.at - head.from + 1] then
    head.at = head.at + 1
  else
    table.remove(queued[lane], 1)
  end
end

-- Oldest live item of a lane's queue; for a reservoir only items that were never trained. Stale entries are dropped.
local function oldest(lane, untrained)
  while true do
    local entry = front(lane)
    if not entry then return nil end
    drop_front(lane)
    local slot, seq = unstruct('>I4I4', entry)
    local r = record(slot)
    if live(r, seq) and r[LANE] == lane and not (untrained and r[TIMES] > 0) then return r end
  end
end

-- A trained item of the lane, each with equal chance; leased ones are left to their holders.
local function random_trained(lane)
  local bins, sum = bins_of(lane), 0
  for bin = 1, SPENT do
    if bin ~= LEASED then sum = sum + bins[bin] end
  end
  if sum == 0 then return nil end
  local nth = math.random(sum) - 1
  for bin = 1, SPENT do
    local size = bin ~= LEASED and bins[bin] or 0
    if nth < size then return record(slot_in(lane, bin, nth)) end
    nth = nth - size
  end
end

local function lowest(lane)
  local bins = bins_of(lane)
  if bins[SPENT] > 0 then return record(slot_in(lane, SPENT, 0)) end
  for bin = 1, 62 do
    if bins[bin] > 0 then return record(slot_in(lane, bin, 0)) end
  end
  for _, bin in ipairs({ FRESH, LEASED }) do
    if bins[bin] > 0 then return record(slot_in(lane, bin, 0)) end
  end
end

-- The item that a lane gives up; `untrained` asks a reservoir for its oldest fresh one.
local function victim(lane, untrained)
  local quota, fresh_quota, policy = lane_rules(lane)
  if policy == FIFO then return oldest(lane, false) end
  if policy == LOWEST then return lowest(lane) end
  local fresh = lane_get(lane, UNTRAINED)
  local fuller = fresh / fresh_quota > (lane_get(lane, TOTAL) - fresh) / quota
  return (untrained or fuller) and oldest(lane, true) or random_trained(lane) or oldest(lane, true) or lowest(lane)
end

local function evict(r)
  evictions[r[LANE]] = (evictions[r[LANE]] or 0) + 1
  evicted = evicted + 1
  remove(r, 'ev')
end

local function evict_from(lane, untrained)
  local r = victim(lane, untrained)
  if not r then error('lane ' .. lane .. ' of ' .. T .. ' counts items that no index holds') end
  evict(r)
end

-- Items that newcomers compete with, and how many of them the lane may hold: a reservoir keeps room apart for fresh ones.
local function contested(lane)
  local quota, fresh_quota, policy = lane_rules(lane)
  if policy == RESERVOIR then return lane_get(lane, UNTRAINED), fresh_quota end
  return lane_get(lane, TOTAL), quota
end

-- The lane that is fullest by its own quota.
local function fullest()
  local best, best_fill = nil, -1
  for lane = 0, lane_count() - 1 do
    local total = lanes[lane * LANE_U32 + TOTAL]
    if total > 0 then
      local most = quotas[lane * 3 + 1]
      if floor(quotas[lane * 3 + 3] / 16777216) == RESERVOIR then
        most = most + quotas[lane * 3 + 2]
      end
      if total > best_fill * most then best, best_fill = lane, total / most end
    end
  end
  return best
end
