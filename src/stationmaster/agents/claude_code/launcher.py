"""One agent's process: started with an environment of ours, ended with all its descendants."""

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from stationmaster.agents.base import AgentUnavailable
from stationmaster.agents.claude_code.processes import (
    MARKER,
    Process,
    descendants,
    kill_all,
    marked,
    read_process,
    read_table,
)

STDERR_TAIL_BYTES = 4096

# A whole close takes at most 5 s: this much for the kill, the rest for what surrounds it.
_KILL_SECONDS = 3.0
_STDERR_SECONDS = 0.2
_DRAIN_SECONDS = 0.2
_CHUNK_BYTES = 64 * 1024

T = TypeVar("T")


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end even where the caller is cancelled; the cancellation follows it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()
        raise cancelled
    return task.result()


class AgentProcess:
    """A started process and everything below it.

    `uid` is the user id that belongs to this agent alone, if it has one: then whatever has it is
    the agent's, wherever it hides.
    """

    def __init__(self, process: asyncio.subprocess.Process, marker: str, uid: int | None) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.pid = process.pid
        self.marker = marker
        self.stdout = process.stdout
        self._process = process
        self._stdin = process.stdin
        self._uid = uid
        self._tail = bytearray()
        # Looked at from threads: the watcher's and a kill's may meet.
        self._seen_lock = threading.Lock()
        self._seen: dict[tuple[int, int], Process] = {}
        self._write_lock = asyncio.Lock()
        self._stderr = asyncio.create_task(self._read_stderr(process.stderr))

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        marker: str,
        uid: int | None,
    ) -> "AgentProcess":
        """Start `command` in a session of its own, with `env` and the marker and nothing else.

        Raises `AgentUnavailable`. Where the caller is cancelled, nothing is left running.
        """
        spawned: list[AgentProcess] = []

        async def spawn() -> None:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=cwd,
                env={**env, MARKER: marker},
                start_new_session=True,
                close_fds=True,
            )
            spawned.append(cls(process, marker, uid))

        try:
            await finish(spawn())
        except (OSError, ValueError) as error:
            raise AgentUnavailable(
                f"The agent's process cannot be started: {error}.", code="agent_start_failed"
            ) from error
        except asyncio.CancelledError:
            for agent in spawned:
                await finish(agent.kill())
            raise
        return spawned[0]

    @property
    def stderr_tail(self) -> str:
        """The last of what was written to stderr, at most 4 KiB."""
        return self._tail.decode("utf-8", "replace").strip()

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.returncode

    async def write(self, data: bytes) -> None:
        """Write to stdin, waiting while the pipe is full. Raises `ConnectionError` at its end."""
        async with self._write_lock:
            self._stdin.write(data)
            await self._stdin.drain()

    def end_input(self) -> None:
        """Close stdin: an idle agent then ends by itself. Idempotent."""
        self._stdin.close()

    async def wait(self, *, at_most: float) -> int | None:
        """Wait for the end, at most so many seconds; its exit code, None where it still runs.

        What it wrote to stderr has then been read.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most):
                await self._process.wait()
                # A descendant may hold stderr open for as long as it likes.
                await asyncio.wait({self._stderr}, timeout=_STDERR_SECONDS)
        return self._process.returncode

    def members(self, table: Mapping[int, Process]) -> list[Process]:
        """Every living process of this agent in `table`, those seen before included."""
        pids = descendants(table, self.pid)
        if self._uid is not None:
            pids |= {process.pid for process in table.values() if process.uid == self._uid}
        with self._seen_lock:
            known = self._seen.keys() | {table[pid].key for pid in pids}
            self._seen = {
                key: now
                for key in known
                if (now := table.get(key[0])) is not None and now.key == key and now.alive
            }
            return list(self._seen.values())

    async def kill(self) -> bool:
        """Kill everything of this agent; return when it is gone, at most some 3 s later.

        Idempotent. False where something is left, which a later sweep will find by its marker.
        """
        first = await asyncio.to_thread(read_process, self.pid)
        if first is not None and self._process.returncode is None:
            await asyncio.to_thread(self._look)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        gone = await kill_all(self._look, within=_KILL_SECONDS)
        self._stdin.close()
        if gone:
            await self._process.wait()
        await self._drain()
        return gone

    async def _drain(self) -> None:
        # A pipe is closed where its end is read: what nobody read would hold it open for good.
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while await self.stdout.read(_CHUNK_BYTES):
                    pass
                await asyncio.wait({self._stderr})
        self._stderr.cancel()
        await asyncio.wait({self._stderr})

    def _look(self) -> list[Process]:
        table = read_table()
        found = marked(table, lambda marker: marker == self.marker)
        with self._seen_lock:
            self._seen.update({table[pid].key: table[pid] for pid in found})
        return self.members(table)

    async def _read_stderr(self, stderr: asyncio.StreamReader) -> None:
        while chunk := await stderr.read(_CHUNK_BYTES):
            self._tail += chunk
            del self._tail[:-STDERR_TAIL_BYTES]
