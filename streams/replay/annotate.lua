-- Late feedback on stored replies. ARGV[1] (msgpack): epoch, offset = {topic, partition, offset} or {}, feedback (hex),
-- label, weight, targets (hex digests of reply events). Runs on the server's only ledger, whatever table holds the reply.
-- Answers applied, duplicate, or no_target; the ledger entry of the feedback says accepted or rejected.
redis.call('HINCRBY', '{rb:src}:n', 'annotations', 1) -- denied when memory is full, so nothing has happened then
local input = cmsgpack.unpack(ARGV[1])
local ledger_ttl, retention = tonumber(ARGV[2]), tonumber(ARGV[3])
if input.offset[1] and offset_seen(input.epoch, unpack(input.offset)) then return 'duplicate' end

local function raw(hex)
  return (string.gsub(hex, '..', function(pair) return string.char(tonumber(pair, 16)) end))
end

local function annotate(table_, bucket, digest, reply)
  local payloads, notes = table_ .. ':d:' .. bucket, table_ .. ':a:' .. bucket
  local value = redis.call('HGET', payloads, digest)
  if not value then return nil end
  local old = redis.call('HGET', notes, digest) or ''
  local name = raw(reply) .. raw(input.feedback)
  for at = 1, #old, 25 do
    if string.sub(old, at, at + 15) == name then return false end
  end
  redis.call('HSET', notes, digest, old .. name .. struct.pack('B', input.label) .. struct.pack('<d', input.weight))
  local left = redis.call('TTL', payloads)
  if left > 0 then redis.call('EXPIRE', notes, left) end
  local slot = struct.unpack('>I4', value)
  local page, flags = table_ .. ':m:' .. math.floor(slot / 1023), (slot % 1023) * 48 + 27
  local bits = string.byte(redis.call('GETRANGE', page, flags, flags))
  if math.floor(bits / 4) % 2 == 0 then redis.call('SETRANGE', page, flags, string.char(bits + 4)) end
  return true
end

local applied, again = 0, 0
for _, reply in ipairs(input.targets) do
  local entry = redis.call('GET', 'led:' .. reply)
  for kind, holder in string.gmatch(entry and select(5, ledger_split(entry)) or '', '([^,=]+)=([^,]+)') do
    local digest, bucket, name = string.match(holder, '^(%x+):([^:]*):(.+)$')
    if string.sub(kind, 1, 4) ~= 'edit' then
      local done = annotate('{rb:' .. name .. '}', bucket, raw(digest), reply)
      if done then applied = applied + 1 elseif done == false then again = again + 1 end
    end
  end
end
local key = 'led:' .. input.feedback
if applied + again > 0 then
  ledger_move(key, 'accepted', '', 1, '', ledger_ttl)
else
  ledger_move(key, 'rejected', 'no_target', 0, '', ledger_ttl)
end
if input.offset[1] then offset_mark(input.epoch, input.offset[1], input.offset[2], input.offset[3], retention) end
return applied > 0 and 'applied' or again > 0 and 'duplicate' or 'no_target'
