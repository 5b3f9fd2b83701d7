-- Which Kafka offsets have had their effect: one bit each, in chunks of 65,536 that outlive Kafka's retention.
-- Prepended to every script with an effect: read the bit first, set it last, in the same script as the effect.
local function offset_chunk(epoch, topic, part, chunk)
  return string.format('{rb:src}:o:%s:%s:%d:%d', epoch, topic, part, chunk)
end

-- True when this offset has had its effect.
local function offset_seen(epoch, topic, part, off)
  return redis.call('GETBIT', offset_chunk(epoch, topic, part, math.floor(off / 65536)), off % 65536) == 1
end

local offset_kept = {} -- chunks whose life this script has renewed
-- Marks one offset; `ttl` is the life of its chunk in seconds, counted from the last mark in it.
local function offset_mark(epoch, topic, part, off, ttl)
  local key = offset_chunk(epoch, topic, part, math.floor(off / 65536))
  redis.call('SETBIT', key, off % 65536, 1)
  if not offset_kept[key] then
    redis.call('EXPIRE', key, ttl)
    offset_kept[key] = true
  end
end
