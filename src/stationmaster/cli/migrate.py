"""`stationmaster migrate`."""

import asyncio
from typing import Annotated

import typer

from stationmaster.cli.exits import CommandError, Exit
from stationmaster.cli.printing import say


def migrate(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether there is something to do (exit 1).")
    ] = False,
) -> None:
    """Bring the database to this version's schema. `serve` does so by itself."""
    from stationmaster.cli.settings import load, start_logging
    from stationmaster.migrations import HEAD, current
    from stationmaster.migrations import migrate as bring_up

    settings = load({})
    start_logging(settings)
    url = settings.database_url.get_secret_value()
    if check:
        found = asyncio.run(current(url))
        if found == HEAD:
            say(f"The schema is up to date ({HEAD}).")
            return
        raise CommandError(
            f"The schema is {found or 'not there yet'}; this version needs {HEAD}.", Exit.FAILED
        )
    changed = asyncio.run(bring_up(url))
    say(f"The schema is {'now' if changed else 'already'} at {HEAD}.")
