-- Files one unit (a question and its reply) under `dup:`; prepended to the script that cuts a sample, so that cut and
-- filing are one write. Everything is a set of members (event ids of replies): filing twice changes nothing.
-- spec: member, sample, signature, cluster ('' starts one of its own), split, customer, reply_key, hour, day, ttl, bands.
-- Returns { size of the customer's day, growth of the cluster this hour, occurrences of the reply }.
local function dup_file(spec)
  local unit = 'dup:u:' .. spec.member
  local held = redis.call('HGET', unit, 'c')
  local cluster = held or (spec.cluster ~= '' and spec.cluster) or spec.member
  if not held then
    redis.call('HSET', unit, 'c', cluster, 's', spec.signature)
    for _, band in ipairs(spec.bands) do
      local bucket = 'dup:b:' .. band
      redis.call('LPUSH', bucket, spec.member)
      redis.call('LTRIM', bucket, 0, 31)
      redis.call('EXPIRE', bucket, spec.ttl)
    end
    redis.call('SETNX', 'dup:c:' .. cluster, spec.split)
  end
  redis.call('EXPIRE', unit, spec.ttl)
  redis.call('EXPIRE', 'dup:c:' .. cluster, spec.ttl)
  local grown = 'dup:h:' .. cluster .. ':' .. spec.hour
  local daily = 'dup:d:' .. spec.customer .. ':' .. spec.day
  local reply = 'dup:t:' .. spec.reply_key
  redis.call('SADD', grown, spec.member)
  redis.call('EXPIRE', grown, 7200)
  redis.call('SADD', daily, spec.sample)
  redis.call('EXPIRE', daily, 172800)
  redis.call('PFADD', reply, spec.member)
  redis.call('EXPIRE', reply, spec.ttl)
  return { redis.call('SCARD', daily), redis.call('SCARD', grown), redis.call('PFCOUNT', reply) }
end
