-- Removes by name. ARGV = mode, then its arguments; at most 256 items a call.
--   retire <reason> <digest>...   superseded samples; answers how many left
--   erase <customer> <slots>      one chunk of a customer; answers {rows of what left, how many are still there}
--   relane <lane> <digest>...     moves samples to another lane, as fresh as they were; answers how many
redis.call('HDEL', T .. ':n', '-') -- marks the script as writing, so that a full memory does not stop it
load()

local function find(digest)
  for _, bucket in ipairs(redis.call('HKEYS', T .. ':bk')) do
    local value = redis.call('HGET', T .. ':d:' .. bucket, digest)
    if value then
      local r = record((struct.unpack('>I4', value)))
      if live(r) and r.digest == digest then return r end
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
  if gone > 0 then redis.call('HINCRBY', T .. ':ev', 'retired:' .. ARGV[2], gone) end
  return gone
end

local function erase()
  local rows = {}
  for i = 3, #ARGV do
    local r = record(tonumber(ARGV[i]))
    if live(r) and r.cust == ARGV[2] then
      rows[#rows + 1] = struct.pack('>c8I4I4I2', r.digest, r.first, r.last, r.times)
      remove(r, 'era')
    end
  end
  if #rows > 0 then redis.call('HINCRBY', T .. ':gone', ARGV[2], #rows) end
  return { table.concat(rows), redis.call('SCARD', T .. ':c:' .. ARGV[2]) }
end

local function relane()
  local moved = 0
  local lane = lane_id(ARGV[2])
  for i = 3, #ARGV do
    local r = find(ARGV[i])
    local held, quota = contested(lane)
    if r and r.lane ~= lane and held < quota then
      take(r)
      if r.bin == LEASED then
        redis.call('ZREM', T .. ':ls', r.slot)
        r.bin = r.prev
      end
      r.lane = lane
      place(r, r.bin)
      if select(3, lane_rules(lane)) ~= LOWEST then redis.call('RPUSH', T .. ':q:' .. lane, struct.pack('>I4I4', r.slot, r.seq)) end
      moved = moved + 1
    end
  end
  return moved
end

local answer = ({ retire = retire, erase = erase, relane = relane })[ARGV[1]]()
flush()
return answer
