"""`stationmaster jobs`: the work behind requests, of a server or of this machine's database."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stationmaster.cli.printing import one_line, print_json, print_table, say, warn
from stationmaster.cli.target import KeyFileOption, OutputOption, UrlOption, shared_of
from stationmaster.kernel.clock import iso

if TYPE_CHECKING:
    from stationmaster.client.jobs import JobClient
    from stationmaster.jobs.inventory import Inventory, Listed, State
    from stationmaster.kernel.paging import Page
    from stationmaster.kernel.principal import Principal

Json = dict[str, Any]


class JobState(StrEnum):
    """How a job stands."""

    waiting = "waiting"
    running = "running"
    parked = "parked"


JobId = Annotated[str, typer.Argument(metavar="JOB_ID")]


def list_jobs(
    context: typer.Context,
    *,
    state: Annotated[JobState | None, typer.Option("--state", help="Only these.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only of this kind.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100)] = 100,
    after: Annotated[str | None, typer.Option("--after", metavar="CURSOR")] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """List jobs, the oldest first. What is done is not among them."""
    chosen: State | None = None if state is None else state.value
    which: Json = {"state": chosen, "kind": kind, "limit": limit, "after": after}

    def ask(client: "JobClient") -> Json:
        page = client.jobs(**which)
        return {"jobs": page.items, "next": page.next_cursor}

    async def look(inventory: "Inventory", operator: "Principal") -> Json:
        page: Page[Listed] = await inventory.list(operator, **which)
        return {"jobs": [_told(job) for job in page.items], "next": page.next_cursor}

    found = _either(context, url, key_file, ask, look)
    if shared_of(context).json(output):
        print_json(found)
        return
    columns = ("id", "kind", "state", "attempts", "created_at")
    print_table(
        ("ID", "KIND", "STATE", "TRIED", "SINCE", "LAST ERROR"),
        [
            (*(job.get(name, "") for name in columns), one_line(str(job.get("error") or "")))
            for job in found["jobs"]
        ],
    )
    if found["next"]:
        warn(f"There are more: --after {found['next']}")


def show(
    context: typer.Context,
    job: JobId,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Show one job, with what it is about and its last error."""
    found = _one(
        context,
        url,
        key_file,
        lambda client: client.get(job),
        lambda inventory, operator: inventory.get(operator, job),
    )
    if shared_of(context).json(output):
        print_json(found)
        return
    print_table(("", ""), list(found.items()))


def replay(
    context: typer.Context,
    job: JobId,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Let a parked job be tried again. A worker finds it within seconds."""
    found = _one(
        context,
        url,
        key_file,
        lambda client: client.replay(job),
        lambda inventory, operator: inventory.replay(operator, job),
    )
    say(f"Job {found.get('id')} ({found.get('kind')}) waits to be tried again.")


def discard(
    context: typer.Context,
    job: JobId,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Throw a parked job away, for good."""
    found = _one(
        context,
        url,
        key_file,
        lambda client: client.discard(job),
        lambda inventory, operator: inventory.discard(operator, job),
    )
    say(f"Job {found.get('id')} ({found.get('kind')}) is gone.")


def _one(
    context: typer.Context,
    url: str | None,
    key_file: Path | None,
    ask: "Callable[[JobClient], Json]",
    look: "Callable[[Inventory, Principal], Awaitable[Listed]]",
) -> Json:
    """What `_either` says of a single job."""

    async def told(inventory: "Inventory", operator: "Principal") -> Json:
        return _told(await look(inventory, operator))

    return _either(context, url, key_file, ask, told)


def _either(
    context: typer.Context,
    url: str | None,
    key_file: Path | None,
    ask: "Callable[[JobClient], Json]",
    look: "Callable[[Inventory, Principal], Awaitable[Json]]",
) -> Json:
    """What the server says that was named; where none was, what this machine's database says."""
    target = shared_of(context).target(url, key_file)
    if target.url is None:
        return asyncio.run(_here(look))
    from stationmaster.client.jobs import JobClient

    with target.client() as client:
        return ask(JobClient(client))


async def _here(look: "Callable[[Inventory, Principal], Awaitable[Json]]") -> Json:
    from stationmaster.bootstrap.operators import OPERATOR, operators_jobs
    from stationmaster.cli.settings import load, start_logging

    settings = load({})
    start_logging(settings)
    async with operators_jobs(settings) as inventory:
        return await look(inventory, OPERATOR)


def _told(job: "Listed") -> Json:
    return asdict(job) | {"created_at": iso(job.created_at), "due_at": iso(job.due_at)}
