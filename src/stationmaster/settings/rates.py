"""The settings of rate limits. `Settings` has them among its own."""

from dataclasses import dataclass

from pydantic import SecretStr

from stationmaster.limits.rate import MOST, Rate
from stationmaster.settings import forms
from stationmaster.settings.field import setting
from stationmaster.settings.forms import Form

_LIMITS = "Rate limits"

RATE: Form[Rate] = Form(
    lambda text: None if text.lower() == "none" else Rate.parse(text),
    "a rate such as 100, 1000/hour or 100/minute burst 150 (a plain number is a minute's), or none",
)
NUMBER: Form[int] = Form(
    lambda text: None if text.lower() == "none" else forms.whole(0, MOST).parse(text),
    f"a whole number from 0 to {MOST}, or none",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSettings:
    """How fast callers may go. None is no limit."""

    rate_limit_enabled: bool = setting(
        _LIMITS,
        forms.FLAG,
        "true",
        "Whether there are rate limits. Only a server on a loopback address may do without.",
        aliases=("SECURITY_RATE_LIMITING_ENABLED",),
    )
    rate_limit_disabled_anywhere: bool = setting(
        _LIMITS,
        forms.FLAG,
        "false",
        "RATE_LIMIT_ENABLED=false, said a second time: without it, it is refused on other addresses"
        " than loopback.",
    )
    redis_url: SecretStr | None = setting(
        _LIMITS,
        forms.REDIS_URL,
        None,
        "The Redis that servers share, as redis://, rediss:// or unix:// URL. Limits then hold over"
        " all of them together; without it, and while it is away, over each alone.",
        secret=True,
    )
    redis_password: SecretStr | None = setting(
        _LIMITS,
        forms.PASSWORD,
        None,
        "The password for Redis, where REDIS_URL has none.",
        secret=True,
    )
    default_rate_limit: Rate | None = setting(
        _LIMITS,
        RATE,
        "100/minute burst 150",
        "Requests of one key that has no limit of its own.",
        aliases=("API_RATE_LIMIT", "SECURITY_RATE_LIMITING_DEFAULT_LIMIT"),
    )
    rate_limit_burst: int | None = setting(
        _LIMITS,
        NUMBER,
        None,
        "How many requests of such a key may come at once.",
        derived="what DEFAULT_RATE_LIMIT says",
        aliases=("SECURITY_RATE_LIMITING_BURST_LIMIT",),
    )
    rate_limit_global: Rate | None = setting(
        _LIMITS, RATE, "none", "Requests of all keys together."
    )
    rate_limit_organization: Rate | None = setting(
        _LIMITS, RATE, "none", "Requests of one organisation."
    )
    rate_limit_project: Rate | None = setting(_LIMITS, RATE, "none", "Requests of one project.")
    rate_limit_user: Rate | None = setting(
        _LIMITS, RATE, "none", "Requests of one user, whatever key or sign-in they come with."
    )
    rate_limit_address: Rate | None = setting(
        _LIMITS, RATE, "none", "Requests from one address; of IPv6, from one /64 network."
    )
    rate_limit_failures: Rate | None = setting(
        _LIMITS,
        RATE,
        "30",
        "Credentials from one address that are not valid. Counted by each server for itself.",
    )
    rate_limit_chat: Rate | None = setting(
        _LIMITS,
        RATE,
        "100",
        "Calls to a model by one key. Its running tasks' calls count too.",
    )
    rate_limit_tasks: Rate | None = setting(_LIMITS, RATE, "10", "Tasks started by one key.")
    rate_limit_read: Rate | None = setting(
        _LIMITS, RATE, "100/minute burst 150", "Other requests of one key that change nothing."
    )
    rate_limit_write: Rate | None = setting(
        _LIMITS, RATE, "50/minute burst 75", "Other requests of one key that change something."
    )
    rate_limit_admin: Rate | None = setting(
        _LIMITS, RATE, "20/minute burst 30", "Requests of one key that manage keys and members."
    )
    rate_limit_analytics: Rate | None = setting(
        _LIMITS, RATE, "30/minute burst 45", "Requests of one key for usage and analytics."
    )
    rate_limit_auth: Rate | None = setting(
        _LIMITS, RATE, "100/hour", "Requests of one caller to sign in and out."
    )
    rate_limit_messages: Rate | None = setting(
        _LIMITS, RATE, "1000/hour", "Messages that one caller writes into rooms."
    )
    rate_limit_notifications: Rate | None = setting(
        _LIMITS, RATE, "500/hour", "Notifications that one caller sends."
    )
    rate_limit_input_tokens: Rate | None = setting(
        _LIMITS, RATE, "none", "Input tokens of one key that has no limit of its own."
    )
    rate_limit_output_tokens: Rate | None = setting(
        _LIMITS, RATE, "none", "Output tokens of one key that has no limit of its own."
    )
    rate_limit_concurrent_calls: int | None = setting(
        _LIMITS, NUMBER, "none", "Calls to a model at the same time of one key without its own."
    )
    rate_limit_concurrent_runs: int | None = setting(
        _LIMITS,
        NUMBER,
        "none",
        "Runs that have not ended of one key that has neither a profile nor a limit that says it.",
    )
    rate_limit_organization_concurrent_runs: int | None = setting(
        _LIMITS,
        NUMBER,
        "none",
        "Runs that have not ended of one organisation without a limit of its own.",
    )
