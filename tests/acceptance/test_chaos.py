"""A short campaign of faults; `python -m tests.chaos` plays longer ones."""

import os
from pathlib import Path

import pytest

from tests.chaos.campaign import Options, campaign

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(1200)]

SEED = int(os.environ.get("CHAOS_SEED", "7"))
FAULTS = 14


async def test_a_short_campaign_breaks_no_promise(scratch: Path) -> None:
    outcome = await campaign(Options(SEED, FAULTS, seconds=60.0, gap=1.5), scratch, print)
    assert outcome.violations == [], (SEED, outcome.timeline)
    # Else it shows nothing.
    assert outcome.faults.total() > FAULTS // 3
    assert outcome.told.tasks
    assert outcome.told.chats
    assert outcome.outside.deeds
