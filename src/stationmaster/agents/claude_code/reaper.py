"""Finds agents whose server is gone, and ends them.

Every agent is started with a marker in its environment: the data directory, the server's process
and the slot. A marker whose server is not running any more belongs to a stray.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from stationmaster.agents.claude_code.processes import (
    Process,
    Table,
    descendants,
    kill_all,
    marked,
    read_process,
    read_table,
)

_log = structlog.get_logger(__name__)

_KILL_SECONDS = 5.0
_FIELDS = 4


@dataclass(frozen=True, slots=True)
class Mark:
    """What a marker says: `place.pid.start.slot`."""

    place: str
    pid: int
    start: int
    slot: str

    def __str__(self) -> str:
        """The marker, as it stands in the environment."""
        return f"{self.place}.{self.pid}.{self.start}.{self.slot}"

    @classmethod
    def parse(cls, value: str) -> "Mark | None":
        """Read a marker; None where it is not one."""
        parts = value.split(".")
        if len(parts) != _FIELDS or not (parts[1].isdecimal() and parts[2].isdecimal()):
            return None
        return cls(parts[0], int(parts[1]), int(parts[2]), parts[3])


class Reaper:
    """Knows the agents of one data directory.

    `mine` tells the slots that this server still answers for; others of its own are strays too.
    """

    def __init__(self, state_dir: Path, mine: Callable[[], set[str]]) -> None:
        self._place = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:16]
        self._mine = mine
        this = read_process(os.getpid())
        self._server = (os.getpid(), this.start if this is not None else 0)

    def mark(self, slot: str) -> str:
        """The marker of a slot of this server."""
        return str(Mark(self._place, *self._server, slot))

    def alive(self) -> int:
        """How many agents of this data directory have a process, by the process table."""
        return len(set(marked(read_table(), self._is_ours).values()))

    async def reap(self) -> int:
        """Kill the strays with all that is below them; return how many agents they were."""
        table = read_table()
        mine = self._mine()
        strays = {
            marker
            for marker in marked(table, self._is_ours).values()
            if self._is_stray(marker, table, mine)
        }
        if not strays:
            return 0
        _log.warning(
            "Agents were left behind by an earlier server; ending them.", count=len(strays)
        )
        if not await kill_all(lambda: _below(read_table(), strays), within=_KILL_SECONDS):
            _log.error("Some processes of agents could not be ended.")
        return len(strays)

    def _is_ours(self, marker: str) -> bool:
        mark = Mark.parse(marker)
        return mark is not None and mark.place == self._place

    def _is_stray(self, marker: str, table: Table, mine: set[str]) -> bool:
        mark = Mark.parse(marker)
        assert mark is not None
        if (mark.pid, mark.start) == self._server:
            return mark.slot not in mine
        server = table.get(mark.pid)
        return server is None or server.start != mark.start or not server.alive


def _below(table: Table, strays: set[str]) -> list[Process]:
    pids: set[int] = set()
    for root in marked(table, strays.__contains__):
        pids |= descendants(table, root)
    return [table[pid] for pid in pids if table[pid].alive]
