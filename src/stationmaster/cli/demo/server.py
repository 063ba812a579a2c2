"""The demo's server: a process of its own, started and killed for real."""

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from stationmaster.cli.exits import CommandError, Exit
from stationmaster.cli.printing import safe
from stationmaster.client import Client

START_S = 60.0
STOP_S = 20.0
GONE_S = 10.0  # for agents to die with their server; they have 5
_POLL_S = 0.05
_SCRATCH_BYTES = 60  # a unix socket's path has 107 at most, and the server adds to this
_READY = re.compile(r"^Stationmaster \S+ is ready at (http://\S+)$", re.MULTILINE)
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT")

# Slow enough to be read while it is written; a short lease, so that a death is soon noticed.
_SETTINGS = {
    "HOST": "127.0.0.1",
    "PORT": "0",
    "PROVIDER": "offline",
    "OFFLINE_DELAY": "25ms",
    "LEASE_TIME": "2s",
    "MAX_WORKERS": "2",
    "LOG_FORMAT": "json",
    "SHUTDOWN_TIMEOUT": "5s",
}

Found = TypeVar("Found")
Process = tuple[int, int]
"""A process's id and its start time: ids are used again."""


class DemoServer:
    """One server on one data directory; started again, it takes up where the last one died."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = ""
        self._key = f"sm_key_{secrets.token_hex(24)}"
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._running().pid

    def client(self) -> Client:
        """A client with the admin key; close it."""
        return Client(self.url, self._key)

    def start(self) -> str:
        """Start it and return what it said once it was ready."""
        self._starts += 1
        said = self.directory / f"server-{self._starts}.out"
        with said.open("wb") as out, (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stationmaster", "serve"],
                # Neither .env nor config.yaml is there: the demo is the same everywhere.
                cwd=self.directory,
                env=self._environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
            )
        found = _wait(lambda: self._ready(said), START_S)
        if found is None:
            raise CommandError(f"The server did not start: {self.last_words()}", Exit.UNAVAILABLE)
        self.url = found
        return said.read_text(encoding="utf-8", errors="replace")

    def _environment(self, present: Mapping[str, str]) -> dict[str, str]:
        kept = {name: present[name] for name in _KEPT if name in present}
        data = str(self.directory / "data")
        # What a killed server leaves behind is then removed with the rest.
        scratch = self.directory / "tmp"
        if len(os.fsencode(scratch)) <= _SCRATCH_BYTES:
            scratch.mkdir(exist_ok=True)
            kept["TMPDIR"] = str(scratch)
        return {
            **kept,
            **_SETTINGS,
            "HOME": str(self.directory),
            "DATA_DIR": data,
            "ADMIN_API_KEY": self._key,
        }

    def _ready(self, said: Path) -> str | None:
        if self._running().poll() is not None:
            raise CommandError(f"The server did not start: {self.last_words()}", Exit.UNAVAILABLE)
        found = _READY.search(said.read_text(encoding="utf-8", errors="replace"))
        return found[1] if found else None

    def last_words(self) -> str:
        """The end of its log."""
        with suppress(OSError):
            text = (self.directory / "server.log").read_text(encoding="utf-8", errors="replace")
            return safe(text.strip()[-1000:]) or "it said nothing."
        return "it said nothing."

    def kill(self) -> None:
        """SIGKILL, as a crash or the kernel would."""
        process = self._running()
        process.kill()
        process.wait()

    def stop(self) -> int | None:
        """SIGTERM, and its exit code; SIGKILL where it does not end."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.returncode

    def family(self) -> set[Process]:
        """Every process below the server's own."""
        parents, starts = _table()
        found, fresh = set[int](), {self.pid}
        while fresh:
            fresh = {pid for pid, parent in parents.items() if parent in fresh} - found
            found |= fresh
        return {(pid, starts[pid]) for pid in found}

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the demo's server was not started")
        return self._process


@contextmanager
def demo_server(directory: Path) -> Iterator[DemoServer]:
    """A server that is gone at the end of the block, whatever happens in it."""
    server = DemoServer(directory)
    try:
        yield server
    finally:
        server.stop()


def all_gone(processes: set[Process]) -> bool:
    """Wait until none of these lives; False where one still does after some seconds."""

    def gone() -> bool | None:
        _, starts = _table()
        return not any(starts.get(pid) == start for pid, start in processes) or None

    return _wait(gone, GONE_S) is not None


def _wait(found: Callable[[], Found | None], seconds: float) -> Found | None:
    """What `found` returns once it is not None; None where that takes too long."""
    end = time.monotonic() + seconds
    while (result := found()) is None and time.monotonic() < end:
        time.sleep(_POLL_S)
    return result


def _table() -> tuple[dict[int, int], dict[int, int]]:
    """The parent and the start time of each living process, by its id."""
    parents, starts = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, ValueError, IndexError):
            # The name in parentheses may itself hold spaces and parentheses.
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            if fields[0] not in {b"Z", b"X"}:
                pid = int(entry.name)
                parents[pid], starts[pid] = int(fields[1]), int(fields[19])
    return parents, starts
