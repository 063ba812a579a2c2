"""What every agent must do: one suite for all implementations.

    @pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
    async def test_mine(check: conformance.Check) -> None:
        async with my_harness() as harness:
            await check(harness)

A check raises `AssertionError` with a sentence that says what was promised. A harness is used once.
"""

from stationmaster.agents.conformance import asking, features, histories, turns
from stationmaster.agents.conformance.harness import Check, Harness

CHECKS: tuple[Check, ...] = (
    *turns.CHECKS,
    *asking.CHECKS,
    *features.CHECKS,
    *histories.CHECKS,
)

__all__ = ["CHECKS", "Check", "Harness", "asking", "features", "histories", "turns"]
