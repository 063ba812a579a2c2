"""A page of what has happened in a session, forwards or backwards, of some types or of all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from stationmaster.events.pages import PAGE_BYTES
from stationmaster.http.cursors import bad_cursor
from stationmaster.http.routes.managed.event_view import event_view
from stationmaster.http.routes.managed.query import after_number
from stationmaster.http.shapes.managed.event import SessionEventPage
from stationmaster.kernel.clock import Millis
from stationmaster.sessions.session import SessionEvent

WINDOW = 100  # events read from the book at once, or fewer where they are large
MOST_READ = 10_000  # for one page; what is rare is found over several pages, which may be empty

View = Callable[[SessionEvent], dict[str, Any] | None]
"""What is shown of an event; None where nothing is."""


class Read(Protocol):
    """Reads events in order: the first that follow `after`, or the last that precede `before`."""

    async def __call__(
        self, *, after: int = 0, before: int | None = None, limit: int
    ) -> Sequence[SessionEvent]:
        """At most `limit`; none is the end."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events. Bounds are inclusive, and by the time of an event's processing."""

    limit: int
    page: str | None = None
    order: Literal["asc", "desc"] = "asc"
    types: frozenset[str] | None = None
    since: Millis | None = None
    until: Millis | None = None

    def fits(self, found: SessionEvent) -> bool:
        """Whether an event is among them."""
        if self.types is not None and found.event.type not in self.types:
            return False
        at = found.event.at if found.processed_at is None else found.processed_at
        return (self.since is None or at >= self.since) and (self.until is None or at <= self.until)


async def page_of(
    read: Read, head: int, wanted: Wanted, view: View = event_view
) -> SessionEventPage:
    """The page. Its cursor is the number of the last event that was looked at.

    Raises `Invalid` where `wanted.page` is no cursor of this session's.
    """
    cursor = after_number(wanted.page)
    if cursor is not None and cursor > head + 1:
        raise bad_cursor()
    if wanted.order == "asc":
        return await _forwards(read, head, cursor or 0, wanted, view=view)
    return await _backwards(read, head + 1 if cursor is None else cursor, wanted, view=view)


async def _forwards(
    read: Read, head: int, after: int, wanted: Wanted, *, view: View
) -> SessionEventPage:
    page = _Page(wanted, view)
    start = after
    while after < head and (window := await read(after=after, limit=WINDOW)):
        for found in window:
            if not page.take(found):
                return page.until(after)
            after = found.event.seq
        if after - start >= MOST_READ:
            return page.until(after)
    return page.until(None)


async def _backwards(read: Read, before: int, wanted: Wanted, *, view: View) -> SessionEventPage:
    page = _Page(wanted, view)
    start = before
    while before > 1 and (window := await read(before=before, limit=WINDOW)):
        for found in reversed(window):
            if not page.take(found):
                return page.until(before)
            before = found.event.seq
        if start - before >= MOST_READ:
            return page.until(before)
    return page.until(None)


class _Page:
    """What goes into a page: so many events and so many bytes, and one event at least."""

    def __init__(self, wanted: Wanted, view: View) -> None:
        self._wanted = wanted
        self._view = view
        self._data: list[dict[str, Any]] = []
        self._bytes = 0

    def take(self, found: SessionEvent) -> bool:
        """Show an event if it is wanted. False where the page was full before it."""
        if len(self._data) == self._wanted.limit:
            return False
        if not self._wanted.fits(found) or (shown := self._view(found)) is None:
            return True
        if self._data and self._bytes + found.event.size > PAGE_BYTES:
            return False
        self._bytes += found.event.size
        self._data.append(shown)
        return True

    def until(self, cursor: int | None) -> SessionEventPage:
        """The page, with the cursor of the next one."""
        return SessionEventPage(data=self._data, next_page=None if cursor is None else str(cursor))
