-- Marks ranges: ARGV = epoch, topic, partition, ttl, then pairs first, last (inclusive). Whole bytes go as one write.
local epoch, topic, part, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local function mark_in_chunk(chunk, first, last)
  local key = offset_chunk(epoch, topic, part, chunk)
  while first <= last and (first % 8 ~= 0 or last - first < 7) do
    redis.call('SETBIT', key, first, 1)
    first = first + 1
  end
  local whole = math.floor((last - first + 1) / 8)
  if whole > 0 then
    redis.call('SETRANGE', key, first / 8, string.rep('\255', whole))
    first = first + whole * 8
  end
  for bit = first, last do
    redis.call('SETBIT', key, bit, 1)
  end
  redis.call('EXPIRE', key, ttl)
end

for i = 5, #ARGV, 2 do
  local first, last = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  for chunk = math.floor(first / 65536), math.floor(last / 65536) do
    local base = chunk * 65536
    mark_in_chunk(chunk, math.max(first - base, 0), math.min(last - base, 65535))
  end
end
