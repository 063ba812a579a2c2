"""What the pool keeps warm, what it replaces, and what it ends."""

import asyncio
from typing import Any

import pytest

from stationmaster.agents.base import AgentUnavailable
from stationmaster.kernel.errors import Invalid
from tests.unit.agents.pool_parts import KIND, MIB, OTHER, Station, life_of, spec

# --- keeping warm -----------------------------------------------------------------------------


async def test_a_kind_used_once_is_not_kept_warm_and_one_used_again_is() -> None:
    station = Station()
    await station.pool.take("sesn_1", KIND, fresh=True)
    await station.tend()
    assert station.pool.stats().warm == 0
    await station.pool.take("sesn_2", KIND, fresh=True)
    await station.tend()
    assert station.pool.stats().warm == 1
    assert (await station.pool.take("sesn_3", KIND, fresh=True)).source == "warm"


async def test_sessions_that_go_on_do_not_make_a_kind_wanted() -> None:
    station = Station()
    for number in range(5):
        await station.pool.take(f"sesn_{number}", KIND, fresh=False)
    await station.tend()
    assert station.pool.stats().warm == 0


async def test_each_kind_is_filled_to_its_size_one_launch_at_a_time() -> None:
    station = Station(size=3, kinds=2)
    for kind in (KIND, OTHER):
        station.pool.expect(kind)
    for _ in range(10):
        await station.tend()
    assert station.pool.stats().warm == 6
    assert station.agent.most_at_once == 1


async def test_nothing_is_launched_ahead_while_a_session_waits_or_has_just_begun() -> None:
    station = Station()
    station.agent.gate.clear()
    taking = asyncio.create_task(station.pool.take("sesn_1", OTHER, fresh=False))
    while not station.agent.under_way:
        await asyncio.sleep(0)
    station.pool.expect(KIND)
    await station.tend()
    assert station.agent.under_way == 1
    station.agent.gate.set()
    await taking
    await station.tend(0.1)
    assert len(station.agent.launched) == 1
    await station.tend(1.0)
    assert len(station.agent.launched) == 2


@pytest.mark.parametrize("limits", [{"size": 0}, {"kinds": 0}])
async def test_none_is_kept_warm_where_none_shall_be(limits: dict[str, Any]) -> None:
    station = Station(**limits)
    station.pool.expect(KIND)
    await station.tend()
    assert station.agent.launched == []
    assert (await station.pool.take("sesn_1", KIND, fresh=True)).source == "cold"


async def test_the_kinds_used_last_are_kept_and_others_dropped() -> None:
    station = Station(kinds=2)
    kinds = [spec(model=f"model-{number}") for number in range(3)]
    for kind in kinds:
        station.pool.expect(kind)
        await station.tend(10)
    await station.tend()
    assert station.pool.stats().warm == 2
    assert station.agent.launched[0].closed
    assert station.places.made == {life.spec.workspace.name for life in station.agent.launched[1:]}


async def test_kinds_used_once_do_not_push_out_what_is_used_often() -> None:
    station = Station(kinds=1)
    await station.warmed(KIND)
    for number in range(20):
        prompt = spec(system_prompt=f"Only once: {number}")
        await station.pool.take(f"sesn_{number}", prompt, fresh=True)
        await station.tend()
    assert station.pool.stats().warm == 1
    assert not station.agent.launched[0].closed


async def test_a_kind_nobody_asks_for_any_more_is_dropped() -> None:
    station = Station(unused=60)
    await station.warmed(KIND)
    await station.tend(58)
    assert station.pool.stats().warm == 1
    await station.tend(2)
    assert station.pool.stats().warm == station.pool.stats().kinds == 0
    assert station.tokens.live == station.places.made == set()


async def test_one_that_dies_while_waiting_is_replaced_with_ever_longer_pauses() -> None:
    station = Station()
    station.pool.expect(KIND)
    pauses: list[float] = []
    since = station.time
    while len(pauses) < 5:
        await station.tend(0.5)
        if station.pool.stats().warm:
            pauses.append(station.time - since)
            since = station.time
            station.agent.launched[-1].dead = True
    assert pauses[1:] == sorted(pauses[1:])
    assert pauses[-1] >= 4 * pauses[1]
    assert len(station.tokens.live) <= 1
    assert len(station.places.made) <= 1


async def test_failed_launches_ahead_back_off_and_a_taken_one_makes_good() -> None:
    station = Station()
    station.agent.failure = AgentUnavailable("Not now.")
    station.pool.expect(KIND)
    tried = 0
    for _ in range(200):
        before = station.pool.stats().launching
        await station.pool.tend()
        tried += station.pool.stats().launching > before
        await station.quiet()
        station.time += 1
    assert 5 <= tried <= 9  # 1 + 2 + 4 + … seconds apart
    assert station.tokens.live == station.places.made == set()
    station.agent.failure = None
    await station.tend(300)
    assert (await station.pool.take("sesn_1", KIND, fresh=True)).source == "warm"
    await station.tend(2)
    assert station.pool.stats().warm == 1


async def test_a_kind_that_cannot_be_launched_at_all_is_given_up() -> None:
    station = Station()
    station.agent.failure = Invalid("There is no such tool.")
    station.pool.expect(KIND)
    await station.tend()
    station.agent.failure = None
    for _ in range(5):
        await station.tend(100)
    assert station.agent.launched == []


# --- ending those that wait -------------------------------------------------------------------


async def test_a_session_that_is_silent_too_long_loses_its_process_alone() -> None:
    station = Station(idle=60)
    seats = {}
    for name in ("sesn_1", "sesn_2"):
        seats[name] = await station.pool.take(name, KIND, fresh=False)
        await station.pool.keep(name, seats[name])
        await station.tend(29)
    assert station.pool.stats().idle == 2
    await station.tend(5)
    assert life_of(seats["sesn_1"]).closed
    assert not life_of(seats["sesn_2"]).closed
    assert station.tokens.live == {seats["sesn_2"].token_id}
    assert (await station.pool.take("sesn_2", KIND, fresh=False)).source == "kept"


async def test_an_idle_process_that_dies_is_buried() -> None:
    station = Station()
    seat = await station.pool.take("sesn_1", KIND, fresh=False)
    await station.pool.keep("sesn_1", seat)
    life_of(seat).dead = True
    await station.tend()
    assert station.pool.stats().idle == 0
    assert station.tokens.live == set()


async def test_over_the_memory_ceiling_who_waits_longest_goes_first() -> None:
    station = Station(memory=1000 * MIB, idle=10_000)
    seats = []
    for number in range(4):
        name = f"sesn_{number}"
        seats.append(await station.pool.take(name, KIND, fresh=False))
        await station.pool.keep(name, seats[-1])
        await station.tend(10)
    for seat in seats:
        life_of(seat).bytes = 400 * MIB
    busy = await station.pool.take("sesn_3", KIND, fresh=False)
    await station.tend(10)
    assert [life_of(seat).closed for seat in seats] == [True, False, False, False]
    assert station.pool.stats().memory == 800 * MIB
    await station.pool.keep("sesn_3", busy)
    await station.tend(10)
    assert [life_of(seat).closed for seat in seats] == [True, True, False, False]


async def test_nothing_is_launched_ahead_that_would_not_fit_under_the_ceiling() -> None:
    station = Station(memory=250 * MIB, size=5)
    await station.warmed(KIND)
    await station.tend(10)  # measured: 100 MiB
    for _ in range(5):
        await station.tend(10)
    assert station.pool.stats().warm == 2
