"""`stationmaster check`: are the settings fit, without starting anything?"""

from dataclasses import asdict
from typing import Annotated

import typer

from stationmaster.cli.exits import Exit
from stationmaster.cli.finding import Finding
from stationmaster.cli.printing import print_json, safe, say
from stationmaster.cli.target import OutputOption, shared_of


def check(
    context: typer.Context,
    *,
    production: Annotated[
        bool, typer.Option("--production", help="As if ENVIRONMENT were production.")
    ] = False,
    output: OutputOption = None,
) -> None:
    """Say what `serve` would refuse in the settings, and what to do. Exits with 78 then.

    Nothing is started, opened or changed. `doctor` also tries what the server needs.
    """
    findings = examine(production=production)
    if shared_of(context).json(output):
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            say(f"{finding.status:4}  {finding.name}: {safe(finding.detail)}")
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(int(Exit.SETTINGS))


def examine(*, production: bool) -> list[Finding]:
    """A finding for each setting that is wrong, or one that says that none is."""
    from stationmaster.bootstrap.configuration import SettingsError
    from stationmaster.cli.settings import load

    try:
        settings = load({"ENVIRONMENT": "production" if production else None})
    except SettingsError as error:
        return [Finding(item.setting, "fail", str(item)) for item in error.problems]
    return [Finding("settings", "ok", f"fit for {settings.environment}")]
