"""What a history is called, how its entries are written, and what is refused."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Invalid, TooLarge

MAX_ENTRY_BYTES = 16 * 1024**2  # as much as an agent's frame may hold
MAX_SUBPATH = 512
MAX_UUID = 64  # a longer one is not told apart from others

_SESSION = re.compile(r"[A-Za-z0-9._-]{1,255}")  # the SDK's own are paths: one may be a dash
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class HistoryKey:
    """One transcript of one agent in a session. `subpath` None is the conversation itself.

    The last two become names of files where a history is restored. Raises `Invalid` for what could
    not be one.
    """

    session_id: str
    history_id: str
    subpath: str | None = None

    def __post_init__(self) -> None:
        """Check the names."""
        named = [self.history_id]
        if self.subpath is not None:
            named += self.subpath.split("/")
            if len(self.subpath) > MAX_SUBPATH:
                raise _no_name()
        if not _SESSION.fullmatch(self.session_id) or not all(map(_NAME.fullmatch, named)):
            raise _no_name()


def _no_name() -> Invalid:
    return Invalid("This cannot be the name of an agent's history.", code="transcript_name")


@dataclass(frozen=True, slots=True)
class History:
    """One transcript as it stands. `size` is in bytes. A `closed` one has lost what came later."""

    history_id: str
    subpath: str | None
    entries: int
    size: int
    closed: bool
    created_at: Millis
    updated_at: Millis


@dataclass(frozen=True, slots=True)
class Fork:
    """A copy of a history under a new id, not kept anywhere yet."""

    history_id: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """An entry as it is kept."""

    uuid: str | None
    data: str


def write(entries: Sequence[Entry]) -> list[Written]:
    """Raises `Invalid` for what is not JSON, `TooLarge` for an entry over the bound."""
    written = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise Invalid("An entry of a history is not an object.", code="transcript_entry")
        try:
            data = json.dumps(entry, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError):
            raise Invalid("An entry of a history is not JSON.", code="transcript_entry") from None
        if len(data) > MAX_ENTRY_BYTES:
            raise TooLarge("An entry of a history is too large.", code="transcript_full")
        uuid = entry.get("uuid")
        named = isinstance(uuid, str) and 0 < len(uuid) <= MAX_UUID and uuid.isprintable()
        written.append(Written(uuid if named else None, data))
    return written


def read(data: Sequence[str]) -> list[Entry]:
    """The entries, equal to what was appended."""
    return [json.loads(each) for each in data]
