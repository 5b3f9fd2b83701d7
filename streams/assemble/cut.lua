-- Writes what leaves a conversation: samples with their near copies and caps, records to produce, ledger entries, memo.
-- Prepended: ledger.lua, reject.lua, near_copies.lua. ARGV[1] (msgpack): conversation, part, generation, memo, left, final, ttl,
-- ledger_ttl, daily, hourly, samples = {{id, units, {{digest, event}, ...}}, ...} (events that no sample held before),
-- records = {{id, sample}, ...} (sample: number of the sample that it belongs to, 0 for none),
-- said = {spec of dup_say, ...} of refused copies, rejected = {{digest, reason, event, score}, ...}, settled =
-- {{digest, event}, ...}, masked = {{event, its new content}, ...}; then the content of each record.
-- Answers nil when the conversation has changed meanwhile, else its generation, the reason of each sample ('' kept), and
-- name and content of the records of what is rejected.
local input = cmsgpack.unpack(ARGV[1])
local conversation, out = 'asm:c:' .. input.conversation, 'asm:out:' .. input.part
if tonumber(redis.call('HGET', conversation, 'g') or '-1') ~= input.generation then return false end

for _, unit in ipairs(input.said) do dup_say(unit) end
for _, event in ipairs(input.masked) do redis.call('HSET', conversation, 'e:' .. event[1], event[2]) end
local reasons, told = {}, {}

local function refuse(digest, event, reason, score)
  ledger_move('led:' .. digest, 'rejected', reason, 0, '', input.ledger_ttl)
  local name, record = reject(out, redis.call('HGET', conversation, 'e:' .. event), reason, score)
  told[#told + 1], told[#told + 2] = name, record
end

for i, sample in ipairs(input.samples) do
  reasons[i] = ''
  for _, unit in ipairs(sample[2]) do
    dup_say(unit)
    local counts = dup_file(unit)
    if counts[2] > input.hourly then
      reasons[i] = 'source_flood'
    elseif counts[1] > input.daily and reasons[i] == '' then
      reasons[i] = 'customer_cap'
    end
  end
  if reasons[i] == '' then
    redis.call('HINCRBY', conversation, 'k', 1)
  else
    for _, event in ipairs(sample[3]) do refuse(event[1], event[2], reasons[i], 1) end
  end
end
for i, record in ipairs(input.records) do
  if record[2] == 0 or reasons[record[2]] == '' then redis.call('HSET', out, record[1], ARGV[i + 1]) end
end
for _, entry in ipairs(input.rejected) do refuse(entry[1], entry[3], entry[2], entry[4]) end
local kept = tonumber(redis.call('HGET', conversation, 'k') or '0')
for _, close in ipairs(input.settled) do
  if kept > 0 then
    ledger_move('led:' .. close[1], 'accepted', '', 1, '', input.ledger_ttl)
  else
    refuse(close[1], close[2], 'no_reply', 1)
  end
end
redis.call('HSET', conversation, 'm', input.memo, 'l', input.left)
redis.call('EXPIRE', conversation, input.ttl)
if input.final then
  redis.call('SREM', 'asm:open:' .. input.part, input.conversation)
else
  redis.call('SADD', 'asm:open:' .. input.part, input.conversation)
end
return { redis.call('HINCRBY', conversation, 'g', 1), reasons, told }
