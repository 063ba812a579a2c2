"""Whether new work is taken."""

import asyncio


class Readiness:
    """Whether new work is taken, and if not, why."""

    def __init__(self) -> None:
        self.failed = asyncio.Event()
        self._reason: str | None = None

    def __call__(self) -> str | None:
        """The reason; None where new work is taken."""
        return self._reason

    def end(self, reason: str) -> None:
        """Take no more."""
        self._reason = self._reason or reason

    def fail(self, part: str) -> None:
        """A part that must run has stopped: the server cannot go on."""
        self.end(f"{part}_stopped")
        self.failed.set()
