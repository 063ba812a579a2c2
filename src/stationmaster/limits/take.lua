-- KEYS: windows, then places. ARGV: now or '', how many windows, ticket, lease in ms; then for each
-- window amount, period, burst, width, wanted, lifetime; then for each place how many.
-- Returns now, the refusing key's number or 0, its wait, and for each window what is left and when
-- all of it is. Where one refuses nothing is counted.

local now, rates, ticket, lease = clock(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local lines, refused, longest, at = {}, 0, -2, 4

for i = 1, rates do
  local n = {}
  for j = 1, 6 do n[j] = tonumber(ARGV[at + j]) end
  at = at + 6
  local line = window(KEYS[i], now, n[1], n[2], n[3], n[4])
  line.wanted, line.lifetime = n[5], n[6]
  lines[i] = line
  if longest ~= -1 and (free(line) < line.wanted or line.burst == 0) then
    local pause = wait(line, line.wanted)
    if pause == -1 or pause > longest then refused, longest = i, pause end
  end
end

for i = rates + 1, #KEYS do
  local most = tonumber(ARGV[at + i - rates])
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
  if refused == 0 and redis.call('ZCARD', KEYS[i]) >= most then
    refused, longest = i, most > 0 and 1000 or -1
  end
end

local answer = {now, refused, longest}
for i = 1, rates do
  local line = lines[i]
  if refused == 0 then add(line, line.wanted) end
  if refused == 0 or line.moved then keep(line, line.lifetime) end
  answer[#answer + 1] = free(line)
  answer[#answer + 1] = reset(line)
end
if refused == 0 then
  for i = rates + 1, #KEYS do
    redis.call('ZADD', KEYS[i], now + lease, ticket)
    redis.call('PEXPIRE', KEYS[i], 2 * lease)
  end
end
return answer
