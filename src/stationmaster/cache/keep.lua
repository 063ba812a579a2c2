-- Keep an answer within a bound: what expires first makes room.
-- KEYS: the order of expiry, the sizes, the total, the answer
-- ARGV: prefix of answers, name, text, now, expires at, limit, cost of an entry beside its text
local order, sizes, total = KEYS[1], KEYS[2], KEYS[3]
local prefix, name, text = ARGV[1], ARGV[2], ARGV[3]
local now, expires, limit = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local size = #text + tonumber(ARGV[7])

local function forget(one)
  local was = redis.call('HGET', sizes, one)
  if was then
    redis.call('DECRBY', total, was)
    redis.call('HDEL', sizes, one)
  end
  redis.call('ZREM', order, one)
  redis.call('DEL', prefix .. one)
end

forget(name)
for _, one in ipairs(redis.call('ZRANGEBYSCORE', order, '-inf', now, 'LIMIT', 0, 100)) do
  forget(one)
end
if text == '' or size > limit or expires <= now then
  return 0
end
while tonumber(redis.call('GET', total) or '0') + size > limit do
  local first = redis.call('ZRANGE', order, 0, 0)[1]
  if not first then
    redis.call('SET', total, 0)
    break
  end
  forget(first)
end
redis.call('SET', prefix .. name, text, 'PX', expires - now)
redis.call('ZADD', order, expires, name)
redis.call('HSET', sizes, name, size)
redis.call('INCRBY', total, size)
return 1
