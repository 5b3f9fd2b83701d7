-- Shared by every script that has an effect: prepended to it, so that entry and effect are one write.
-- An entry is the string "outcome|reason|effects|sample,sample" under led:<digest of the event id>.
local ledger_moves = {
  waiting = { waiting = true, accepted = true, rejected = true, removed = true },
  dead_lettered = { waiting = true },
}

local function ledger_split(entry)
  local outcome, reason, effects, samples = string.match(entry, '^([^|]*)|([^|]*)|([^|]*)|(.*)$')
  return outcome, reason, tonumber(effects), samples
end

-- Moves one entry; an accepted event only gains samples. Returns 1 if the entry changed.
local function ledger_move(key, outcome, reason, effects, sample, ttl)
  local entry = redis.call('GET', key)
  local samples = sample or ''
  if entry then
    local old, old_reason, old_effects, old_samples = ledger_split(entry)
    effects = math.max(old_effects, effects)
    if old == 'accepted' and outcome == 'accepted' then
      if samples == '' or string.find(',' .. old_samples .. ',', ',' .. samples .. ',', 1, true) then return 0 end
      samples = old_samples == '' and samples or (old_samples .. ',' .. samples)
    elseif not (ledger_moves[old] and ledger_moves[old][outcome]) then
      return 0
    elseif samples == '' then
      samples = old_samples
    end
  end
  local value = outcome .. '|' .. (reason or '') .. '|' .. effects .. '|' .. samples
  if value == entry then return 0 end
  redis.call('SET', key, value, 'EX', ttl)
  return 1
end
