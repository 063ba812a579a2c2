"""A server's clock, set off while it runs."""

import time
from contextlib import suppress
from pathlib import Path

from stationmaster.kernel import clock

CLOCK = "clock"  # the file beside a server that says by how many seconds its clock is off


class SkewedClock:
    """A clock that is off by as many seconds as a file says.

    Not libfaketime: with it a server whose connections break stands still for half a minute.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._off = 0.0
        self._looked = 0.0

    def now(self) -> int:
        """In milliseconds. The file is read again every half second."""
        if time.monotonic() - self._looked > 0.5:
            self._looked = time.monotonic()
            with suppress(OSError, ValueError):
                self._off = float(self._path.read_text())
        return time.time_ns() // 1_000_000 + round(self._off * 1000)


def can_be_set_off() -> None:
    """Let this process's clock be off by what the file in its directory says."""
    skewed = SkewedClock(Path.cwd() / CLOCK)
    setattr(clock.SystemClock, "now", lambda _self: skewed.now())  # noqa: B010


def set_off(directory: Path, seconds: float) -> None:
    """Set the clock of the server in `directory` off by so much."""
    (directory / CLOCK).write_text(f"{seconds:+.2f}\n")
