"""What each route counts as, and the headers that tell a caller how it stands."""

from collections.abc import Awaitable, Collection, Iterable
from contextlib import AsyncExitStack
from functools import lru_cache

from stationmaster.http.wire.exchange import RawHeaders, Scope
from stationmaster.kernel.clock import iso
from stationmaster.kernel.principal import Principal
from stationmaster.limits import Grant, Kind, Limiter, Quota, RateLimited, Standing

STANDING = "standing"
"""Where a request's state has its `Standing`, for the headers of the answer."""

# The first line that fits decides. A path's begin ends at a slash or at the path's end.
_BEGINNINGS: tuple[tuple[str, Kind, bool], ...] = (
    # path, kind, whether only for what changes something
    ("/v1/tasks/{task_id}", "write", True),
    ("/v1/task", "tasks", True),
    ("/v1/tasks", "tasks", True),
    ("/api/execute", "tasks", True),
    ("/api/admin", "admin", False),
    ("/v1/organizations", "admin", False),
    ("/v1/usage", "analytics", False),
    ("/api/analytics", "analytics", False),
    ("/auth", "auth", False),
    ("/v1/auth", "auth", False),
    ("/api/invites/accept", "auth", False),
    ("/api/v1/auth", "auth", False),
    ("/api/v1/notifications", "notifications", True),
)
_ROOM_MESSAGES = "/messages"
_ROOMS = "/api/v1/rooms"
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def kind_of(path: str, methods: Collection[str]) -> Kind:
    """What requests for a route count as; `path` is the route's template."""
    writes = not _READING.issuperset(methods)
    for beginning, kind, only_writes in _BEGINNINGS:
        if (writes or not only_writes) and _begins(path, beginning):
            return kind
    if writes and _begins(path, _ROOMS) and path.endswith(_ROOM_MESSAGES):
        return "room_messages"
    return "write" if writes else "read"


def _begins(path: str, beginning: str) -> bool:
    return path == beginning or path.startswith(beginning + "/")


def address_of(scope: Scope) -> str | None:
    """The peer's address; None for a peer on a socket of this machine's file system."""
    client = scope.get("client")
    return client[0] if client else None


async def admit(limiter: Limiter, scope: Scope, principal: Principal, kind: Kind) -> None:
    """Count a request that takes no place, or raise `RateLimited`; note how its caller stands."""
    await _noted(scope, limiter.admit(principal, kind, address=address_of(scope)))


async def admit_unknown(limiter: Limiter, scope: Scope, kind: Kind) -> None:
    """As `admit`, where no credential is needed: what counts is the address."""
    await _noted(scope, limiter.admit_address(address_of(scope), kind))


async def take_place(
    limiter: Limiter, stack: AsyncExitStack, scope: Scope, principal: Principal
) -> None:
    """Take a place among the open sockets for as long as `stack` is, or raise `RateLimited`."""
    grant = await limiter.admit(principal, "sockets", address=address_of(scope))
    stack.callback(grant.finish)


async def _noted(scope: Scope, admission: Awaitable[Grant]) -> None:
    try:
        grant = await admission
    except RateLimited as error:
        note(scope, error.standing)
        raise
    note(scope, grant.standing)


def note(scope: Scope, standing: Standing) -> None:
    """Tell the caller with the answer how it stands."""
    scope.setdefault("state", {})[STANDING] = standing


# --- headers ----------------------------------------------------------------------------------

_PREFIXES = (b"anthropic-ratelimit-", b"x-ratelimit-")


def _lines(*lines: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)


_REQUESTS = _lines(
    b"x-ratelimit-limit: %d",
    b"x-ratelimit-remaining: %d",
    b"x-ratelimit-reset: %d",
    b"x-ratelimit-limit-requests: %d",
    b"x-ratelimit-remaining-requests: %d",
    b"x-ratelimit-reset-requests: %b",
    b"anthropic-ratelimit-requests-limit: %d",
    b"anthropic-ratelimit-requests-remaining: %d",
    b"anthropic-ratelimit-requests-reset: %b",
)
_TOKENS = _lines(
    b"x-ratelimit-limit-tokens: %d",
    b"x-ratelimit-remaining-tokens: %d",
    b"x-ratelimit-reset-tokens: %b",
    b"anthropic-ratelimit-tokens-limit: %d",
    b"anthropic-ratelimit-tokens-remaining: %d",
    b"anthropic-ratelimit-tokens-reset: %b",
)
_INPUT, _OUTPUT = (
    _lines(
        b"anthropic-ratelimit-%b-tokens-limit: %%d" % kind,
        b"anthropic-ratelimit-%b-tokens-remaining: %%d" % kind,
        b"anthropic-ratelimit-%b-tokens-reset: %%b" % kind,
    )
    for kind in (b"input", b"output")
)


def without_others(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """The headers of an answer without those that tell of a provider's limits, not of ours."""
    return [header for header in headers if not header[0].startswith(_PREFIXES)]


def lines_of(standing: Standing) -> bytes:
    """How a caller stands, in the usual headers, in OpenAI's and in Anthropic's; each ends a line.

    Empty where there are no limits.
    """
    requests, input_tokens, output_tokens = standing
    found = b""
    if requests is not None:
        limit, remaining, wait, second = _told(requests)
        found = _REQUESTS % (
            *(limit, remaining, second),
            *(limit, remaining, wait),
            *(limit, remaining, _moment(second)),
        )
    tightest = _tightest(input_tokens, output_tokens)
    if tightest is not None:
        limit, remaining, wait, second = _told(tightest)
        found += _TOKENS % (limit, remaining, wait, limit, remaining, _moment(second))
    for lines, quota in ((_INPUT, input_tokens), (_OUTPUT, output_tokens)):
        if quota is not None:
            limit, remaining, _, second = _told(quota)
            found += lines % (limit, remaining, _moment(second))
    return found


def _tightest(one: Quota | None, other: Quota | None) -> Quota | None:
    if one is None or other is None:
        return one or other
    return one if one.remaining <= other.remaining else other


def _told(quota: Quota) -> tuple[int, int, bytes, int]:
    """What is left of how much, and until when: for how long, and the second."""
    wait = quota.reset - quota.at
    return quota.limit, quota.remaining, duration(max(0, wait)), -(-quota.reset // 1000)


def duration(millis: int) -> bytes:
    """As OpenAI writes a time to wait: `12ms`, `1s`, `6m0s`, `1h0m0s`. Rounded up."""
    if millis < 1000:
        return b"%dms" % millis
    minutes, seconds = divmod(-(-millis // 1000), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, seconds)
    return b"%dm%ds" % (minutes, seconds) if minutes else b"%ds" % seconds


@lru_cache(maxsize=1024)  # many answers tell of the same few seconds
def _moment(second: int) -> bytes:
    return iso(second * 1000)[:19].encode() + b"Z"
