-- Number a turn of a conversation, once per event id.
-- KEYS[1] hash: event id -> seq, "n" -> next seq; ARGV: event id, 1 when it is a turn (else it only reads), ttl
local known = redis.call('HGET', KEYS[1], 'e:' .. ARGV[1])
if known then
  return tonumber(known)
end
local next = tonumber(redis.call('HGET', KEYS[1], 'n') or '0')
if ARGV[2] == '1' then
  redis.call('HSET', KEYS[1], 'e:' .. ARGV[1], next, 'n', next + 1)
else
  redis.call('HSET', KEYS[1], 'e:' .. ARGV[1], next)
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return next
