"""What an agent's turns have started and left running: ended before the agent waits for the next.

A process that lived on between turns would work without a run that pays for it.
"""

import asyncio
from contextlib import suppress
from pathlib import Path

import structlog

from stationmaster.agents.claude_code.launcher import AgentProcess
from stationmaster.agents.claude_code.processes import (
    Process,
    Table,
    descendants,
    kill_all,
    marked,
    read_table,
)

_log = structlog.get_logger(__name__)

_KILL_SECONDS = 1.0
_FORWARDER = "socat"


class Leftovers:
    """Those of one agent. `servers` says that it runs tool servers, which may start at any time."""

    def __init__(self, process: AgentProcess, *, servers: bool) -> None:
        self._process = process
        self._servers = servers
        self._own: frozenset[tuple[int, int]] | None = None
        self._forwarders: frozenset[int] = frozenset()
        self._cli = process.pid

    def remember(self) -> None:
        """Once it is launched: what is there now is the agent itself. Blocks for milliseconds."""
        table = read_table()
        own = {each.pid: each for each in self._all(table)}
        self._own = frozenset(each.key for each in own.values())
        # Known by name only now, when nothing of the agent's choosing has run.
        self._forwarders = frozenset(pid for pid in own if _name_of(pid) == _FORWARDER)
        for forwarder in self._forwarders:
            self._cli = own[forwarder].parent

    async def end(self) -> None:
        """Kill what the turns have left. The agent must not be in a turn. Bounded to a second."""
        if self._own is None:
            return
        if left := await asyncio.to_thread(self._left):
            _log.info("An agent's turn left processes behind; they are ended.", processes=len(left))
            await kill_all(self._left, within=_KILL_SECONDS)

    def _left(self) -> list[Process]:
        table = read_table()
        spared = self._spared(table)
        return [
            each
            for each in self._all(table)
            if each.key not in (self._own or ()) and each.pid not in spared
        ]

    def _spared(self, table: Table) -> set[int]:
        """The forwarder's connections, and what the agent itself has started if those are servers.

        What a tool leaves behind is no longer a child of the agent: its shell has ended.
        """
        spared: set[int] = set()
        for pid, each in table.items():
            served = self._servers and each.parent == self._cli
            if each.parent in self._forwarders or served:
                spared |= descendants(table, pid)
        return spared

    def _all(self, table: Table) -> list[Process]:
        found = {each.key: each for each in self._process.members(table)}
        for pid in marked(table, lambda marker: marker == self._process.marker):
            found[table[pid].key] = table[pid]
        return list(found.values())


def _name_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    return ""
