"""`stationmaster calls`: what was said in calls, where a project keeps it."""

from typing import Annotated, Any

import typer

from stationmaster.cli.exits import CommandError, Exit
from stationmaster.cli.printing import print_json, print_table, say, warn
from stationmaster.cli.target import KeyFileOption, OutputOption, UrlOption, shared_of

CallId = Annotated[str, typer.Argument(metavar="CALL_ID")]


def list_calls(
    context: typer.Context,
    *,
    model: Annotated[str | None, typer.Option("--model", help="Only of this model.")] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY_ID")] = None,
    session: Annotated[str | None, typer.Option("--session", metavar="SESSION_ID")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100)] = 20,
    after: Annotated[str | None, typer.Option("--after", metavar="CURSOR")] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """List the kept calls of your key's project, the newest first."""
    from stationmaster.client.kept_calls import KeptCallClient

    shared = shared_of(context)
    given = {"model": model, "key_id": key, "session_id": session}
    sought = {name: value for name, value in given.items() if value is not None}
    with shared.target(url, key_file).client() as client:
        page = KeptCallClient(client).calls(limit=limit, after=after, **sought)
    if shared.json(output):
        print_json({"calls": page.items, "next": page.next_cursor})
        return
    columns = ("id", "at", "model", "operation", "outcome", "key_id")
    rows = [tuple(str(item.get(name) or "") for name in columns) for item in page.items]
    print_table(("CALL", "AT", "MODEL", "FORMAT", "OUTCOME", "KEY"), rows)
    if page.next_cursor:
        warn(f"There are more: --after {page.next_cursor}")


def show(
    context: typer.Context,
    call_id: CallId,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Print what was said in a call, as JSON. That you read it goes on record."""
    from stationmaster.client.kept_calls import KeptCallClient

    with shared_of(context).target(url, key_file).client() as client:
        print_json(KeptCallClient(client).get(call_id))


def delete(
    context: typer.Context,
    call_id: Annotated[str | None, typer.Argument(metavar="[CALL_ID]")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every call of the project.")] = False,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Forget what was said in a call, or with --all in every one."""
    if (call_id is None) == (not every):
        raise CommandError("Give a call's id, or --all.", Exit.USAGE)
    from stationmaster.client.kept_calls import KeptCallClient

    with shared_of(context).target(url, key_file).client() as client:
        kept = KeptCallClient(client)
        if call_id is None:
            say(f"{kept.clear():,} calls are forgotten.")
        else:
            kept.delete(call_id)
            say(f"{call_id} is forgotten.")


def policy(
    context: typer.Context,
    project_id: Annotated[str, typer.Argument(metavar="PROJECT_ID")],
    *,
    enabled: Annotated[
        bool | None, typer.Option("--on/--off", help="Whether calls are kept.")
    ] = None,
    agent_calls: Annotated[
        bool | None,
        typer.Option("--agent-calls/--no-agent-calls", help="Also those of agents."),
    ] = None,
    retention_days: Annotated[int | None, typer.Option("--retention-days", min=1)] = None,
    rules: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="NAME", help="What is taken out; repeat, or `none`."),
    ] = None,
    patterns: Annotated[
        list[str] | None,
        typer.Option("--pattern", metavar="NAME=REGEX", help="What else is taken out; repeat."),
    ] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Show what a project keeps of its calls, or change it. What is not given stays."""
    from stationmaster.client.kept_calls import KeptCallClient

    change: dict[str, Any] = {
        "enabled": enabled,
        "agent_calls": agent_calls,
        "retention_days": retention_days,
        "rules": None if rules is None else [name for name in rules if name != "none"],
        "patterns": None if patterns is None else [_pattern(each) for each in patterns],
    }
    wanted = {name: value for name, value in change.items() if value is not None}
    with shared_of(context).target(url, key_file).client() as client:
        kept = KeptCallClient(client)
        found = kept.policy(project_id)
        if wanted:
            found.pop("project_id", None)
            found = kept.set_policy(project_id, {**found, **wanted})
    print_json(found)


def _pattern(given: str) -> dict[str, str]:
    name, equals, pattern = given.partition("=")
    if not equals:
        raise CommandError("A pattern is NAME=REGEX.", Exit.USAGE)
    return {"name": name, "pattern": pattern}
