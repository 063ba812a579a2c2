"""The cells of the official clients for Node; the checks are in `tests/acceptance/node`."""

import json
from dataclasses import asdict
from typing import get_args

from tests.conformance.features import (
    AS_ANTHROPIC,
    OURS,
    PROVIDERS,
    STATUSES,
    Client,
    Provider,
    features_of,
)
from tests.conformance.outcome import Outcome
from tests.conformance.scenes import FORECAST, LONG, PICTURE, SIGNATURE, THOUGHT, WORDS, seen
from tests.conformance.station import Case, Cell, Station
from tests.conformance.upstream import COUNTED, VECTOR
from tests.support import node


async def run(station: Station) -> dict[Cell, Outcome]:
    """Every cell of their columns."""
    project = station.directory / "node"
    await node.prepared(project, types=False)  # tests/acceptance/test_admin_sdk.py does
    told = await node.run(
        project, "node", "out/conformance.js", env={"STATION": json.dumps(_station(station))}
    )
    cells = [json.loads(line) for line in told.splitlines() if line.startswith('{"client"')]
    found = {
        (each["client"], each["provider"], each["feature"]): Outcome(
            each["reason"], each["failure"]
        )
        for each in cells
    }
    assert {cell[0] for cell in found} <= set(get_args(Client))
    assert {cell[1] for cell in found} == set(get_args(Provider))
    return found


def _station(station: Station) -> dict[str, object]:
    return {
        "url": station.url,
        "providers": station.providers.url,
        "key": station.key,
        "poor": station.poor,
        "denied": station.denied,
        "words": WORDS,
        "long": LONG,
        "thought": THOUGHT,
        "signature": SIGNATURE,
        "picture": PICTURE,
        "seen": seen([PICTURE]),
        "forecast": FORECAST,
        "counted": COUNTED,
        "vector": VECTOR,
        "usages": {
            provider: asdict(Case(station, "openai-node", provider, "").usage)
            for provider in PROVIDERS
        },
        "cells": {provider: list(features_of(provider)) for provider in PROVIDERS},
        "asAnthropic": AS_ANTHROPIC,
        "statuses": STATUSES,
        "ours": OURS,
    }
