-- KEYS: places that are held. ARGV: now or '', lease in ms; then a ticket for each place.

local until_then, lease = clock(ARGV[1]) + ARGV[2], tonumber(ARGV[2])
for i = 1, #KEYS do
  redis.call('ZADD', KEYS[i], until_then, ARGV[2 + i])
  redis.call('PEXPIRE', KEYS[i], 2 * lease)
end
return 1
