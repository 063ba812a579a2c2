"""One task from its beginning to its end: sent, watched, perhaps cancelled, brought back."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stationmaster.cli.exits import CommandError, Exit, exit_of_task
from stationmaster.cli.printing import print_json, safe, say, warn
from stationmaster.cli.target import DEFAULT_URL, Target

if TYPE_CHECKING:
    from stationmaster.cli.directory import Packed
    from stationmaster.cli.view import View
    from stationmaster.client import AsyncClient, Task, TaskOptions

STOP_S = 20.0  # for a cancelled task to end; then the command ends without it


@dataclass(frozen=True, slots=True)
class Job:
    """What was asked for on the command line."""

    prompt: str
    options: "TaskOptions"
    target: Target
    data_dir: Path | None
    directory: Path | None
    out: Path | None
    apply: bool
    detach: bool
    json: bool


async def carry_out(job: Job) -> Exit:
    """Run the job to its end; return the exit code."""
    from stationmaster.client import AsyncClient

    async with _server(job) as target, AsyncClient(target.url or "", target.key) as client:
        with _packed(job.directory) as packed, _interrupts() as interrupts:
            if packed is not None and not job.json:
                say(f"Sending {packed.describe()}.")
            task = await client.submit(
                job.prompt, job.options, archive=packed.archive if packed and packed.sent else None
            )
            if job.detach:
                _tell_detached(job, task)
                return Exit.DONE
            interrupts.gentle = True
            task = await _watch(job, client, task, interrupts)
            await asyncio.to_thread(_bring_back, job, target, task, packed)
        if job.json:
            print_json(task.data)
        return Exit.INTERRUPTED if interrupts.asked.is_set() else exit_of_task(task.status)


@asynccontextmanager
async def _server(job: Job) -> AsyncIterator[Target]:
    """The server that was named, one at the default address that knows the key, or our own."""
    target = job.target
    if target.url is None and target.key and job.data_dir is None and await _answers(target.key):
        target = Target(DEFAULT_URL, target.key)
    if target.url is not None:
        yield target
        return
    if job.detach:
        raise CommandError("--detach needs a server to leave the task to: --url.", Exit.USAGE)
    from stationmaster.cli.embedded import embedded

    async with embedded(job.data_dir) as server:
        for warning in server.warnings:
            warn(f"note: {safe(warning)}")
        yield server.target


async def _answers(key: str) -> bool:
    from stationmaster.client import AsyncClient, ClientError

    try:
        async with AsyncClient(DEFAULT_URL, None, timeout=2.0, max_retries=0) as stranger:
            # The key is shown to nobody who does not know what a health report looks like.
            if "worker_pool" not in (await stranger.health()).get("services", {}):
                return False
        async with AsyncClient(DEFAULT_URL, key, timeout=5.0, max_retries=0) as client:
            await client.tasks(limit=1)
    except ClientError:
        return False
    return True


@contextmanager
def _packed(directory: Path | None) -> "Iterator[Packed | None]":
    if directory is None:
        yield None
        return
    from stationmaster.cli.directory import pack

    with pack(directory) as packed:
        yield packed


# --- interruption -----------------------------------------------------------------------------


class _Interrupts:
    """Ctrl-C. While `gentle`, the first one only asks; any other cancels the command."""

    def __init__(self, command: "asyncio.Task[Exit] | None") -> None:
        self.asked = asyncio.Event()
        self.gentle = False
        self._command = command

    def received(self) -> None:
        if self.gentle and not self.asked.is_set():
            self.asked.set()
        elif self._command is not None:
            self._command.cancel()


@contextmanager
def _interrupts() -> Iterator[_Interrupts]:
    loop = asyncio.get_running_loop()
    found = _Interrupts(asyncio.current_task())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, found.received)
    try:
        yield found
    except asyncio.CancelledError:
        raise CommandError("Interrupted.", Exit.INTERRUPTED) from None
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _watch(job: Job, client: "AsyncClient", task: "Task", interrupts: _Interrupts) -> "Task":
    """Show the task to its end; cancel it where that is asked for."""
    from stationmaster.cli.view import open_view

    with open_view(sys.stdout) as view:
        following = asyncio.create_task(_follow(job, client, task.id, view))
        asked = asyncio.create_task(interrupts.asked.wait())
        try:
            await asyncio.wait({following, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                if not job.json:
                    view.note("cancelling; Ctrl-C again to leave at once")
                await client.cancel(task.id)
                await asyncio.wait({following}, timeout=STOP_S)
            if following.done():
                following.result()
        finally:
            for each in (following, asked):
                each.cancel()
            await asyncio.gather(following, asked, return_exceptions=True)
    return await client.get(task.id)


async def _follow(job: Job, client: "AsyncClient", task_id: str, view: "View") -> None:
    if not job.json:
        view.note(f"task {task_id}")
    async for event in client.follow(task_id):
        if not job.json:
            view.show(event)


# --- bringing back ----------------------------------------------------------------------------


def _tell_detached(job: Job, task: "Task") -> None:
    if job.json:
        print_json(task.data)
        return
    say(task.id)
    warn(f"Follow it with: stationmaster tasks follow {task.id}")


def _bring_back(job: Job, target: Target, task: "Task", packed: "Packed | None") -> None:
    from stationmaster.cli.changes import fetch
    from stationmaster.cli.destination import Destination

    with target.client() as client:
        changed = client.artifacts(task.id)
        if not job.json:
            for artifact in changed:
                say(f"  {artifact.change:9} {safe(artifact.path)}")
        if not changed:
            return
        if job.out is not None:
            with Destination.make(job.out) as destination, fetch(client, task.id) as archive:
                outcome = archive.write_to(destination, changed)
            _write_diff(job.out, task.id, client.diff(task.id))
            outcome.tell(str(job.out), quiet=job.json)
        if not job.apply or packed is None or job.directory is None:
            if job.directory is not None and job.out is None and not job.json:
                say("Nothing was changed here; --apply or --out brings the changes back.")
            return
        if task.status != "completed":
            warn("Nothing is applied: the task did not complete. --out takes what there is.")
            return
        with Destination.existing(job.directory) as destination, fetch(client, task.id) as archive:
            outcome = archive.apply_to(destination, changed, packed.sent)
        outcome.tell(str(job.directory), quiet=job.json)


def _write_diff(directory: Path, task_id: str, text: str) -> None:
    path = directory / f"{task_id}.diff"
    path.write_text(text, encoding="utf-8", errors="replace")
