"""Processes as the operating system tells them: read from /proc, never from what we remember.

A process is known by its id and its start time together: ids are used again.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARKER = "STATIONMASTER_SLOT"

_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")
_GONE = frozenset("ZX")

# How often a kill is repeated while something is still there. Short: a fork bomb makes more.
_KILL_PAUSE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table. `start` is in ticks since boot, `cpu` in seconds.

    `cpu` counts the process and the children it has waited for; `resident` is in bytes and counts
    shared pages too.
    """

    pid: int
    parent: int
    start: int
    state: str
    uid: int
    cpu: float
    resident: int

    @property
    def key(self) -> tuple[int, int]:
        """Names this process and no later one with the same id."""
        return self.pid, self.start

    @property
    def alive(self) -> bool:
        """False for a zombie, which holds nothing but its exit status."""
        return self.state not in _GONE


Table = Mapping[int, Process]


def read_process(pid: int) -> Process | None:
    """One process, or None where there is none."""
    directory = _PROC / str(pid)
    try:
        line = (directory / "stat").read_bytes()
        uid = directory.stat().st_uid
    except OSError:
        return None
    # The name may hold spaces and parentheses: what follows the last one is regular.
    fields = line[line.rindex(b")") + 2 :].split()
    return Process(
        pid=pid,
        parent=int(fields[1]),
        start=int(fields[19]),
        state=fields[0].decode(),
        uid=uid,
        cpu=sum(int(ticks) for ticks in fields[11:15]) / _TICK,
        resident=int(fields[21]) * _PAGE,
    )


def read_table() -> dict[int, Process]:
    """Every process there is. Takes some milliseconds: call it in a thread."""
    pids = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())
    return {found.pid: found for pid in pids if (found := read_process(pid)) is not None}


def descendants(table: Table, root: int) -> set[int]:
    """`root` and everything below it that `table` knows."""
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    waiting = [root] if root in table else []
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, ())
    return found


def marker_of(pid: int) -> str | None:
    """The slot marker in the environment that `pid` was started with, if any."""
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    wanted = MARKER.encode() + b"="
    for entry in environment.split(b"\0"):
        if entry.startswith(wanted):
            return entry[len(wanted) :].decode("ascii", "replace")
    return None


def marked(table: Table, belongs: Callable[[str], bool]) -> dict[int, str]:
    """The living processes whose slot marker `belongs` accepts, with their markers."""
    found: dict[int, str] = {}
    for process in table.values():
        if process.alive:
            marker = marker_of(process.pid)
            if marker is not None and belongs(marker):
                found[process.pid] = marker
    return found


def private_bytes(pid: int) -> int:
    """Memory that `pid` alone answers for: its proportional share, swap included.

    Walks the page tables, some milliseconds for a large process. 0 where it cannot be read.
    """
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text("ascii", "replace").splitlines()
    except OSError:
        return 0
    wanted = ("Pss:", "SwapPss:")
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(wanted))


def send(processes: Iterable[Process], number: signal.Signals) -> None:
    """Signal each of them that is still the same process."""
    for process in processes:
        now = read_process(process.pid)
        if now is not None and now.key == process.key:
            # Gone in between, or (never for our own children) not ours to signal.
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)


async def kill_all(members: Callable[[], list[Process]], *, within: float) -> bool:
    """Kill what `members` lists until it lists nothing that lives; whether that was reached.

    `members` is called in a thread, again after each round, because a process may have forked
    between the look and the kill. `within` is in seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        left = await asyncio.to_thread(members)
        if not left:
            return True
        # Stopped first, so that none of them can fork while the others are being killed.
        send(left, signal.SIGSTOP)
        send(left, signal.SIGKILL)
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(_KILL_PAUSE_SECONDS)
