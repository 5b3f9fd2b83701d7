-- First unmarked offset at or above the partition's floor; the floor moves up to it, so that chunks which expire
-- later cannot send a reader back. ARGV = epoch, topic, partition.
local epoch, topic, part = ARGV[1], ARGV[2], tonumber(ARGV[3])
local field = epoch .. ':' .. topic .. ':' .. part
local floor = tonumber(redis.call('HGET', '{rb:src}:of', field) or '0')
local offset = floor
while true do
  local chunk = math.floor(offset / 65536)
  local key = offset_chunk(epoch, topic, part, chunk)
  local bit = offset % 65536
  if redis.call('EXISTS', key) == 0 then break end
  -- The byte that holds `offset` has smaller bits, which BITPOS would report: finish it bit by bit.
  while bit % 8 ~= 0 and redis.call('GETBIT', key, bit) == 1 do bit = bit + 1 end
  if bit % 8 == 0 and bit < 65536 then
    local found = redis.call('BITPOS', key, 0, bit / 8)
    -- With a start and no end BITPOS answers the first bit behind the string when all of it is ones, but -1
    -- when the string ends before the start.
    if found < 0 then found = math.max(bit, redis.call('STRLEN', key) * 8) end
    bit = found
  end
  offset = chunk * 65536 + bit
  if bit < 65536 then break end
end
if offset > floor then redis.call('HSET', '{rb:src}:of', field, string.format('%d', offset)) end
return offset
