"""The work of self-hosted environments, on every database, with a clock that is moved."""

import asyncio
import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from stationmaster.agents.scripted import Say, UseTool
from stationmaster.kernel.clock import iso
from stationmaster.kernel.errors import NotAsExpected, NotFound, Unauthenticated
from stationmaster.kernel.principal import ALL, Principal
from stationmaster.sessions.inputs import Interrupt, ToolResult
from stationmaster.sessions.session import Session
from stationmaster.sessions.work import NO_HEARTBEAT
from tests.support.core import ALICE, WORK_LEASE, Core
from tests.unit.sessions.talking import ASKING, TOOLS, Talk, say

OPERATOR = replace(ALICE, scopes=frozenset({ALL}))
DONE = [{"type": "text", "text": "Done."}]


class Place:
    """A self-hosted environment and its workers."""

    def __init__(self, core: Core, id_: str, worker: Principal) -> None:
        self.core = core
        self.id = id_
        self.worker = worker

    async def poll(self, core: Core | None = None, **options: Any) -> tuple[Any, Principal] | None:
        found = await (core or self.core).work.poll(self.worker, self.id, **options)
        if found is None:
            return None
        item, secret = found
        return item, await self.resolve(secret)

    async def resolve(self, secret: str) -> Principal:
        token = json.loads(base64.urlsafe_b64decode(secret))["sessions_token"]
        return await self.core.resolver.resolve(token)

    async def taken(self) -> tuple[Any, Principal]:
        """Work that a worker has begun."""
        found = await self.poll()
        assert found is not None
        await self.core.work.ack(self.worker, self.id, found[0].id)
        await self.beat(found, NO_HEARTBEAT)
        return found

    async def beat(self, found: tuple[Any, Principal], expected: str | None) -> str:
        item, principal = found
        beat = await self.core.work.heartbeat(principal, self.id, item.id, expected=expected)
        assert beat.extended
        assert beat.heartbeat_at is not None
        return iso(beat.heartbeat_at)

    async def lapse(self) -> None:
        self.core.clock.advance(WORK_LEASE + 1)
        assert await self.core.work.end_leases() == 1
        assert await self.core.work.end_leases() == 0


@pytest.fixture
async def place(core: Core) -> Place:
    await core.keys.bootstrap(admin=None, given=())
    fields = {"name": "There", "config": {"type": "self_hosted"}}
    made = await core.environments.create(OPERATOR, fields)
    new = await core.environment_keys.create(OPERATOR, made.id, name="worker")
    return Place(core, made.id, await core.resolver.resolve(new.secret))


async def session_in(talk: Talk, place: Place, *first: Any, tools: Any = TOOLS) -> Session:
    return await talk.create(*first, tools=[tools], environment_id=place.id)


def results(book: Any) -> list[Any]:
    return [each for each in book if each.type == "user.tool_result"]


async def test_a_worker_is_bound_to_its_environment_and_its_work(place: Place, talk: Talk) -> None:
    session = await session_in(talk, place)
    found = await place.poll()
    assert found is not None
    item, principal = found
    assert (principal.environment_id, principal.work_id) == (place.id, item.id)
    assert (principal.kind, principal.session_id) == ("work", session.id)
    assert principal.scopes == {"work:environments"}
    assert place.worker.environment_id == place.id


async def test_a_lease_passes_on(place: Place, talk: Talk) -> None:
    await session_in(talk, place)
    first = await place.taken()
    last = await place.beat(first, None)
    place.core.clock.advance(WORK_LEASE - 1)
    assert await place.core.work.end_leases() == 0
    last = await place.beat(first, last)
    place.core.clock.advance(WORK_LEASE + 1)  # late, and nobody has noticed yet
    last = await place.beat(first, last)
    await place.lapse()
    second = await place.taken()
    assert second[0].id == first[0].id
    with pytest.raises(NotAsExpected):
        await place.core.work.heartbeat(place.worker, place.id, first[0].id, expected=last)
    assert (await place.core.work.get(OPERATOR, place.id, first[0].id)).state == "active"


async def test_a_secret_ends_with_the_lease(place: Place, talk: Talk) -> None:
    await session_in(talk, place)
    found = await place.core.work.poll(place.worker, place.id)
    assert found is not None
    item, secret = found
    await place.core.work.ack(place.worker, place.id, item.id)
    await place.resolve(secret)
    place.core.clock.advance(2 * WORK_LEASE + 1)
    with pytest.raises(Unauthenticated):
        await place.resolve(secret)  # by itself, whoever has noticed
    assert await place.core.work.end_leases(place.id) == 1
    with pytest.raises(Unauthenticated):
        await place.resolve(secret)


async def test_two_servers_never_give_the_same_work_out(place: Place, talk: Talk) -> None:
    sessions = [await session_in(talk, place) for _ in range(10)]
    other = place.core.beside()
    given: list[str] = []

    async def worker(core: Core) -> None:
        while (found := await core.work.poll(place.worker, place.id)) is not None:
            given.append(found[0].session_id)

    await asyncio.gather(*(worker(core) for core in (place.core, other) * 3))
    # Whoever finds the row of another's in his way has nothing, and comes again.
    await worker(place.core)
    assert sorted(given) == sorted(session.id for session in sessions)


async def test_a_lost_worker_s_calls_are_unknown(place: Place, talk: Talk) -> None:
    talk.script(UseTool("bash", {"command": "ls"}), Say("Well."))
    session = await session_in(talk, place, say("Go."))
    async with talk.core.working(talk.core.worker(2)):
        first = await place.taken()
        [use] = await talk.asked(session)
        await place.lapse()
        await talk.ended(session)
        late = [ToolResult(use, DONE)]
        with pytest.raises(NotFound):  # of a session that is not its own
            await talk.core.sessions.send(first[1], (await talk.create()).id, late)
    [told] = results(await talk.book(session))
    assert (told.data["tool_use_id"], told.data["is_error"]) == (use, True)
    assert "not known" in told.data["content"][0]["text"]
    assert "agent.tool_result" in await talk.types(session), "the book has what the agent was told"


async def test_a_stop_ends_work_and_a_turn_makes_more(place: Place, talk: Talk) -> None:
    talk.script(UseTool("bash", {"command": "ls"}), Say("Well."))
    session = await session_in(talk, place, say("Go."))
    async with talk.core.working(talk.core.worker(2)):
        item, principal = await place.taken()
        [use] = await talk.asked(session)
        done = [ToolResult(use, DONE)]
        await talk.core.sessions.send(principal, session.id, done)
        await talk.ended(session)
        assert await talk.core.sessions.send(principal, session.id, done) == []
    await place.core.work.stop(place.worker, place.id, item.id, force=True)
    assert await place.poll() is None
    await talk.send(session, say("Again."))
    found = await place.poll()
    assert found is not None
    assert found[0].id != item.id


@pytest.mark.parametrize("tools", [TOOLS, ASKING])
async def test_an_interrupt_answers_what_waits(place: Place, talk: Talk, tools: Any) -> None:
    talk.script(UseTool("bash", {"command": "ls"}), Say("Well."))
    session = await session_in(talk, place, say("Go."), tools=tools)
    async with talk.core.working(talk.core.worker(2)):
        [use] = await talk.asked(session)
        await talk.send(session, Interrupt())
        await talk.ended(session)
    types = ("user.tool_result", "user.tool_confirmation")
    answers = [each for each in await talk.book(session) if each.type in types]
    assert [each.data["tool_use_id"] for each in answers] == [use]
