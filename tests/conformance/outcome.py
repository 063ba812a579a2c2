"""What a check comes to."""

import traceback
from collections.abc import Awaitable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """Passed, unless there is a `reason` (a word of `REASONS`) or a `failure`."""

    reason: str | None = None
    failure: str | None = None


async def outcome(check: Awaitable[str | None]) -> Outcome:
    """Run it."""
    try:
        return Outcome(reason=await check)
    except Exception:  # noqa: BLE001 - a failure is an outcome; the table's reader is told
        return Outcome(failure=traceback.format_exc(limit=-3))
