"""Who stands by for a server that is killed."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from stationmaster.agents.claude_code.processes import MARKER, read_process, read_table
from stationmaster.agents.claude_code.sentinel import Sentinel

PREFIX = f"a-place.{os.getpid()}.7."
WAIT_S = 20.0
# Says which process stands by, and lives on until it is killed.
SERVER = f"""
from stationmaster.agents.claude_code.sentinel import Sentinel
sentinel = Sentinel({PREFIX!r})
sentinel.stand_by()
print(sentinel._process.pid, flush=True)
input()
"""


async def server() -> tuple[asyncio.subprocess.Process, int]:
    """A server, and the id of the process that stands by for it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SERVER),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": "/usr/bin:/bin"},
    )
    assert process.stdout is not None
    return process, int(await process.stdout.readline())


async def agent(marker: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", "trap '' TERM; while :; do sleep 600; done"),
        env={MARKER: marker, "PATH": "/usr/bin:/bin"},
        start_new_session=True,
    )


async def gone(pid: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while (found := read_process(pid)) is not None and found.alive:
            await asyncio.sleep(0.01)


async def test_a_killed_servers_agents_are_ended_and_no_others() -> None:
    process, standing_by = await server()
    mine, other = await agent(f"{PREFIX}slot"), await agent("a-place.1.7.slot")
    os.kill(standing_by, signal.SIGTERM)  # as a supervisor does to all of a group
    process.kill()
    await process.wait()
    late = await agent(f"{PREFIX}late")  # was being started
    async with asyncio.timeout(WAIT_S):
        assert await mine.wait() == -signal.SIGKILL
        assert await late.wait() == -signal.SIGKILL
    await gone(standing_by)
    assert other.returncode is None
    os.killpg(other.pid, signal.SIGKILL)
    await other.wait()


async def test_while_the_server_lives_nobody_is_ended() -> None:
    sentinel = Sentinel(PREFIX)
    sentinel.stand_by()
    [first] = standing_by()
    sentinel.stand_by()
    assert standing_by() == [first], "one is enough"
    os.kill(first, signal.SIGKILL)
    await gone(first)
    sentinel.stand_by()
    [second] = standing_by()
    assert second != first, "one that was killed is replaced"
    mine = await agent(f"{PREFIX}slot")
    sentinel.dismiss()
    sentinel.dismiss()
    await gone(second)
    assert mine.returncode is None
    os.killpg(mine.pid, signal.SIGKILL)
    await mine.wait()


def test_without_one_the_server_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_words: object, **_more: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr("subprocess.Popen", refused)
    sentinel = Sentinel(PREFIX)
    sentinel.stand_by()
    sentinel.dismiss()


def standing_by() -> list[int]:
    """The living processes that stand by for servers with this prefix."""
    found = []
    for process in read_table().values():
        with suppress(OSError):
            command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            if process.alive and command.endswith(f"{MARKER}={PREFIX}\0".encode()):
                found.append(process.pid)
    return found
