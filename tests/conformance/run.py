"""Runs every check there is, against one server."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from tests.conformance import anthropic_python, claude_code, node, openai_python
from tests.conformance.features import PROVIDERS, Client, features_of
from tests.conformance.openai_python import Check
from tests.conformance.outcome import Outcome, outcome
from tests.conformance.station import Case, Cell, Station, station

AT_ONCE = 8
"""Checks of this process: more would only wait for the processor, and look slow."""

_PYTHON: Mapping[Client, Mapping[str, Check]] = {
    "openai-python": openai_python.CHECKS,
    "anthropic-python": anthropic_python.CHECKS,
}


async def run(directory: Path) -> dict[Cell, Outcome]:
    """Every cell of the table."""
    async with station(directory) as here:
        found = await asyncio.gather(_python(here), node.run(here), claude_code.run(here))
    return {cell: outcome for part in found for cell, outcome in part.items()}


async def _python(here: Station) -> dict[Cell, Outcome]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case, check: Check) -> tuple[Cell, Outcome]:
        async with places:
            return case.cell, await outcome(check(case))

    tasks = [
        one(Case(here, client, provider, feature), checks[feature])
        for client, checks in _PYTHON.items()
        for provider in PROVIDERS
        for feature in features_of(provider)
    ]
    return dict(await asyncio.gather(*tasks))
