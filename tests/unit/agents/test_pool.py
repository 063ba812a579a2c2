"""The pool: what is taken, what is kept warm, what is ended, and that nothing is shared."""

import asyncio
from typing import Any

import pytest

from stationmaster.agents.base import AgentUnavailable, LaunchSpec
from stationmaster.agents.launching import template
from stationmaster.kernel.errors import Conflict, Unavailable
from tests.unit.agents.pool_parts import KIND, OTHER, Station, life_of, spec

# --- taking -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["idle for too long", "dropped"])
async def test_a_sessions_next_agent_waits_until_the_one_before_is_gone(how: str) -> None:
    station = Station(idle=1)
    seat = await station.pool.take("sesn_1", KIND, fresh=False)
    gone, first = asyncio.Event(), life_of(seat)

    async def close() -> None:
        await gone.wait()
        first.closed = True

    first.close = close  # type: ignore[method-assign]
    if how == "dropped":
        dropping = asyncio.create_task(station.pool.drop("sesn_1"))
        await asyncio.sleep(0)
    else:
        await station.pool.keep("sesn_1", seat)
        station.time += 10
        await station.pool.tend()
        dropping = asyncio.create_task(asyncio.sleep(0))
    taking = asyncio.create_task(station.pool.take("sesn_1", KIND, fresh=False))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(station.agent.launched) == 1, "two agents of one session at once"
    gone.set()
    await taking
    await dropping
    assert len(station.agent.launched) == 2


async def test_without_a_warm_one_a_session_gets_a_launch_in_directories_of_its_own() -> None:
    station = Station()
    seat = await station.pool.take("sesn_1", KIND, fresh=True)
    assert (seat.source, seat.warm) == ("cold", False)
    given = life_of(seat).spec
    assert (given.workspace, given.home) == (seat.workspace, seat.home)
    assert seat.workspace.name == seat.home.name
    assert given.token == seat.token
    assert given.session_id == "sesn_1"
    assert station.places.adopted == {seat.workspace.name}
    assert "secret" not in repr(seat)


async def test_a_session_with_a_workspace_is_launched_there() -> None:
    station = Station()
    await station.warmed(KIND)
    own = spec(resume="5f0c7a3e-0000-4000-8000-000000000000")
    seat = await station.pool.take("sesn_1", own, fresh=False)
    assert seat.source == "cold"
    assert (seat.workspace, life_of(seat).spec.resume) == (own.workspace, own.resume)


async def test_a_warm_one_is_taken_by_the_first_turn_of_an_equal_kind() -> None:
    station = Station()
    await station.warmed(KIND)
    other = await station.pool.take("sesn_1", OTHER, fresh=True)
    same = await station.pool.take("sesn_2", spec(session_id="sesn_2"), fresh=True)
    assert (other.source, same.source) == ("cold", "warm")
    assert same.live is station.agent.launched[0]
    assert station.places.made == set()
    assert station.sources == ["cold", "warm"]


async def test_a_first_turn_waits_for_a_launch_of_its_kind_that_is_under_way() -> None:
    station = Station()
    station.agent.gate.clear()
    station.pool.expect(KIND)
    await station.tend()
    first = asyncio.create_task(station.pool.take("sesn_1", KIND, fresh=True))
    second = asyncio.create_task(station.pool.take("sesn_2", KIND, fresh=True))
    await asyncio.sleep(0)
    station.agent.gate.set()
    seats = [await first, await second]
    assert [seat.source for seat in seats] == ["warm", "cold"]
    assert len(station.agent.launched) == 2


async def test_a_session_keeps_its_process_for_the_next_turn() -> None:
    station = Station()
    first = await station.pool.take("sesn_1", KIND, fresh=True)
    await station.pool.keep("sesn_1", first)
    later = spec(
        workspace=first.workspace,
        directory=first.workspace,
        home=first.home,
        resume=first.live.agent_session_id,
    )
    second = await station.pool.take("sesn_1", later, fresh=False)
    assert second.source == "kept"
    assert (second.live, second.token_id) == (first.live, first.token_id)


async def test_a_process_is_cleared_of_leftovers_before_it_waits() -> None:
    station = Station()
    seat = await station.pool.take("sesn_1", KIND, fresh=True)
    await station.pool.keep("sesn_1", seat)
    assert life_of(seat).settled == 1
    assert station.pool.stats().idle == 1


async def test_a_drop_while_it_is_being_cleared_wins() -> None:
    station = Station()
    seat = await station.pool.take("sesn_1", KIND, fresh=True)

    async def dropped() -> None:
        await station.pool.drop("sesn_1")

    life_of(seat).settle = dropped  # type: ignore[method-assign]
    await station.pool.keep("sesn_1", seat)
    assert station.pool.stats().idle == station.pool.stats().busy == 0
    assert life_of(seat).closed


async def test_another_definition_ends_the_process_before_the_next_starts() -> None:
    station = Station()
    first = await station.pool.take("sesn_1", KIND, fresh=True)
    await station.pool.keep("sesn_1", first)
    second = await station.pool.take("sesn_1", OTHER, fresh=False)
    assert second.source == "cold"
    assert life_of(first).closed
    assert first.token_id in station.tokens.revoked


async def test_a_dead_process_is_not_kept_and_not_taken() -> None:
    station = Station()
    first = await station.pool.take("sesn_1", KIND, fresh=True)
    await station.pool.keep("sesn_1", first)
    life_of(first).dead = True
    second = await station.pool.take("sesn_1", KIND, fresh=False)
    assert second.source == "cold"
    life_of(second).dead = True
    await station.pool.keep("sesn_1", second)
    assert station.pool.stats().idle == 0
    assert {first.token_id, second.token_id} == station.tokens.revoked


async def test_a_dead_warm_one_is_not_taken() -> None:
    station = Station()
    await station.warmed(KIND)
    station.agent.launched[0].dead = True
    seat = await station.pool.take("sesn_1", KIND, fresh=True)
    assert seat.source == "cold"


async def test_a_session_has_one_process_at_a_time() -> None:
    station = Station()
    station.agent.gate.clear()
    taking = asyncio.create_task(station.pool.take("sesn_1", KIND, fresh=False))
    await asyncio.sleep(0)
    with pytest.raises(Conflict):
        await station.pool.take("sesn_1", KIND, fresh=False)
    station.agent.gate.set()
    await taking
    with pytest.raises(Conflict) as caught:
        await station.pool.take("sesn_1", KIND, fresh=False)
    assert caught.value.error_code == "agent_busy"


async def test_a_dropped_process_is_gone_with_its_token() -> None:
    station = Station()
    seat = await station.pool.take("sesn_1", KIND, fresh=True)
    await station.pool.drop("sesn_1")
    await station.pool.drop("sesn_1")
    await station.pool.keep("sesn_1", seat)  # of a turn that was cut
    assert life_of(seat).closed
    assert station.tokens.live == set()
    assert station.pool.stats().idle == station.pool.stats().busy == 0
    assert station.places.adopted == {seat.workspace.name}


async def test_what_was_never_written_down_goes_with_the_drop() -> None:
    station = Station()
    await station.pool.take("sesn_1", KIND, fresh=True)
    await station.pool.drop("sesn_1", discard=True)
    assert station.places.adopted == station.places.made == set()


async def test_an_old_seat_does_not_end_the_use_of_a_new_one() -> None:
    station = Station()
    old = await station.pool.take("sesn_1", KIND, fresh=True)
    await station.pool.drop("sesn_1")
    await station.pool.take("sesn_1", KIND, fresh=False)
    await station.pool.keep("sesn_1", old)
    assert station.pool.stats().busy == 1


@pytest.mark.parametrize("at", ["launch", "places", "tokens"])
async def test_a_failed_launch_leaves_nothing_and_is_told(at: str) -> None:
    station = Station()
    failure = Unavailable("Not now.", code="for_a_test")
    if at == "launch":
        station.agent.failure = failure
    else:
        getattr(station, at).failure = failure
    with pytest.raises(Unavailable):
        await station.pool.take("sesn_1", KIND, fresh=True)
    await station.quiet()
    assert station.tokens.live == station.places.made == set()
    station.agent.failure = station.places.failure = station.tokens.failure = None
    assert (await station.pool.take("sesn_1", KIND, fresh=True)).source == "cold"


async def test_a_cancelled_take_leaves_nothing() -> None:
    station = Station()
    station.agent.gate.clear()
    taking = asyncio.create_task(station.pool.take("sesn_1", KIND, fresh=True))
    while not station.agent.under_way:
        await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    station.agent.gate.set()
    await station.quiet()
    assert station.tokens.live == station.places.made == station.places.adopted == set()
    assert station.pool.stats().busy == 0


async def test_an_agent_with_a_login_of_its_own_is_neither_kept_nor_warm() -> None:
    station = Station()
    owners = spec(own_login=True)
    station.pool.expect(owners)
    await station.tend()
    assert station.agent.launched == []
    seat = await station.pool.take("sesn_1", owners, fresh=True)
    await station.pool.keep("sesn_1", seat)
    assert life_of(seat).closed


# --- histories --------------------------------------------------------------------------------


class Remembered:
    """A sink in memory."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str | None, dict[str, Any]]] = []

    async def append(self, session: str, subpath: str | None, entries: Any) -> None:
        self.entries += [(session, subpath, entry) for entry in entries]

    async def load(self, session: str, subpath: str | None) -> list[dict[str, Any]] | None:
        return [entry for *key, entry in self.entries if key == [session, subpath]] or None

    async def subpaths(self, session: str) -> list[str]:
        return sorted({sub for name, sub, _ in self.entries if name == session and sub})


async def test_a_warm_ones_history_goes_to_the_session_that_takes_it() -> None:
    station = Station()
    first, second = Remembered(), Remembered()
    await station.warmed(spec(transcripts=first))
    early = station.agent.launched[0]
    assert early.spec.transcripts is not None
    await early.spec.transcripts.append("h", None, [{"type": "mode"}])
    assert await early.spec.transcripts.load("h", None) is None
    assert await early.spec.transcripts.subpaths("h") == []
    seat = await station.pool.take("sesn_1", spec(transcripts=second), fresh=True)
    assert seat.source == "warm"
    async for _ in seat.live.turn([]):
        pass
    assert first.entries == []
    assert [entry["type"] for *_, entry in second.entries] == ["mode", "user"]
    assert await early.spec.transcripts.load("h", None) == [{"type": "mode"}]


async def test_each_turns_history_goes_where_its_take_says() -> None:
    station = Station()
    turns = [Remembered(), Remembered()]
    for sink in turns:
        seat = await station.pool.take("sesn_1", spec(transcripts=sink), fresh=False)
        async for _ in seat.live.turn([]):
            pass
        await station.pool.keep("sesn_1", seat)
    assert [len(sink.entries) for sink in turns] == [1, 1]


async def test_one_without_a_history_does_not_stand_for_one_with() -> None:
    station = Station()
    await station.warmed(KIND)
    seat = await station.pool.take("sesn_1", spec(transcripts=Remembered()), fresh=True)
    assert seat.source == "cold"


# --- the end ----------------------------------------------------------------------------------


async def test_a_drain_ends_what_waits_and_later_what_works() -> None:
    station = Station()
    working = await station.pool.take("sesn_1", KIND, fresh=True)
    waiting = await station.pool.take("sesn_2", KIND, fresh=True)
    await station.pool.keep("sesn_2", waiting)
    await station.warmed(KIND)
    await station.pool.drain()
    assert station.agent.alive() == 1
    assert station.places.made == set()
    with pytest.raises(AgentUnavailable) as caught:
        await station.pool.take("sesn_3", KIND, fresh=True)
    assert caught.value.error_code == "agent_stopping"
    station.pool.expect(OTHER)
    await station.tend()
    await station.pool.keep("sesn_1", working)
    assert station.agent.alive() == 0
    assert station.tokens.live == set()


async def test_a_drain_cuts_a_launch_ahead() -> None:
    station = Station()
    station.agent.gate.clear()
    station.pool.expect(KIND)
    await station.tend()
    await station.pool.drain()
    assert station.agent.under_way == 0
    assert station.tokens.live == station.places.made == set()
    assert station.pool.stats().launching == 0


async def test_a_close_ends_everything() -> None:
    station = Station()
    await station.pool.take("sesn_1", KIND, fresh=True)
    await station.warmed(OTHER)
    for _ in range(2):
        await station.pool.aclose()
    assert station.agent.alive() == 0
    assert station.tokens.live == set()


async def test_a_token_that_cannot_be_revoked_stops_nothing() -> None:
    station = Station()
    seat = await station.pool.take("sesn_1", KIND, fresh=True)
    station.tokens.failure = Unavailable("Away.")
    await station.pool.drop("sesn_1", discard=True)
    assert life_of(seat).closed
    assert station.places.adopted == set()


async def test_it_runs_by_itself() -> None:
    station = Station()
    running = asyncio.create_task(station.pool.run())
    station.pool.expect(KIND)
    async with asyncio.timeout(10):
        while not station.pool.stats().warm:
            await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_a_template_says_nothing_of_who_used_it_first() -> None:
    made: LaunchSpec = template(spec(token="secret", transcripts=Remembered()))
    assert made.token == ""
    assert "own" not in f"{made.workspace}{made.home}"
    assert not isinstance(made.transcripts, Remembered)
