"""`stationmaster approvals`: calls of tools that wait for somebody."""

import json
from typing import Annotated, Any

import typer

from stationmaster.cli.exits import CommandError, Exit
from stationmaster.cli.printing import one_line, print_json, print_table, safe, say, warn
from stationmaster.cli.target import KeyFileOption, OutputOption, UrlOption, shared_of

ApprovalArgument = Annotated[
    str, typer.Argument(metavar="APPROVAL_ID", help="As `approvals list` has it.")
]


def list_approvals(
    context: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100)] = 20,
    after: Annotated[str | None, typer.Option("--after", metavar="APPROVAL_ID")] = None,
    state: Annotated[
        str, typer.Option("--state", help="pending, or another state; all for every one.")
    ] = "pending",
    session: Annotated[str | None, typer.Option("--session", metavar="SESSION_ID")] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """List what waits, the newest first."""
    from stationmaster.client.sessions import SessionClient

    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        page = SessionClient(client).approvals(
            limit=limit,
            after=after,
            state=None if state == "all" else state,
            session_id=session,
        )
    if shared.json(output):
        print_json({"approvals": page.items, "next": page.next_cursor})
        return
    print_table(
        ("ID", "STATE", "SESSION", "EXPIRES", "CALL"),
        [
            (
                item.get("id"),
                item.get("state"),
                item.get("session_id"),
                item.get("expires_at"),
                one_line(f"{item.get('tool')} {json.dumps(item.get('input'))}", 80),
            )
            for item in page.items
        ],
    )
    if page.next_cursor:
        warn(f"There are more: --after {page.next_cursor}")


def show(
    context: typer.Context,
    approval_id: ApprovalArgument,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Show one: what the agent wants to do, and what became of it."""
    from stationmaster.client.sessions import SessionClient

    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        found = SessionClient(client).approval(approval_id)
    if shared.json(output):
        print_json(found)
        return
    for name in ("id", "state", "session_id", "tool", "created_at", "expires_at", "decided_by"):
        if found.get(name) is not None:
            say(f"{name + ':':13}{safe(found[name])}")
    say()
    say(safe(json.dumps(found.get("input"), indent=2)))


def approve(
    context: typer.Context,
    approval_id: ApprovalArgument,
    *,
    always: Annotated[
        bool, typer.Option("--always", help="Do not ask again for this tool in this session.")
    ] = False,
    changed: Annotated[
        str | None,
        typer.Option("--input", metavar="JSON", help="Run the tool with this input instead."),
    ] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Let the call happen."""
    decision: dict[str, Any] = {"decision": "allow", "always": always}
    if changed is not None:
        decision["input"] = _object(changed)
    _decide(context, approval_id, decision, url, key_file)
    say(f"Call {safe(approval_id)} is allowed.")


def deny(
    context: typer.Context,
    approval_id: ApprovalArgument,
    *,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Why, for the agent.")
    ] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Do not let the call happen."""
    told = {} if message is None else {"message": message}
    _decide(context, approval_id, {"decision": "deny", **told}, url, key_file)
    say(f"Call {safe(approval_id)} is denied.")


def _decide(
    context: typer.Context,
    approval_id: str,
    decision: dict[str, Any],
    url: UrlOption,
    key_file: KeyFileOption,
) -> None:
    from stationmaster.client.sessions import SessionClient

    with shared_of(context).target(url, key_file).client() as client:
        SessionClient(client).decide(approval_id, decision)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CommandError("--input must be a JSON object.", Exit.USAGE)
    return found
