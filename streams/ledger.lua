-- Shared by every script that has an effect: prepended to it, so that entry and effect are one write.
-- An entry is the string "outcome|reason|effects|sample,sample" under led:<digest of the event id>; that of a reply whose
-- training some sample has claimed ends in "|kind/n=holder,kind/n=holder".
local ledger_moves = {
  waiting = { waiting = true, accepted = true, rejected = true, removed = true },
  dead_lettered = { waiting = true },
}

local function ledger_split(entry)
  return string.match(entry, '^([^|]*)|([^|]*)|([^|]*)|([^|]*)|?(.*)$')
end

-- Who claimed a reply's `kind/n`; nil for nobody.
local function ledger_holder(claims, name)
  for kind, holder in string.gmatch(claims, '([^,=]+)=([^,]+)') do
    if kind == name then return holder end
  end
end

-- The claims with `name` held by `holder`, whoever had it.
local function ledger_claimed(claims, name, holder)
  if claims == '' then return name .. '=' .. holder end
  local kept = { name .. '=' .. holder }
  for kind, other in string.gmatch(claims, '([^,=]+)=([^,]+)') do
    if kind ~= name then kept[#kept + 1] = kind .. '=' .. other end
  end
  return table.concat(kept, ',')
end

-- Where an entry goes: outcome, reason, effects, samples; nothing when it stays as it is.
local function ledger_next(entry, outcome, reason, effects, sample)
  if not entry then return outcome, reason, effects, sample end
  local old, _, old_effects, old_samples = ledger_split(entry)
  effects = math.max(tonumber(old_effects), effects)
  if old == 'accepted' and outcome == 'accepted' then
    if sample == '' or string.find(',' .. old_samples .. ',', ',' .. sample .. ',', 1, true) then return nil end
    return outcome, reason, effects, old_samples == '' and sample or (old_samples .. ',' .. sample)
  end
  if not (ledger_moves[old] and ledger_moves[old][outcome]) then return nil end
  return outcome, reason, effects, sample == '' and old_samples or sample
end

local ledger_known = {} -- entries as this script has read or written them; false for none

-- Reads entries that the script will ask for, with one call.
local function ledger_load(keys)
  for at = 1, #keys, 500 do
    local last = math.min(at + 499, #keys)
    for i, entry in ipairs(redis.call('MGET', unpack(keys, at, last))) do ledger_known[keys[at + i - 1]] = entry end
  end
end

-- An entry; false for none.
local function ledger_read(key)
  if ledger_known[key] == nil then ledger_known[key] = redis.call('GET', key) end
  return ledger_known[key]
end

-- Moves one entry; an accepted event only gains samples. `name`, `holder`: a claim that is filed with it. Returns 1 if the
-- entry changed.
local function ledger_move(key, outcome, reason, effects, sample, ttl, name, holder)
  local entry = ledger_read(key)
  local value
  local to, why, times, samples = ledger_next(entry, outcome, reason or '', effects, sample or '')
  if to then
    value = to .. '|' .. why .. '|' .. times .. '|' .. samples
  elseif not name then
    return 0
  else
    value = string.match(entry, '^[^|]*|[^|]*|[^|]*|[^|]*')
  end
  local claims = entry and select(5, ledger_split(entry)) or ''
  if name then claims = ledger_claimed(claims, name, holder) end
  if claims ~= '' then value = value .. '|' .. claims end
  if value == entry then return 0 end
  redis.call('SET', key, value, 'EX', ttl)
  ledger_known[key] = value
  return 1
end
