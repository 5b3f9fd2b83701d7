-- Takes clean events in: turn, offset bit and ledger entry in one write. Prepended: ledger.lua, reject.lua, offsets.lua.
-- ARGV[1] (msgpack): epoch, topic, ttl, ledger_ttl, retention, events = {{part, off, conv, id, digest, seq, is_message,
-- customer}, ...}; then the encoded event of each. Answers, for each: status, generation of its conversation
-- (of a late one the record of its rejection). n new, d duplicate (known by its id), s seen (known by its offset), l late.
local input = cmsgpack.unpack(ARGV[1])
redis.call('HINCRBY', 'asm:n', 'arrivals', #input.events) -- denied when memory is full, so nothing has happened then
local answers = {}

local function take(event, value)
  local part, off, name, id, digest, seq, is_message, customer = unpack(event)
  if offset_seen(input.epoch, input.topic, part, off) then return 's', 0 end
  local conversation, entry = 'asm:c:' .. name, 'led:' .. digest
  local status, generation = 'n', 0
  local known = redis.call('GET', entry)
  if known and string.sub(known, 1, 14) ~= 'dead_lettered|' then
    status = 'd'
  elseif is_message and seq <= tonumber(redis.call('HGET', conversation, 'l') or '-1') then
    status = 'l'
    ledger_move(entry, known and 'waiting' or 'rejected', 'late', 0, '', input.ledger_ttl)
    if known then ledger_move(entry, 'rejected', 'late', 0, '', input.ledger_ttl) end
    generation = select(2, reject('asm:out:' .. part, value, 'late', 1))
  else
    redis.call('HSET', conversation, 'e:' .. id, value)
    generation = redis.call('HINCRBY', conversation, 'g', 1)
    redis.call('EXPIRE', conversation, input.ttl)
    redis.call('SADD', 'asm:open:' .. part, name)
    if customer ~= '' then
      redis.call('SADD', 'asm:cust:' .. customer, name)
      redis.call('EXPIRE', 'asm:cust:' .. customer, input.ttl)
    end
    ledger_move(entry, 'waiting', '', 1, '', input.ledger_ttl)
  end
  offset_mark(input.epoch, input.topic, part, off, input.retention)
  return status, generation
end

for i, event in ipairs(input.events) do
  local status, generation = take(event, ARGV[i + 1])
  answers[#answers + 1] = status
  answers[#answers + 1] = generation
end
return answers
