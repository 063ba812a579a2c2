"""`stationmaster audit`: is the audit log whole, and what is in it?"""

import asyncio
import re
import sys
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster.cli.exits import CommandError, Exit
from stationmaster.cli.printing import print_json, safe, say
from stationmaster.cli.target import DEFAULT_URL, KeyFileOption, OutputOption, UrlOption, shared_of

if TYPE_CHECKING:
    from stationmaster.audit import Verdict

_END = re.compile(r"([^=\s]{1,64})=(\d{1,18}):([0-9a-f]{64})")


class Form(StrEnum):
    """How an export is written."""

    json = "json"
    csv = "csv"


def verify(
    context: typer.Context,
    *,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            "--expect",
            metavar="ORG=SEQ:HASH",
            help="An end that was noted earlier and must still be there; repeat.",
        ),
    ] = None,
    output: OutputOption = None,
) -> None:
    """Check every organisation's chain in this server's database. Exits with 1 where one is broken.

    Note the ends it prints somewhere else: given to --expect, they show whether the newest entries
    were removed since.
    """
    noted = dict(map(_parse, expect or ()))
    verdicts = asyncio.run(_verify(noted))
    if shared_of(context).json(output):
        print_json([asdict(verdict) | {"whole": verdict.whole} for verdict in verdicts])
    else:
        for verdict in verdicts:
            _tell(verdict)
        if not verdicts:
            say("The audit log is empty.")
    if any(not verdict.whole for verdict in verdicts):
        raise typer.Exit(int(Exit.FAILED))


def _parse(text: str) -> tuple[str, tuple[int, str]]:
    match = _END.fullmatch(text)
    if match is None:
        raise CommandError(
            "--expect must be ORG=SEQ:HASH, as `audit verify` prints it.", Exit.USAGE
        )
    return match[1], (int(match[2]), match[3])


async def _verify(noted: dict[str, tuple[int, str]]) -> "list[Verdict]":
    from stationmaster.bootstrap.offline import vault
    from stationmaster.cli.settings import load, start_logging

    settings = load({})
    start_logging(settings)
    async with vault(settings) as opened:
        return await opened.chains.verify(noted)


def _tell(verdict: "Verdict") -> None:
    word = "whole" if verdict.whole else "BROKEN"
    gone = f", {verdict.deleted:,} deleted by retention" if verdict.deleted else ""
    noun = "entry" if verdict.entries == 1 else "entries"
    say(f"{safe(verdict.organization_id)}: {word}, {verdict.entries:,} {noun}{gone}")
    for fault in verdict.faults:
        say(f"  entry {fault.seq}: {fault.what}")
    say(f"  end {safe(verdict.organization_id)}={verdict.end[0]}:{verdict.end[1]}")


def export(
    context: typer.Context,
    *,
    form: Annotated[Form, typer.Option("--format", help="json or csv.")] = Form.json,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Write the organisation's audit log to stdout. Needs a key with admin:audit."""
    import httpx

    target = shared_of(context).target(url, key_file)
    headers = {"authorization": f"Bearer {target.key}"} if target.key else {}
    where = f"{target.url or DEFAULT_URL}/v1/audit/export"
    try:
        with httpx.stream("GET", where, params={"format": form.value}, headers=headers) as answer:
            if answer.status_code != httpx.codes.OK:
                answer.read()
                raise _refused(answer.status_code, answer.json().get("detail", ""))
            for chunk in answer.iter_bytes():
                sys.stdout.buffer.write(chunk)
            sys.stdout.flush()
    except httpx.HTTPError as error:
        raise CommandError(f"{where} does not answer: {error}.", Exit.UNAVAILABLE) from error


def _refused(status: int, detail: str) -> CommandError:
    code = {401: Exit.DENIED, 403: Exit.DENIED, 404: Exit.NOT_FOUND}.get(status, Exit.UNAVAILABLE)
    return CommandError(detail or f"The server answered {status}.", code)
