-- wrk's script: POST a file with a key, and print the summary as one line of JSON.
-- Arguments: the body's path, the key.

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  file:close()
  wrk.headers["content-type"] = "application/json"
  wrk.headers["x-api-key"] = args[2]
  wrk.headers["anthropic-version"] = "2023-06-01"
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'summary {"requests": %d, "seconds": %.6f, "p50": %.3f, "p99": %.3f, "failed": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
