"""How long a run has worked, not counting the time in which it waits for somebody."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic


class Patience:
    """A stopwatch that stands while somebody is waited for. Seconds, monotonic."""

    def __init__(self) -> None:
        self._began = monotonic()
        self._waiters = 0
        self._since = 0.0
        self._waited = 0.0

    @property
    def waiting(self) -> bool:
        """Whether somebody is waited for now."""
        return self._waiters > 0

    def spent(self) -> float:
        """How long was worked until now."""
        now = monotonic()
        return now - self._began - self._waited - (now - self._since if self.waiting else 0.0)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Somebody is waited for within."""
        if not self.waiting:
            self._since = monotonic()
        self._waiters += 1
        try:
            yield
        finally:
            self._waiters -= 1
            if not self.waiting:
                self._waited += monotonic() - self._since
