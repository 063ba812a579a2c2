"""`stationmaster batches`: many model calls that nobody waits for."""

import io
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stationmaster.cli.exits import CommandError, Exit
from stationmaster.cli.printing import count_of, print_json, print_table, safe, say, warn
from stationmaster.cli.target import KeyFileOption, OutputOption, Shared, UrlOption, shared_of

if TYPE_CHECKING:
    from stationmaster.client import Client
    from stationmaster.client.batches import BatchClient

POLL_S = 1.0
CREATE_S = 600.0  # for a batch of some hundred MB to be taken in

BatchId = Annotated[str, typer.Argument(metavar="BATCH_ID", help="As `batches list` has it.")]
Wait = Annotated[bool, typer.Option("--wait", help="Show how far it is, until it has ended.")]


def create(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A line of JSON for each request, with custom_id and params; - reads stdin.",
        ),
    ],
    *,
    wait: Wait = False,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Make a batch of the requests in a file, and print it."""
    from stationmaster.cli.target import DEFAULT_URL
    from stationmaster.client import Client, ClientError
    from stationmaster.client.batches import read_requests

    try:
        if str(file) == "-":
            requests = read_requests(sys.stdin.buffer)
        else:
            with file.open("rb") as lines:
                requests = read_requests(lines)
    except ClientError as error:
        raise CommandError(f"{file}: {error}.", Exit.INVALID) from None
    shared = shared_of(context)
    target = shared.target(url, key_file)
    with Client(target.url or DEFAULT_URL, target.key, timeout=CREATE_S) as client:
        batches = _batches(client)
        batch = batches.create(requests)
        if wait:
            batch = _watch(batches, batch)
    _show(shared, output, batch)


def list_batches(
    context: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100)] = 20,
    after: Annotated[str | None, typer.Option("--after", metavar="BATCH_ID")] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """List the project's batches, the newest first."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        page = _batches(client).batches(limit=limit, after=after)
    if shared.json(output):
        print_json({"batches": page.items, "next": page.next_cursor})
        return
    print_table(
        ("ID", "STATUS", "CREATED", "WAITING", "SUCCEEDED", "ERRORED", "CANCELED", "EXPIRED"),
        [
            (
                batch.get("id"),
                batch.get("processing_status"),
                batch.get("created_at"),
                *_counts(batch).values(),
            )
            for batch in page.items
        ],
    )
    if page.next_cursor:
        warn(f"There are more: --after {page.next_cursor}")


def show(
    context: typer.Context,
    batch_id: BatchId,
    *,
    wait: Wait = False,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Show one batch, and how far it is."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        batches = _batches(client)
        batch = batches.get(batch_id)
        if wait:
            batch = _watch(batches, batch)
        there = _submissions(batches, batch_id)
    if shared.json(output):
        print_json({**batch, "submissions": there})
        return
    _show(shared, output, batch)
    for each in there:
        say(f"{'at provider:':13}{_told(each)}")


def cancel(
    context: typer.Context,
    batch_id: BatchId,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Begin none of its requests any more. What is under way is finished, and billed."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        _show(shared, output, _batches(client).cancel(batch_id))


def delete(
    context: typer.Context,
    batch_id: BatchId,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Delete a batch that has ended, and its results."""
    with shared_of(context).target(url, key_file).client() as client:
        _batches(client).delete(batch_id)
    say(f"Batch {batch_id} is deleted.")


def results(
    context: typer.Context,
    batch_id: BatchId,
    *,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Write them to a file.")
    ] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Print what came of each request, a line of JSON each."""
    with shared_of(context).target(url, key_file).client() as client:
        if to is not None:
            with to.open("wb") as file:
                size = _batches(client).results(batch_id, file)
            warn(f"{count_of(size, 'byte')} written to {to}.")
            return
        found = io.BytesIO()
        _batches(client).results(batch_id, found)
    for line in found.getvalue().splitlines():
        say(line.decode("utf-8", "replace"))


def _batches(client: "Client") -> "BatchClient":
    from stationmaster.client.batches import BatchClient

    return BatchClient(client)


def _watch(batches: "BatchClient", batch: dict[str, Any]) -> dict[str, Any]:
    """Show how far a batch is, on stderr, until it has ended."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(safe(batch.get("id")), total=sum(_counts(batch).values()))
        while True:
            counts = _counts(batch)
            progress.update(bar, completed=sum(counts.values()) - counts["processing"])
            if batch.get("processing_status") == "ended":
                return batch
            time.sleep(POLL_S)
            batch = batches.get(str(batch.get("id")))


def _submissions(batches: "BatchClient", batch_id: str) -> list[dict[str, Any]]:
    from stationmaster.client import NotFound

    try:
        return batches.submissions(batch_id)
    except NotFound:  # the server is of a version without them
        return []


def _told(submission: dict[str, Any]) -> str:
    """A submission in a line: where, how far, what is wrong."""
    counts = submission.get("counts") or {}
    parts = [
        f"{submission.get('provider')}, {submission.get('model')}",
        count_of(int(submission.get("requests") or 0), "request"),
        str(submission.get("state")).replace("_", " "),
        *(f"{number} {state}" for state, number in counts.items() if number),
    ]
    told = ", ".join(safe(part) for part in parts)
    note = submission.get("note")
    return f"{told}: {safe(note)}" if note else told


def _counts(batch: dict[str, Any]) -> dict[str, int]:
    found = batch.get("request_counts") or {}
    names = ("processing", "succeeded", "errored", "canceled", "expired")
    return {name: int(found.get(name) or 0) for name in names}


def _show(shared: Shared, output: Any, batch: dict[str, Any]) -> None:
    if shared.json(output):
        print_json(batch)
        return
    facts = {
        "id": batch.get("id"),
        "status": batch.get("processing_status"),
        **_counts(batch),
        "created": batch.get("created_at"),
        "expires": batch.get("expires_at"),
        "ended": batch.get("ended_at"),
    }
    for name, value in facts.items():
        if value is not None:
            say(f"{name + ':':13}{safe(value)}")
