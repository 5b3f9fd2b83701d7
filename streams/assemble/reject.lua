-- Files the record of a rejection for chats.rejected with what is still to be produced: what the event was (scrubbed text
-- only), why it teaches nothing, and how sure that is (0 to 1). Prepended. `raw` is the clean event as JSON; nothing is
-- filed for one that was erased meanwhile. Answers the record's name and its content, a streams.assemble.store.Pending.
local function reject(out, raw, reason, score)
  if not raw then return end
  local event = cjson.decode(raw)
  local value = cjson.encode({
    event_id = event.event_id, conversation = event.conversation, seq = event.seq, type = event.type, reason = reason,
    score = score, role = event.role, text = event.text, offset = event.offset,
  })
  local name = event.event_id .. '/rejected/0'
  -- msgpack by hand: an array of three whose last is bytes, which cmsgpack does not write
  local record = '\147' .. cmsgpack.pack('chats.rejected') .. cmsgpack.pack(event.conversation)
    .. '\198' .. struct.pack('>I4', #value) .. value
  redis.call('HSET', out, name, record)
  return name, record
end
