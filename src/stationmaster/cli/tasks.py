"""`stationmaster tasks`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from stationmaster.cli.exits import exit_of_task
from stationmaster.cli.printing import (
    dollars,
    one_line,
    print_json,
    print_json_line,
    print_table,
    safe,
    say,
    size,
    warn,
)
from stationmaster.cli.target import KeyFileOption, OutputOption, UrlOption, shared_of

TaskArgument = Annotated[str, typer.Argument(metavar="TASK_ID", help="As `tasks list` shows it.")]


def list_tasks(
    context: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100)] = 20,
    after: Annotated[str | None, typer.Option("--after", metavar="TASK_ID")] = None,
    status: Annotated[str | None, typer.Option("--status", help="Only those in this one.")] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """List the project's tasks, the newest first."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        page = client.tasks(limit=limit, after=after, status=status)
    if shared.json(output):
        print_json({"tasks": [task.data for task in page.items], "next": page.next_cursor})
        return
    print_table(
        ("ID", "STATUS", "CREATED", "COST", "DESCRIPTION"),
        [
            (
                task.id,
                task.status,
                task.data.get("created_at", ""),
                dollars(task.cost) if task.ended else "-",
                one_line(task.data.get("description", "")),
            )
            for task in page.items
        ],
    )
    if page.next_cursor:
        warn(f"There are more: --after {page.next_cursor}")


def show(
    context: typer.Context,
    task_id: TaskArgument,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Show one task: what was asked, what became of it, what it cost."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        task = client.get(task_id)
    if shared.json(output):
        print_json(task.data)
        return
    facts = {
        "id": task.id,
        "status": task.status,
        "session": task.data.get("session_id"),
        "description": one_line(task.data.get("description", ""), 200),
        "model": task.data.get("model"),
        "sandbox": task.data.get("sandbox"),
        "created": task.data.get("created_at"),
        "started": task.data.get("started_at"),
        "ended": task.data.get("completed_at"),
        "error": task.error and f"{task.error.get('message')} ({task.error.get('code')})",
    }
    if task.ended:
        facts["cost"] = f"{dollars(task.cost)} for {task.total_tokens:,} tokens"
    for name, value in facts.items():
        if value not in (None, ""):
            say(f"{name + ':':13}{safe(value)}")
    if task.summary:
        say()
        say(safe(task.summary))


def follow(
    context: typer.Context,
    task_id: TaskArgument,
    *,
    after: Annotated[
        int, typer.Option("--after", min=0, help="Begin behind the event with this number.")
    ] = 0,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Follow a task from its beginning to its end; exit as it ends.

    With `--output json` one event a line. Ctrl-C stops following, not the task.
    """
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        if shared.json(output):
            for event in client.follow(task_id, after=after):
                print_json_line({"seq": event.seq, "type": event.type, "data": event.data})
        else:
            from stationmaster.cli.view import open_view

            with open_view(sys.stdout) as view:
                for event in client.follow(task_id, after=after):
                    view.show(event)
        task = client.get(task_id)
    raise typer.Exit(exit_of_task(task.status))


def cancel(
    context: typer.Context,
    task_id: TaskArgument,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Ask a task to stop. One that has ended stays as it is."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        task = client.cancel(task_id)
    if shared.json(output):
        print_json(task.data)
    elif task.ended:
        say(f"Task {task.id} is {task.status}.")
    else:
        say(f"Task {task.id} will stop.")


def artifacts(
    context: typer.Context,
    task_id: TaskArgument,
    *,
    download: Annotated[
        Path | None,
        typer.Option("--download", metavar="DIR", help="Write the files here; made if need be."),
    ] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """List the files that a task created, modified or deleted, or take them."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        found = client.artifacts(task_id)
        if download is not None:
            from stationmaster.cli.changes import fetch
            from stationmaster.cli.destination import Destination

            with Destination.make(download) as destination, fetch(client, task_id) as archive:
                archive.write_to(destination, found).tell(str(download))
            return
    if shared.json(output):
        print_json([artifact.data for artifact in found])
        return
    print_table(
        ("CHANGE", "SIZE", "PATH"),
        [(item.change, size(item.size), safe(item.path)) for item in found],
    )


def log(
    context: typer.Context,
    task_id: TaskArgument,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Show a task's steps."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        steps = client.log(task_id)
    if shared.json(output):
        print_json(steps)
        return
    rows = [
        (step.get("step"), step.get("timestamp"), step.get("action"), _details(step.get("details")))
        for step in steps
    ]
    print_table(("STEP", "TIME", "ACTION", "DETAILS"), rows)


def _details(details: object) -> str:
    if not isinstance(details, dict):
        return ""
    return one_line(" ".join(f"{name}={value}" for name, value in details.items()), 100)


def diff(
    context: typer.Context,
    task_id: TaskArgument,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Print what a task changed, as a unified diff for `git apply` or `patch -p1`."""
    with shared_of(context).target(url, key_file).client() as client:
        text = client.diff(task_id)
    # A file takes it as it is; a terminal must not act on what is in it.
    sys.stdout.write(safe(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()
