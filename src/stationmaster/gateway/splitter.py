"""An event stream cut into its events, however its bytes are cut."""

import re

from stationmaster.kernel.errors import Upstream

MAX_EVENT_BYTES = 32 * 1024 * 1024
"""One event holds at most one content block's start; what is longer is no stream of events."""

_BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LONGEST_BOUNDARY = 4


class Splitter:
    """Fed with bytes in pieces cut anywhere, gives whole events."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._searched = 0

    @property
    def between_events(self) -> bool:
        """Whether what was fed so far ends with a whole event, so that another may be put in."""
        return not self._rest

    @property
    def rest(self) -> bytes:
        """What was fed behind the last whole event."""
        return bytes(self._rest)

    def feed(self, chunk: bytes, *, whole: bool = False) -> list[bytes]:
        """Take the next bytes; the events that they end, `whole` with the empty line after them.

        Raises `Upstream` for an event over `MAX_EVENT_BYTES`.
        """
        rest = self._rest
        if not rest and not whole and b"\r" not in chunk:  # as nearly every peer writes
            *ended, left = chunk.split(b"\n\n")
            if left.strip(b"\n"):
                self._keep(left)
            return ended
        rest += chunk
        at = 0
        search_from = max(0, self._searched - _LONGEST_BOUNDARY + 1)
        events: list[bytes] = []
        while boundary := _BOUNDARY.search(rest, search_from):
            events.append(bytes(rest[at : boundary.end() if whole else boundary.start()]))
            at = search_from = boundary.end()
        if at:
            del rest[:at]
        if not rest.strip(b"\r\n"):
            rest.clear()
        self._keep(b"")
        return events

    def _keep(self, left: bytes) -> None:
        self._rest += left
        self._searched = len(self._rest)
        if self._searched > MAX_EVENT_BYTES:
            raise Upstream("The model provider sent an event without an end.")


def data_of(event: bytes) -> bytes | None:
    """The `data` of one event, its lines joined; None where it has none."""
    start = event.find(b"data:")
    if start < 0:
        return None
    # Nearly every event is one `event` line and one `data` line.
    tail = event[start + 5 :]
    if (start == 0 or event[start - 1] in b"\r\n") and b"\n" not in tail and b"\r" not in tail:
        return tail
    lines = [line[5:] for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
