"""Processes that a benchmark starts: pinned to a core, asked for their memory, always ended."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

END_SECONDS = 10.0
CALM_SECONDS = 60.0  # for a server to be done with calls whose clients have gone
_LOOK_SECONDS = 0.25
_CALM = 0.1  # of a core's time


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the server under test runs, and where everything else does."""

    server: frozenset[int]
    load: frozenset[int]


def split_cores() -> Cores:
    """One core for what is under test, another for the load. The same one where there is one."""
    every = sorted(os.sched_getaffinity(0))
    return Cores(frozenset(every[:1]), frozenset(every[1:2] or every[:1]))


@contextmanager
def pinned(cores: frozenset[int] | None) -> Iterator[None]:
    """Run what is started in the block, and this thread, on `cores` alone. None: no change."""
    before = os.sched_getaffinity(0)
    if cores is not None:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def calm(cores: frozenset[int]) -> None:
    """Wait until nothing is at work on `cores`: the server that was measured last may still be.

    Raises `RuntimeError` after `CALM_SECONDS`.
    """
    due = time.monotonic() + CALM_SECONDS
    before = _busy(cores)
    while time.monotonic() < due:
        time.sleep(_LOOK_SECONDS)
        now = _busy(cores)
        if now - before < _CALM * _LOOK_SECONDS * len(cores):
            return
        before = now
    raise RuntimeError("Something else is at work on the core of the server under test.")


def _busy(cores: frozenset[int]) -> float:
    """Seconds since the machine's start for which the cores were at work."""
    names = {f"cpu{core}" for core in cores}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *spent = line.split()
        if name in names:
            user, nice, system, _idle, _waiting, *others = map(int, spent)
            ticks += user + nice + system + sum(others[:2])  # of interrupts
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def started(
    command: Sequence[str],
    *,
    log: Path,
    cores: frozenset[int] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: int | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process for as long as the block runs. It writes to `log`; its stdin ends with us."""
    with log.open("ab") as output:
        with pinned(cores):
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output if stdout is None else stdout,
                stderr=output,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and SIGKILL to its whole group if that takes too long. Idempotent."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def rss_mib(pid: int) -> float:
    """The resident memory of one process, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(found.group(1)) / 1024 if found else 0.0


def free_port() -> int:
    """A port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(
    process: "subprocess.Popen[bytes]", port: int, log: Path, *, seconds: float = 30.0
) -> None:
    """Return once something listens there. Raises `RuntimeError` where the process ends first."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise RuntimeError("A process does not start:\n" + log.read_text(errors="replace")[-4000:])
