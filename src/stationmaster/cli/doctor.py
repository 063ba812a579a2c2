"""`stationmaster doctor`: try each thing the server needs, and say what to do."""

import asyncio
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from stationmaster.cli.exits import Exit
from stationmaster.cli.finding import Check, Finding, Status
from stationmaster.cli.printing import print_json, safe, say
from stationmaster.cli.target import OutputOption, shared_of

if TYPE_CHECKING:
    from stationmaster.bootstrap.configuration import Settings

_COLOUR: dict[Status, str] = {"ok": "32", "warn": "33", "fail": "31"}
CHECK_SECONDS = 30.0


def doctor(context: typer.Context, *, output: OutputOption = None) -> None:
    """Check that the server can run here: settings, agent, sandbox, database, disk, model, port.

    Nothing is changed. Exits with 0 where nothing fails, 78 for wrong settings, else 1.
    """
    findings = asyncio.run(examine())
    if shared_of(context).json(output):
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            _tell(finding)
    if all(finding.status != "fail" for finding in findings):
        return
    wrong_settings = findings[0].status == "fail"
    raise typer.Exit(int(Exit.SETTINGS if wrong_settings else Exit.FAILED))


async def examine() -> list[Finding]:
    """Every finding, in the order a server needs them."""
    from stationmaster.bootstrap.configuration import SettingsError
    from stationmaster.cli import checks
    from stationmaster.cli.settings import load, start_logging

    try:
        settings = load({"LOG_LEVEL": "error"})
    except SettingsError as error:
        problems = "; ".join(str(problem) for problem in error.problems)
        return [Finding("settings", "fail", problems, "Mend these; docs/configuration.md has all.")]
    start_logging(settings)
    findings = [Finding("settings", "ok", f"data in {settings.data_dir}")]
    for name, check in checks.ALL.items():
        findings.append(await _bounded(name, check, settings))
    return findings


async def _bounded(name: str, check: Check, settings: "Settings") -> Finding:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check(settings)
    except TimeoutError:
        return Finding(name, "fail", f"no answer within {CHECK_SECONDS:g} seconds")
    except Exception as error:  # noqa: BLE001 - a check that breaks must not hide the others
        return Finding(name, "fail", f"the check itself failed: {type(error).__name__}: {error}")


def _tell(finding: Finding) -> None:
    word = f"{finding.status:4}"
    if sys.stdout.isatty():
        word = f"\x1b[{_COLOUR[finding.status]}m{word}\x1b[0m"
    say(f"{word}  {finding.name:9} {safe(finding.detail)}")
    if finding.advice:
        say(f"{'':16}{safe(finding.advice)}")
