"""What a task costs, against the bare CLI: `claude -p`, as often, as many at once.

Both run the same binary with the same model, tools and flags against the same upstream, which is a
process of its own, and each gets a fresh home and a fresh workspace. Ours adds the sandbox, the
gateway, the ledger, the book and the list of artifacts.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp

from bench.command import Plan, run
from bench.figure import Figure, Goal
from bench.programs import require_cli
from bench.rounds import interleaved_async, middle
from bench.server import KEY, Server, server
from bench.upstream import upstream
from stationmaster.agents.base import LaunchSpec
from stationmaster.agents.claude_code.command import arguments, environment

MAX_WORKERS = 5
TASKS = 50
QUICK_TASKS = 15
MODEL = "sonnet"
PROMPT = "Write a program."
TASK_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Work:
    """A kind of task, by the script of its upstream."""

    script: str
    name: str
    goal: Goal | None


WORKS = (
    Work("answer", "{} tasks of one answer", Goal("at most", 1.25)),
    Work("work", "{} tasks that write, run and read a file", Goal("at most", 1.25)),
)


def measure(plan: Plan) -> list[Figure]:
    """The time of many short tasks, five at once."""
    cli = require_cli()
    return [asyncio.run(_measure(plan, cli, work)) for work in WORKS]


async def _measure(plan: Plan, cli: Path, work: Work) -> Figure:
    count = QUICK_TASKS if plan.quick else TASKS
    with (
        tempfile.TemporaryDirectory(prefix="bench-tasks-") as name,
        upstream(
            "bench.scripted", f"--script={work.script}", log=Path(name, "upstream.log")
        ) as provider,
        server(
            Path(name, "server"),
            upstream=provider,
            env={"MAX_WORKERS": str(MAX_WORKERS), "MAX_QUEUE": str(TASKS)},
        ) as ours,
    ):
        bare = Bare(cli, provider, Path(name, "bare"))
        async with aiohttp.ClientSession(headers={"x-api-key": KEY}) as session:
            candidates: dict[str, Callable[[int], Awaitable[None]]] = {
                "claude -p": bare.run,
                "stationmaster": partial(_run_tasks, session, ours),
            }
            for name_, candidate in candidates.items():  # the disk's cache, the pool, the probe
                plan.progress.say(f"{work.script}: warming up: {name_}")
                await candidate(MAX_WORKERS)
            found = await interleaved_async(
                {name_: partial(_timed, each, count) for name_, each in candidates.items()},
                plan.rounds,
                plan.progress,
                work.script,
            )
    return Figure(
        work.name.format(count) + f", {MAX_WORKERS} at once",
        middle(found["stationmaster"], float),
        middle(found["claude -p"], float),
        "claude -p",
        "s",
        work.goal,
    )


async def _timed(work: Callable[[int], Awaitable[None]], count: int) -> float:
    began = time.perf_counter()
    await work(count)
    return time.perf_counter() - began


async def _run_tasks(session: aiohttp.ClientSession, ours: Server, count: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(_run_task(session, ours))


async def _run_task(session: aiohttp.ClientSession, ours: Server) -> None:
    body = {"description": PROMPT, "model": MODEL}
    patience = aiohttp.ClientTimeout(total=TASK_SECONDS)
    async with session.post(f"{ours.url}/v1/task", json=body, timeout=patience) as answer:
        task = await answer.json()
        if task.get("status") != "completed":
            raise RuntimeError(f"A task did not complete: {task}")


class Bare:
    """`claude -p`, with what the server gives it except the sandbox and the gateway."""

    def __init__(self, cli: Path, provider: str, directory: Path) -> None:
        self._cli = cli
        self._provider = provider
        self._directory = directory
        self._number = 0

    async def run(self, count: int) -> None:
        """Run so many, `MAX_WORKERS` at once. Raises `RuntimeError` where one fails."""
        free = asyncio.Semaphore(MAX_WORKERS)
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._one(free))

    async def _one(self, free: asyncio.Semaphore) -> None:
        async with free:
            spec = self._spec()
            # What the server says on stdin is said here by an argument; the rest is the same.
            flags = [word for word in arguments(spec) if "--input-format" not in word]
            process = await asyncio.create_subprocess_exec(
                self._cli,
                *flags,
                "-p",
                PROMPT,
                cwd=spec.workspace,
                env=environment(spec, boxed=False, root=os.geteuid() == 0),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            output, errors = await process.communicate()
            if process.returncode or b'"subtype":"success"' not in output:
                raise RuntimeError(f"claude -p failed: {errors.decode()} {output.decode()[-2000:]}")

    def _spec(self) -> LaunchSpec:
        self._number += 1
        place = self._directory / str(self._number)
        workspace, home = place / "workspace", place / "home"
        workspace.mkdir(parents=True)
        (home / "tmp").mkdir(parents=True)
        return LaunchSpec(
            session_id=f"bare-{self._number}",
            workspace=workspace,
            home=home,
            gateway_socket=place / "none",
            gateway_url=self._provider,
            token=KEY,
            model=MODEL,
        )


if __name__ == "__main__":
    sys.exit(run("tasks", __doc__ or "", measure))
