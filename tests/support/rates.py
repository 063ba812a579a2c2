"""Limits so wide that tests of other things never meet them, and yet everything is counted."""

GENEROUS = dict.fromkeys(
    (
        "DEFAULT_RATE_LIMIT",
        "RATE_LIMIT_FAILURES",
        "RATE_LIMIT_CHAT",
        "RATE_LIMIT_TASKS",
        "RATE_LIMIT_READ",
        "RATE_LIMIT_WRITE",
        "RATE_LIMIT_ADMIN",
        "RATE_LIMIT_ANALYTICS",
        "RATE_LIMIT_AUTH",
        "RATE_LIMIT_MESSAGES",
        "RATE_LIMIT_NOTIFICATIONS",
    ),
    "1000000",
)
