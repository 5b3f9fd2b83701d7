-- Removes by name. ARGV = mode, then its arguments; some 32 items a call.
--   retire <reason> <digest>...   superseded samples; answers how many left
--   erase <customer> <most>       one chunk of a customer; answers {rows of what left, how many are still there}
--   relane <lane> <digest>...     moves samples to another lane, as fresh as they were; answers how many
call('HDEL', T .. ':n', '-') -- marks the script as writing, so that a full memory does not stop it
load()

local function find(digest)
  for _, bucket in ipairs(call('HKEYS', T .. ':bk')) do
    local value = call('HGET', T .. ':d:' .. bucket, digest)
    if value then
      local r = record((unstruct('>I4', value)))
      if live(r) and r[DIGEST] == digest then return r end
    end
  end
end

local function retire()
  local gone = 0
  for i = 3, #ARGV do
    local r = find(ARGV[i])
    if r then
      remove(r, 'ret')
      gone = gone + 1
    end
  end
  if gone > 0 then call('HINCRBY', T .. ':ev', 'retired:' .. ARGV[2], gone) end
  return gone
end

local function erase()
  local rows, slots = {}, T .. ':c:' .. ARGV[2]
  for _, slot in ipairs(call('SRANDMEMBER', slots, ARGV[3])) do
    local r = record(tonumber(slot))
    if live(r) and r[CUST] == ARGV[2] then
      rows[#rows + 1] = pack('>c8I4I4I2', r[DIGEST], r[FIRST], r[LAST], r[TIMES])
      remove(r, 'era')
    end
  end
  if #rows > 0 then call('HINCRBY', T .. ':gone', ARGV[2], #rows) end
  return { table.concat(rows), call('SCARD', slots) - #rows }
end

local function relane()
  local moved = 0
  local lane = lane_id(ARGV[2])
  for i = 3, #ARGV do
    local r = find(ARGV[i])
    local held, quota = contested(lane)
    if r and r[LANE] ~= lane and held < quota then
      take(r)
      local bin = r[BIN]
      if bin == LEASED then
        unleased[#unleased + 1] = r[SLOT]
        bin = r[PREV]
      end
      r[LANE] = lane
      place(r, bin)
      if select(3, lane_rules(lane)) ~= LOWEST then enqueue(queued, lane, pack('>I4I4', r[SLOT], r[SEQ])) end
      moved = moved + 1
    end
  end
  return moved
end

local answer = ({ retire = retire, erase = erase, relane = relane })[ARGV[1]]()
flush()
return answer
