-- One bounded piece of housekeeping. ARGV = cursor (page), most removals of each kind. Answers {next cursor, leases returned, expired, evicted, trimmed}.
-- Returns overdue leases, removes what is past its ttl on one page of records, trims queues, steps a lowered limit down.
call('HDEL', T .. ':n', '-') -- marks the script as writing, so that a full memory does not stop it
load()
math.randomseed(N.seq % 2147483647)
local page, PIECE = tonumber(ARGV[1]), tonumber(ARGV[2])

local returned = 0
for _, slot in ipairs(call('ZRANGEBYSCORE', T .. ':ls', '-inf', cfg.now, 'LIMIT', 0, PIECE)) do
  local r = record(tonumber(slot))
  unleased[#unleased + 1] = slot
  if live(r) and r[BIN] == LEASED then
    take(r)
    place(r, r[PREV])
    returned = returned + 1
  end
end

if returned > 0 then call('HINCRBY', T .. ':n', 'lex', returned) end

-- True while some bucket holds items past their ttl.
local function due()
  for _, bucket in ipairs(call('HKEYS', T .. ':bk')) do
    if bucket ~= 'x' and tonumber(bucket) * cfg.bucket + cfg.ttl <= cfg.now then return true end
  end
  return false
end

local expired = 0
local last_page = math.ceil(N.hi / PAGE)
if due() then
  local raw = call('GETRANGE', T .. ':m:' .. page, 0, -1)
  local slot = page * PAGE
  for at = 1, #raw - RECORD + 1, RECORD do
    if expired >= PIECE then break end
    local flags = string.byte(raw, at + 27)
    if flags % 2 == LIVE and not exempt(flags) and unstruct('>I4', raw, at + 8) + cfg.ttl <= cfg.now then
      remove(record(slot), 'exp')
      expired = expired + 1
    end
    slot = slot + 1
  end
  if expired < PIECE then page = page + 1 end
  if page >= last_page then page = 0 end
else
  page = 0
end

for lane = 0, lane_count() - 1 do
  local quota, _, policy = lane_rules(lane)
  while evicted < PIECE do
    local held, most = contested(lane)
    local trained = policy == RESERVOIR and lane_get(lane, TOTAL) - held or 0
    if held > most then
      evict_from(lane, true)
    elseif trained > quota then
      evict(random_trained(lane) or lowest(lane))
    else
      break
    end
  end
end
while evicted < PIECE and (N.n > cfg.cap or N.bytes > cfg.max_bytes) do evict_from(fullest(), false) end

local trimmed = 0
for lane = 0, lane_count() - 1 do
  while trimmed < PIECE do
    local entry = front(lane)
    if not entry then break end
    local slot, seq = unstruct('>I4I4', entry)
    local r = record(slot)
    local wanted = live(r, seq) and r[LANE] == lane
    if wanted and (select(3, lane_rules(lane)) ~= RESERVOIR or r[TIMES] == 0) then break end
    drop_front(lane)
    trimmed = trimmed + 1
  end
end

for _, customer in ipairs(call('ZRANGEBYSCORE', T .. ':tomb', '-inf', cfg.now - cfg.retention, 'LIMIT', 0, PIECE)) do
  call('ZREM', T .. ':tomb', customer)
  call('HDEL', T .. ':gone', customer)
end
flush()
return { page, returned, expired, evicted, trimmed }
