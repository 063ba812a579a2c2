"""What a store answers: a grant, which is finished once, or a refusal."""

from collections.abc import Callable
from typing import Any

from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Exhausted
from stationmaster.limits.plan import Amounts, Line, Plan

TOO_MUCH = "exceeds_rate_limit"
"""The code where waiting cannot help."""


class Quota:
    """How a caller stands with one unit, on the line with the least left.

    `reset` is when all of it is there again, `at` when it stood so.
    """

    __slots__ = ("at", "limit", "remaining", "reset")

    def __init__(self, limit: int, remaining: int, reset: Millis, at: Millis) -> None:
        self.at = at
        self.limit = limit
        self.remaining = remaining
        self.reset = reset

    def __repr__(self) -> str:
        return f"Quota({self.limit}, {self.remaining}, {self.reset})"


Standing = tuple[Quota | None, Quota | None, Quota | None]
"""Of requests, input tokens and output tokens; None where there is no limit."""

UNLIMITED: Standing = (None, None, None)


class Grant:
    """A request has been let through. Finish it, whatever happens: it may hold a place."""

    __slots__ = ("_finish", "amounts", "at", "plan", "standing", "ticket")

    def __init__(
        self,
        plan: Plan,
        amounts: Amounts,
        at: Millis,
        standing: Standing,
        *,
        finish: Callable[["Grant", int | None, int | None], None] | None = None,
        ticket: str = "",
    ) -> None:
        self.plan = plan
        self.amounts = amounts
        self.at = at
        self.standing = standing
        self.ticket = ticket
        self._finish = finish

    def finish(self, input_tokens: int | None = None, output_tokens: int | None = None) -> None:
        """Give back the place, and put the tokens that were used in the stead of those expected.

        None leaves the expectation as it is. Idempotent; never waits, never raises.
        """
        finish, self._finish = self._finish, None
        if finish is not None:
            finish(self, input_tokens, output_tokens)


NOTHING = Grant(Plan(), (0, 0, 0), 0, UNLIMITED)
"""Where nothing is limited."""


class Refusal:
    """A request was refused, and nothing taken. `line` is the one that keeps it waiting longest.

    `wait_ms` is exact for rates: waiting less cannot succeed, and waiting as long does unless
    others are faster. None: it never fits.
    """

    __slots__ = ("line", "standing", "wait_ms")

    def __init__(self, line: Line, wait_ms: int | None, standing: Standing) -> None:
        self.line = line
        self.wait_ms = wait_ms
        self.standing = standing


class RateLimited(Exhausted):
    """A rate limit is reached."""

    code = "rate_limit_exceeded"

    def __init__(self, message: str | None = None, *, standing: Standing, **kwargs: Any) -> None:
        """`standing` is for headers."""
        super().__init__(message, **kwargs)
        self.standing = standing
