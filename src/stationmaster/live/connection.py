"""One way to reach Redis for all that use it: short timeouts, nothing tried twice, a breaker."""

import time
from collections.abc import Callable

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from stationmaster.live.reaching import Named

__all__ = ["AWAY", "REST_S", "SOCKET_TIMEOUT_S", "Breaker", "Redis", "connected", "unreached"]

SOCKET_TIMEOUT_S = 1.0

CONNECTIONS = 32
"""Beyond so many commands at once the next one waits for a connection."""

REST_S = 1.0
"""How long Redis is left alone after a failure. Then one tries it; the others do not."""

AWAY = (RedisError, OSError, TimeoutError)
"""What a command raises that Redis did not answer, or refused."""


def connected(url: str, *, timeout: float = SOCKET_TIMEOUT_S) -> Redis:
    """A client that tries nothing twice: whoever waits has no time for it.

    `timeout` is in seconds, for an answer. Who asks Redis to wait needs a longer one.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=SOCKET_TIMEOUT_S,
        socket_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)


_NAMED = Named("Redis", "REDIS_URL", "ssl_ca_certs", "redis")


def unreached(error: BaseException) -> str:
    """Why Redis did not answer, and what to do, without its address: a sentence."""
    if isinstance(error, AuthenticationError):
        return "Redis refuses the user or password of REDIS_URL. Correct them."
    if isinstance(error, NoPermissionError):
        return "The user of REDIS_URL may not do what is needed. Give it the rights."
    if isinstance(error, RedisTimeout):
        return _NAMED.silent
    return _NAMED.unreached(error)


class Breaker:
    """Whether Redis is worth asking.

    closed ──failed──▶ open, for `rest` seconds ──allows──▶ one tries ──succeeded──▶ closed
    """

    def __init__(
        self,
        *,
        rest: float = REST_S,
        monotonic: Callable[[], float] = time.monotonic,
        on_change: Callable[[bool], None] = lambda closed: None,
    ) -> None:
        """`rest` is in seconds. `on_change` is told now, and whenever it opens or closes."""
        self.rest = rest
        self._monotonic = monotonic
        self._on_change = on_change
        self._open_until: float | None = None
        on_change(True)

    @property
    def closed(self) -> bool:
        """Whether the last answer came."""
        return self._open_until is None

    def allows(self) -> bool:
        """Whether the caller may ask. While it is open, one in each `rest` may, and must report."""
        if self._open_until is None:
            return True
        if self._monotonic() < self._open_until:
            return False
        self._open_until = self._monotonic() + self.rest
        return True

    def succeeded(self) -> None:
        """An answer came."""
        if self._open_until is not None:
            self._open_until = None
            self._on_change(True)

    def failed(self) -> None:
        """None came."""
        was_closed = self._open_until is None
        self._open_until = self._monotonic() + self.rest
        if was_closed:
            self._on_change(False)
