-- Remembers who was told a claim (`dup:e:`, if it was admitted) and who against another (`dup:x:`): customer -> agent
-- with, at @, when it was told last or contradicted first;
-- the replies against it (`dup:m:`, and by hour `dup:o:`). Of units that are refused as copies too; twice changes nothing.
-- spec: member, cluster ('' one of its own), against = {cluster, ...}, who, agent, admitted, said_at, ttl.
local VOICES = 64 -- more tell nothing new

local function dup_voice(key, spec)
  if spec.who == '' then return end
  local at = tonumber(redis.call('HGET', key, '@'))
  local latest = string.sub(key, 1, 6) == 'dup:e:'
  if not at or (latest and spec.said_at > at) then redis.call('HSET', key, '@', string.format('%.3f', spec.said_at)) end
  if redis.call('HLEN', key) < VOICES then redis.call('HSETNX', key, spec.who, spec.agent) end
  redis.call('EXPIRE', key, spec.ttl)
end

local function dup_say(spec)
  local cluster = spec.cluster ~= '' and spec.cluster or spec.member
  if spec.admitted then dup_voice('dup:e:' .. cluster, spec) end
  for _, other in ipairs(spec.against) do
    dup_voice('dup:x:' .. other, spec)
    local members, hour = 'dup:m:' .. other, 'dup:o:' .. other .. ':' .. math.floor(spec.said_at / 3600)
    if redis.call('SCARD', members) < VOICES then redis.call('SADD', members, spec.member) end
    redis.call('EXPIRE', members, spec.ttl)
    redis.call('SADD', hour, spec.member)
    redis.call('EXPIRE', hour, 7200)
  end
end

-- Files one unit (a question and its reply) under `dup:`; prepended to the script that cuts a sample, so that cut and
-- filing are one write. Everything is a set of members (event ids of replies): filing twice changes nothing.
-- spec: member, sample, signature, cluster ('' starts one of its own), split, customer, reply_key, hour, day, ttl, bands.
-- Returns { size of the customer's day, growth of the cluster this hour, occurrences of the reply }.
local function dup_file(spec)
  local unit = 'dup:u:' .. spec.member
  local held = redis.call('HGET', unit, 'c')
  local cluster = held or (spec.cluster ~= '' and spec.cluster) or spec.member
  if not held then
    redis.call('HSET', unit, 'c', cluster, 's', spec.signature, 'x', table.concat(spec.against, ' '))
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
