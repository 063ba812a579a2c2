"""`stationmaster secrets`: what is stored encrypted."""

import asyncio

from stationmaster.cli.printing import say


def reseal() -> None:
    """Encrypt stored secrets with the first of ENCRYPTION_KEYS. Afterwards the others can go."""
    done = asyncio.run(_reseal())
    noun = "secret was" if done == 1 else "secrets were"
    say(f"{done} {noun} sealed again; the rest already had the present key.")


async def _reseal() -> int:
    from stationmaster.bootstrap.offline import vault
    from stationmaster.cli.settings import load, start_logging

    settings = load({})
    start_logging(settings)
    async with vault(settings) as opened:
        return await opened.reseal()
