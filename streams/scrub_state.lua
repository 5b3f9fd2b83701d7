-- Stores scrub's conversation states and the offset bits of the events that changed them: all of a batch, or nothing.
-- Prepended: offsets.lua. ARGV[1] (msgpack): epoch, topic, ttl, retention, states = {{name, generation}, ...},
-- places = {{partition, offset}, ...}; then the encoded state of each. Answers 1, or 0 when another worker has changed one of the states.
local input = cmsgpack.unpack(ARGV[1])
redis.call('HINCRBY', 'scrub:n', 'batches', 1) -- denied when memory is full, so nothing has happened then
for _, state in ipairs(input.states) do
  local held = redis.call('GETRANGE', 'scrub:' .. state[1], 0, 7)
  local generation = held == '' and 0 or struct.unpack('>I8', held)
  if generation ~= state[2] then return 0 end
end
for i, state in ipairs(input.states) do
  redis.call('SET', 'scrub:' .. state[1], struct.pack('>I8', state[2] + 1) .. ARGV[i + 1], 'EX', input.ttl)
end
for _, place in ipairs(input.places) do
  offset_mark(input.epoch, input.topic, place[1], place[2], input.retention)
end
return 1
