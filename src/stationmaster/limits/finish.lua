-- KEYS: windows, then places. ARGV: now or '', how many windows, ticket, when it was taken; then for
-- each window amount, period, burst, width, lifetime, and how much more was used (or less).

local now, rates, ticket, taken = clock(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])

for i = 1, rates do
  local n = {}
  for j = 1, 6 do n[j] = tonumber(ARGV[4 + (i - 1) * 6 + j]) end
  local line = window(KEYS[i], now, n[1], n[2], n[3], n[4])
  if n[6] > 0 then add(line, n[6]) else give_back(line, -n[6], taken) end
  keep(line, n[5])
end
for i = rates + 1, #KEYS do
  redis.call('ZREM', KEYS[i], ticket)
end
return 1
