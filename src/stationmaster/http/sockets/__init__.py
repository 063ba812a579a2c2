"""WebSockets: one connection, many requests, each answered as it happens."""
