"""`stationmaster agents`: definitions of agents, for sessions."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stationmaster.cli.exits import CommandError, Exit
from stationmaster.cli.printing import one_line, print_json, print_table, safe, say, warn
from stationmaster.cli.target import KeyFileOption, OutputOption, UrlOption, shared_of

AgentArgument = Annotated[str, typer.Argument(metavar="AGENT_ID", help="As `agents list` has it.")]
_MAX_FILE = 1024 * 1024  # bytes of a definition


def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is called.")],
    *,
    model: Annotated[str, typer.Option("--model", metavar="NAME")] = "sonnet",
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="Its system prompt.")
    ] = None,
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask somebody before each call of a tool.")
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="PATH",
            help="The rest of the definition, as JSON in the API's form; - reads it from stdin.",
        ),
    ] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Define an agent and print its id."""
    from stationmaster.client.sessions import SessionClient

    definition = {"tools": [toolset(ask=ask)], **_read(file), "name": name}
    definition.setdefault("model", model)
    if system is not None:
        definition["system"] = system
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        made = SessionClient(client).create_agent(definition)
    if shared.json(output):
        print_json(made)
    else:
        say(str(made.get("id")))


def toolset(*, ask: bool) -> dict[str, Any]:
    """All of the agent's own tools, each call asked for or not."""
    policy = {"type": "always_ask" if ask else "always_allow"}
    return {
        "type": "agent_toolset_20260401",
        "default_config": {"enabled": True, "permission_policy": policy},
    }


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    if str(file) == "-":
        text = sys.stdin.read(_MAX_FILE + 1)
    else:
        with file.expanduser().open("rb") as opened:
            text = opened.read(_MAX_FILE + 1).decode("utf-8", "replace")
    try:
        found = json.loads(text) if len(text) <= _MAX_FILE else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CommandError(f"{file} does not hold one JSON object.", Exit.INVALID)
    return found


def list_agents(
    context: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100)] = 20,
    after: Annotated[str | None, typer.Option("--after", metavar="CURSOR")] = None,
    archived: Annotated[bool, typer.Option("--archived", help="Archived ones too.")] = False,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """List the project's agents, the newest first."""
    from stationmaster.client.sessions import SessionClient

    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        page = SessionClient(client).agents(limit=limit, after=after, archived=archived)
    if shared.json(output):
        print_json({"agents": page.items, "next": page.next_cursor})
        return
    print_table(
        ("ID", "VERSION", "MODEL", "CREATED", "NAME"),
        [
            (
                agent.get("id"),
                agent.get("version"),
                model_of(agent),
                agent.get("created_at"),
                one_line(agent.get("name", "")),
            )
            for agent in page.items
        ],
    )
    if page.next_cursor:
        warn(f"There are more: --after {page.next_cursor}")


def show(
    context: typer.Context,
    agent_id: AgentArgument,
    *,
    version: Annotated[int | None, typer.Option("--version", min=1)] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Show an agent, at its latest version unless another is named."""
    from stationmaster.client.sessions import SessionClient

    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        agent = SessionClient(client).agent(agent_id, version)
    if shared.json(output):
        print_json(agent)
        return
    facts = {
        "id": agent.get("id"),
        "name": agent.get("name"),
        "version": agent.get("version"),
        "model": model_of(agent),
        "description": agent.get("description"),
        "tools": ", ".join(str(tool.get("type")) for tool in agent.get("tools") or []),
        "created": agent.get("created_at"),
        "archived": agent.get("archived_at"),
    }
    for name, value in facts.items():
        if value not in (None, ""):
            say(f"{name + ':':13}{safe(value)}")
    if agent.get("system"):
        say()
        say(safe(agent["system"]))


def archive(
    context: typer.Context,
    agent_id: AgentArgument,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Take an agent out of use. The sessions that it has go on."""
    from stationmaster.client.sessions import SessionClient

    with shared_of(context).target(url, key_file).client() as client:
        SessionClient(client).archive_agent(agent_id)
    say(f"Agent {safe(agent_id)} is archived.")


def model_of(agent: dict[str, Any]) -> str:
    """The name of an agent's model, in either of the API's forms."""
    model = agent.get("model")
    return str(model.get("id") if isinstance(model, dict) else model)
