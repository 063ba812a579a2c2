"""`stationmaster sessions`: conversations with agents, looked at and spoken to."""

import sys
from typing import Annotated, Any

import typer

from stationmaster.cli.agents import model_of
from stationmaster.cli.printing import (
    dollars,
    one_line,
    print_json,
    print_json_line,
    print_table,
    safe,
    say,
    warn,
)
from stationmaster.cli.target import KeyFileOption, OutputOption, UrlOption, shared_of

SessionArgument = Annotated[
    str, typer.Argument(metavar="SESSION_ID", help="As `sessions list` has it.")
]


def list_sessions(
    context: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100)] = 20,
    after: Annotated[str | None, typer.Option("--after", metavar="CURSOR")] = None,
    archived: Annotated[bool, typer.Option("--archived", help="Archived ones too.")] = False,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """List the project's sessions, the newest first."""
    from stationmaster.client.sessions import SessionClient

    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        page = SessionClient(client).sessions(limit=limit, after=after, archived=archived)
    if shared.json(output):
        print_json({"sessions": page.items, "next": page.next_cursor})
        return
    print_table(
        ("ID", "STATUS", "CREATED", "COST", "AGENT", "TITLE"),
        [
            (
                item.get("id"),
                item.get("status"),
                item.get("created_at"),
                dollars(cost_of(item)),
                one_line((item.get("agent") or {}).get("name", ""), 30),
                one_line(item.get("title") or ""),
            )
            for item in page.items
        ],
    )
    if page.next_cursor:
        warn(f"There are more: --after {page.next_cursor}")


def show(
    context: typer.Context,
    session_id: SessionArgument,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Show one session: its agent, how it is, what it cost."""
    from stationmaster.client.sessions import SessionClient

    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        found = SessionClient(client).get(session_id)
    if shared.json(output):
        print_json(found)
        return
    agent = found.get("agent") or {}
    facts = {
        "id": found.get("id"),
        "title": found.get("title"),
        "status": found.get("status"),
        "agent": f"{agent.get('name')} ({agent.get('id')}, version {agent.get('version')})",
        "model": model_of(agent),
        "environment": found.get("environment_id"),
        "cost": dollars(cost_of(found)),
        "created": found.get("created_at"),
        "updated": found.get("updated_at"),
        "archived": found.get("archived_at"),
    }
    for name, value in facts.items():
        if value not in (None, ""):
            say(f"{name + ':':13}{safe(value)}")


def talk(
    context: typer.Context,
    session_id: SessionArgument,
    message: Annotated[str, typer.Argument(help="What to say; - reads it from stdin.")],
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Say something and watch until the session waits again.

    Exits with 6 where it waits for an approval or its budget is used up, with 1 where the turn
    failed. Ctrl-C stops watching, not the session.
    """
    from stationmaster.cli.conversation import Conversation
    from stationmaster.client.sessions import SessionClient

    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        sessions = SessionClient(client)
        with sessions.listening(session_id) as events:
            sessions.say(session_id, sys.stdin.read() if message == "-" else message)
            talking = Conversation(sys.stdout, json=shared.json(output))
            turn = talking.watch(events)
    raise typer.Exit(int(turn.exit))


def follow(
    context: typer.Context,
    session_id: SessionArgument,
    *,
    after: Annotated[
        int | None,
        typer.Option("--after", min=0, help="Begin behind the event with this number; 0 is all."),
    ] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Follow a session, from what comes next on, until Ctrl-C or its end.

    With `--output json` one event a line.
    """
    from stationmaster.cli.conversation import Conversation
    from stationmaster.client.sessions import SessionClient

    shared = shared_of(context)
    as_json = shared.json(output)
    with shared.target(url, key_file).client() as client:
        sessions = SessionClient(client)
        with sessions.listening(session_id, after=after) as events:
            talking = Conversation(sys.stdout, json=as_json)
            while not (turn := talking.watch(events)).over:
                pass
    raise typer.Exit(int(turn.exit))


def events(
    context: typer.Context,
    session_id: SessionArgument,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Print everything that has happened in a session, one JSON event a line."""
    from stationmaster.client.sessions import SessionClient

    with shared_of(context).target(url, key_file).client() as client:
        for event in SessionClient(client).history(session_id):
            print_json_line(event)


def interrupt(
    context: typer.Context,
    session_id: SessionArgument,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Ask the turn under way to end. The session can be spoken to afterwards."""
    from stationmaster.client.sessions import SessionClient

    with shared_of(context).target(url, key_file).client() as client:
        SessionClient(client).interrupt(session_id)
    say(f"Session {safe(session_id)} is interrupted.")


def fork(
    context: typer.Context,
    session_id: SessionArgument,
    *,
    run: Annotated[
        str | None,
        typer.Option("--at", metavar="RUN_ID", help="The turn to go on from; the last one."),
    ] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Make a session that goes on from this one's past, and print its id."""
    from stationmaster.client.sessions import SessionClient

    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        made = SessionClient(client).fork(session_id, run_id=run)
    if shared.json(output):
        print_json(made)
    else:
        say(str(made.get("id")))


def archive(
    context: typer.Context,
    session_id: SessionArgument,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Take a session out of use. It can still be read."""
    from stationmaster.client.sessions import SessionClient

    with shared_of(context).target(url, key_file).client() as client:
        SessionClient(client).archive(session_id)
    say(f"Session {safe(session_id)} is archived.")


def cost_of(session: dict[str, Any]) -> float:
    """What a session has cost, in US dollars."""
    amount = ((session.get("usage") or {}).get("list_cost") or {}).get("amount")
    try:
        return float(amount or 0) / 100  # in cents
    except (TypeError, ValueError):
        return 0.0
