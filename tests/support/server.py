"""A real server in a process of its own, to be called, watched and killed."""

import asyncio
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.rates import GENEROUS

ADMIN_KEY = "admin-key-for-tests-0123456789"
START_SECONDS = 90.0  # two are enough on a machine with nothing else to do
STOP_SECONDS = 120.0  # half a minute for what runs, and some for what is slow
FINISHED = frozenset(
    {"completed", "failed", "cancelled", "timeout", "cost_exceeded", "interrupted"}
)


class ServerProcess:
    """`stationmaster serve` with `env` and nothing else of this process's environment.

        async with ServerProcess(tmp_path, {"ANTHROPIC_BASE_URL": …}) as server:
            task = await server.run_task("Write a program.")

    It can be killed and started again on the same data and port; `output` is all it ever wrote.
    """

    program: tuple[str, ...] = ("stationmaster", "serve")

    def __init__(self, directory: Path, env: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {ADMIN_KEY}"},
            timeout=httpx.Timeout(120.0),
        )
        self._log = directory / "server.log"
        self._env = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "DATA_DIR": str(self.data_dir),
            "PORT": str(self.port),
            "ADMIN_API_KEY": ADMIN_KEY,
            "LOG_LEVEL": "debug",
            "PYTHONFAULTHANDLER": "1",
            "LEASE_TIME": "1s",
            **GENEROUS,
            **(env or {}),
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.returncode is None

    def send(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        os.kill(self.pid, number)

    @property
    def output(self) -> str:
        """Everything written so far, by every start, on stdout and stderr."""
        return self._log.read_text(errors="replace")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.client.aclose()
        if self._process is not None and self._process.returncode is None:
            await self.kill()

    async def start(self) -> None:
        """Start, and return once `/ready` says so."""
        process = await self.launch()
        deadline = time.monotonic() + START_SECONDS
        while not await self.is_ready():
            assert process.returncode is None, self.output[-4000:]
            assert time.monotonic() < deadline, self.output[-4000:]
            await asyncio.sleep(0.05)

    async def launch(self) -> asyncio.subprocess.Process:
        """Start it, as a supervisor does: without a look at how it gets on."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self.program,
                cwd=self.directory,
                env=self._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self._process

    async def is_ready(self) -> bool:
        """Whether `/ready` says that it takes work."""
        try:
            return (await self.client.get("/ready")).status_code == 200
        except httpx.TransportError:
            return False

    async def kill(self) -> None:
        """SIGKILL, as a crash would."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    def kill_now(self) -> None:
        """As `kill`, from where nothing can be awaited; `kill` waits for its end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)

    async def stop(self, *, signals: int = 1) -> int:
        """SIGTERM, and the exit status. One that does not end fails, with where it stands."""
        assert self._process is not None
        for _ in range(signals):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                return await self._process.wait()
        except TimeoutError:
            self._process.send_signal(signal.SIGABRT)  # faulthandler writes where it stands
            await self._process.wait()
            raise AssertionError(f"It does not stop.\n{self.output[-8000:]}") from None

    async def exited(self) -> int:
        """Wait until it ends by itself; its exit status."""
        assert self._process is not None
        async with asyncio.timeout(60):
            return await self._process.wait()

    async def submit(self, description: str = "Write a program.", **fields: Any) -> str:
        """Start a task; return its id."""
        answer = await self.client.post("/v1/tasks", json={"description": description, **fields})
        assert answer.status_code == 202, answer.text
        task_id: str = answer.json()["task_id"]
        return task_id

    async def run_task(self, description: str = "Write a program.", **fields: Any) -> Any:
        """Run a task to its end; return it."""
        answer = await self.client.post("/v1/task", json={"description": description, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def task(self, task_id: str) -> Any:
        """A task as it is now."""
        return (await self.client.get(f"/v1/tasks/{task_id}")).raise_for_status().json()

    async def finished(self, task_id: str) -> Any:
        """A task once it has ended."""
        while (task := await self.task(task_id))["status"] not in FINISHED:
            await asyncio.sleep(0.05)
        return task

    async def events(self, task_id: str) -> list[Any]:
        """Every event of a task so far, by polling."""
        found: list[Any] = []
        while True:
            answer = await self.client.get(
                f"/v1/tasks/{task_id}/events",
                params={"after": len(found), "limit": 100},
                headers={"accept": "application/json"},
            )
            page = answer.raise_for_status().json()["events"]
            if not page:
                return found
            found += page

    def agent_processes(self) -> list[int]:
        """Processes that run on behalf of this server's agents now, from /proc."""
        needle = str(self.data_dir).encode()
        server = None if self._process is None else self._process.pid
        return [pid for pid in _pids() if pid not in {server, os.getpid()} and _has(pid, needle)]

    async def only_warm_agents_left(self) -> None:
        """Return once no session or task has an agent: those that wait for one may be there."""
        async with asyncio.timeout(START_SECONDS):
            while True:
                health = (await self.client.get("/health")).json()
                there = health["services"]["agents"]
                if there["idle"] == there["busy"] == 0 and there["alive"] == there["warm"]:
                    return
                await asyncio.sleep(0.1)

    async def no_agents_left(self, seconds: float = 30.0) -> None:
        """Return once no agent process is left; fail where one is after `seconds`."""
        deadline = time.monotonic() + seconds
        while left := self.agent_processes():
            assert time.monotonic() < deadline, [_describe(pid) for pid in left]
            await asyncio.sleep(0.1)


def _free_port() -> int:
    """One that no connection takes for its own end while its server is started anew."""
    while True:
        port = random.randrange(10_000, 32_000)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _has(pid: int, needle: bytes) -> bool:
    try:
        place = Path("/proc") / str(pid)
        return needle in (place / "environ").read_bytes() + (place / "cmdline").read_bytes()
    except OSError:
        return False


def _describe(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_text().replace("\0", " ")[:200]
    except OSError:
        return f"{pid} (gone)"
