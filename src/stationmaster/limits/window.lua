-- The algorithm of window.py, for Redis. A state is {debt, debt_at, first, last, count, …}.

local function clock(given)
  local now = tonumber(given)
  if now then return now end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function window(key, now, amount, period, burst, width)
  local line = {
    key = key, now = now, amount = amount, period = period, burst = burst, width = width,
    bursting = burst > amount, debt = 0, total = 0, slots = {},
  }
  local packed = redis.call('GET', key)
  if not packed then return line end
  local state = cmsgpack.unpack(packed)
  line.moved = state[2] ~= now -- what time has changed is kept, even if nothing is taken
  -- A clock that stepped back: what was counted "later" is taken to be of now.
  local ahead = #state > 2 and math.max(0, state[#state - 1] - now) or 0
  for i = 3, #state, 3 do
    local first, last, count = state[i] - ahead, state[i + 1] - ahead, state[i + 2]
    if last > now - period then
      line.slots[#line.slots + 1] = {first, last, count}
      line.total = line.total + count
    end
  end
  if line.bursting then
    line.debt = math.max(0, state[1] - math.max(0, now - state[2]) * amount)
  end
  return line
end

local function free(line)
  local left = line.burst - line.total
  if line.bursting then
    left = math.min(left, line.burst - math.ceil(line.debt / line.period))
  end
  return left
end

local function add(line, wanted)
  local newest = line.slots[#line.slots]
  if newest and line.now - newest[1] < line.width then
    newest[2], newest[3] = line.now, newest[3] + wanted
  else
    line.slots[#line.slots + 1] = {line.now, line.now, wanted}
  end
  line.total = line.total + wanted
  if line.bursting then line.debt = line.debt + wanted * line.period end
end

local function give_back(line, wanted, at)
  if line.bursting then
    -- What may have drained since is no longer there to be given back.
    local left = wanted * line.period - math.max(0, line.now - at) * line.amount
    line.debt = line.debt - math.min(line.debt, math.max(0, left))
  end
  for i = #line.slots, 1, -1 do
    local slot = line.slots[i]
    if slot[1] <= at and at <= slot[2] then
      wanted = math.min(wanted, slot[3])
      slot[3] = slot[3] - wanted
      line.total = line.total - wanted
      break
    end
  end
end

-- Milliseconds until `wanted` fits; -1 for never.
local function wait(line, wanted)
  if wanted > line.burst or line.burst == 0 then return -1 end
  local ready, needed = line.now, line.total + wanted - line.burst
  for _, slot in ipairs(line.slots) do
    if needed <= 0 then break end
    needed = needed - slot[3]
    ready = slot[2] + line.period
  end
  if line.bursting then
    local over = line.debt + (wanted - line.burst) * line.period
    ready = math.max(ready, line.now + math.ceil(over / line.amount))
  end
  return math.max(0, ready - line.now)
end

local function reset(line)
  local newest, done = line.slots[#line.slots], line.now
  if newest then done = newest[2] + line.period end
  if line.bursting then done = math.max(done, line.now + math.ceil(line.debt / line.amount)) end
  return done
end

local function keep(line, lifetime)
  local state = {line.debt, line.now}
  for _, slot in ipairs(line.slots) do
    for i = 1, 3 do state[#state + 1] = slot[i] end
  end
  redis.call('SET', line.key, cmsgpack.pack(state), 'PX', lifetime)
end
