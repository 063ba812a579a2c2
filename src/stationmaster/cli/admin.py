"""`stationmaster admin`: for whoever has the machine, and no key any more."""

import asyncio
from typing import Annotated

import typer

from stationmaster.cli.printing import say, warn


def create(
    name: Annotated[
        str, typer.Option("--name", help="3 to 50 letters, digits, '_' or '-'.")
    ] = "admin",
) -> None:
    """Make an API key with every right, in the database of the settings, and print it once."""
    secret = asyncio.run(_create(name))
    warn("The key has every right. It is shown this once:")
    say(secret)


async def _create(name: str) -> str:
    from stationmaster.bootstrap.operators import operators_keys
    from stationmaster.cli.settings import load, start_logging

    settings = load({})
    start_logging(settings)
    async with operators_keys(settings) as keys:
        return await keys.create_admin(name=name)
