"""`stationmaster jobs`: the work behind requests, for whoever has the machine and the database."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from stationmaster.cli.printing import one_line, print_json, print_table, say
from stationmaster.cli.target import OutputOption, shared_of
from stationmaster.kernel.clock import iso

if TYPE_CHECKING:
    from stationmaster.jobs.inventory import Inventory, Listed, State


class JobState(StrEnum):
    """How a job stands."""

    waiting = "waiting"
    running = "running"
    parked = "parked"


T = TypeVar("T")
JobId = Annotated[str, typer.Argument(metavar="JOB_ID")]


def list_jobs(
    context: typer.Context,
    *,
    state: Annotated[JobState | None, typer.Option("--state", help="Only these.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only of this kind.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000)] = 100,
    output: OutputOption = None,
) -> None:
    """List the jobs of this database, the oldest first. What is done is not among them."""
    chosen: State | None = None if state is None else state.value

    async def work(inventory: "Inventory") -> "list[Listed]":
        return await inventory.list(state=chosen, kind=kind, limit=limit)

    found = asyncio.run(_with(work))
    if shared_of(context).json(output):
        print_json([_told(job) for job in found])
        return
    print_table(
        ("ID", "KIND", "STATE", "TRIED", "SINCE", "LAST ERROR"),
        [
            (
                job.id,
                job.kind,
                job.state,
                job.attempts,
                iso(job.created_at),
                one_line(job.error or ""),
            )
            for job in found
        ],
    )


def show(context: typer.Context, job: JobId, *, output: OutputOption = None) -> None:
    """Show one job, with what it is about and its last error."""
    found = asyncio.run(_with(lambda inventory: inventory.get(job)))
    if shared_of(context).json(output):
        print_json(_told(found))
        return
    print_table(("", ""), list(_told(found).items()))


def replay(job: JobId) -> None:
    """Let a parked job be tried again. A worker finds it within seconds."""
    found = asyncio.run(_with(lambda inventory: inventory.replay(job)))
    say(f"Job {found.id} ({found.kind}) waits to be tried again.")


def discard(job: JobId) -> None:
    """Throw a parked job away, for good."""
    found = asyncio.run(_with(lambda inventory: inventory.discard(job)))
    say(f"Job {found.id} ({found.kind}) is gone.")


async def _with(work: "Callable[[Inventory], Awaitable[T]]") -> T:
    from stationmaster.bootstrap.operators import operators_jobs
    from stationmaster.cli.settings import load, start_logging

    settings = load({})
    start_logging(settings)
    async with operators_jobs(settings) as inventory:
        return await work(inventory)


def _told(job: "Listed") -> dict[str, object]:
    return asdict(job) | {"created_at": iso(job.created_at), "due_at": iso(job.due_at)}
