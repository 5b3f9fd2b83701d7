-- One turn begins: pin the conversation, and number the messages that are new to us.
-- KEYS[1] pin  KEYS[2] turns
-- ARGV ttl_ms, proposed pin, job, digests "c:hex,a:hex,..." (empty: nothing is recorded)
-- Returns {pin, 1 if it is new, seq of the first new message (-1: not recorded), messages before it, new ones}
local pin = redis.call('GET', KEYS[1])
local fresh = 0
if pin then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
else
  pin, fresh = ARGV[2], 1
  redis.call('SET', KEYS[1], pin, 'PX', ARGV[1])
end
if ARGV[4] == '' then return {pin, fresh, -1, 0, 0} end

local raw = redis.call('GET', KEYS[2])
local state = raw and cjson.decode(raw) or {next = 0, tail = {}, jobs = {}}
for _, job in ipairs(state.jobs) do
  if job.id == ARGV[3] then return {pin, fresh, job.first, job.skip, job.count} end
end

local asked = {}
for digest in string.gmatch(ARGV[4], '[^,]+') do asked[#asked + 1] = digest end

-- The messages behind the last match are new: the newest stored turn that the request holds, aligned where
-- most turns before it agree too (a customer may say "yes" twice).
local skip = -1
for last = #state.tail, 1, -1 do
  local best = 0
  for at = #asked, 1, -1 do
    local run = 0
    while run < at and run < last and asked[at - run] == state.tail[last - run] do run = run + 1 end
    if run > best then best, skip = run, at end
  end
  if best > 0 then break end
end
local count = #asked - skip
if skip < 0 then
  skip, count = #asked, 0
  for at = #asked, 1, -1 do
    if string.sub(asked[at], 1, 1) == 'c' then
      skip, count = at - 1, 1
      break
    end
  end
end

local first = state.next
for at = skip + 1, skip + count do state.tail[#state.tail + 1] = asked[at] end
while #state.tail > 32 do table.remove(state.tail, 1) end
state.next = first + count
state.jobs[#state.jobs + 1] = {id = ARGV[3], first = first, skip = skip, count = count}
while #state.jobs > 8 do table.remove(state.jobs, 1) end
redis.call('SET', KEYS[2], cjson.encode(state), 'PX', ARGV[1])
return {pin, fresh, first, skip, count}
