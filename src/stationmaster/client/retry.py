"""When a request is sent again, and after how long."""

import random
from dataclasses import dataclass

import httpx

from stationmaster.client.errors import retry_after

_FIRST_S = 0.5
_LONGEST_S = 8.0
_LONGEST_ASKED_S = 60.0  # a server that asks for more is told to the caller instead
_TRY_LATER = frozenset({408, 429})
_SERVER_FAULT = 500
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_REFUSED = frozenset({429, 503})  # answered before anything was done


def backoff(attempt: int) -> float:
    """Seconds before try number `attempt` (from 1) is repeated: doubling, with jitter."""
    return min(_FIRST_S * 2.0 ** (attempt - 1), _LONGEST_S) * random.uniform(0.5, 1.0)  # noqa: S311


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `max_retries` repetitions of one request.

    A request that is not repeatable is sent again only where the server cannot have begun it: no
    connection, or an answer that says it was refused for now.
    """

    max_retries: int

    def after_error(
        self, attempt: int, error: httpx.TransportError, *, repeatable: bool
    ) -> float | None:
        """Seconds to wait after a connection failed; None where the error is final."""
        if attempt > self.max_retries or isinstance(error, httpx.UnsupportedProtocol):
            return None
        return backoff(attempt) if repeatable or isinstance(error, _NOT_SENT) else None

    def after_answer(
        self, attempt: int, answer: httpx.Response, *, repeatable: bool
    ) -> float | None:
        """Seconds to wait after this answer; None where it is final."""
        if attempt > self.max_retries or not _may_repeat(answer, repeatable=repeatable):
            return None
        asked = retry_after(answer)
        if asked is None:
            return backoff(attempt)
        return asked if asked <= _LONGEST_ASKED_S else None


def _may_repeat(answer: httpx.Response, *, repeatable: bool) -> bool:
    advice = answer.headers.get("x-should-retry")
    if advice in {"true", "false"}:
        return str(advice) == "true"
    status = answer.status_code
    if not repeatable:
        return status in _REFUSED
    return status in _TRY_LATER or status >= _SERVER_FAULT
