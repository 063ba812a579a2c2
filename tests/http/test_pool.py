"""The pool behind sessions: where turns get their agents, what is told of it, what is left."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import anthropic
import pytest
from sqlalchemy import func, select

from stationmaster.access.tables import run_tokens
from stationmaster.agents.scripted import Say
from stationmaster.storage import open_database
from stationmaster.transcripts.tables import transcript_entries
from tests.http.conftest import ADMIN, House, Open
from tests.http.managed import PATIENCE, Talk, said, talk, text
from tests.support.sdk import sdk


@pytest.fixture
async def client(house: House) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk(house.url, ADMIN) as made:
        yield made


async def counts(house: House) -> dict[str, int]:
    """What the metrics say of the pool."""
    found = (await house.client.get("/metrics")).text
    values = re.findall(r'^agent_pool_(\w+?)(?:_total\{source="(\w+)"\})? ([\d.]+)$', found, re.M)
    return {
        f"took_{source}" if source else name: int(float(value)) for name, source, value in values
    }


async def until(house: House, **wanted: int) -> dict[str, int]:
    """The counts, once they are as wanted: processes end a little after their turns."""
    async with asyncio.timeout(PATIENCE):
        while True:
            now = await counts(house)
            if wanted.items() <= now.items():
                return now
            await asyncio.sleep(0.01)


async def test_a_session_keeps_its_agent_between_turns(open_house: Open) -> None:
    async with open_house(AGENT_POOL_SIZE="0") as house, sdk(house.url, ADMIN) as client:
        house.agent.script = (Say("hello"),)
        session = await talk(client)
        await session.say(text("One."))
        await until(house, took_cold=1, idle=1, busy=0)
        assert said(await session.say(text("Two."))) == "hello"
        assert (await until(house, idle=1))["took_kept"] == 1
        assert len(house.agent.launched) == 1


async def test_the_third_session_of_a_kind_meets_a_warm_agent(
    house: House, client: anthropic.AsyncAnthropic
) -> None:
    agent = await client.beta.agents.create(name="a", model="claude-haiku-4-5")
    place = await client.beta.environments.create(name="e")

    async def speak() -> str:
        made = await client.beta.sessions.create(agent=agent.id, environment_id=place.id)
        await Talk(client, made.id).say(text("Hello."))
        return made.id

    for _ in range(2):
        await speak()
    before = await until(house, warm=1)
    third = await speak()
    after = await until(house, idle=3)
    assert after.get("took_cold") == before.get("took_cold")
    assert after["took_warm"] == before.get("took_warm", 0) + 1
    shown = (await house.client.get("/health")).json()["services"]["agents"]
    assert set(shown) >= {"warm", "idle", "busy", "waiting_memory_bytes"}
    slots = {spec.workspace.name for spec in house.agent.launched}
    assert all(name.startswith("slot_") for name in slots)
    assert third not in slots


async def test_without_a_pool_nothing_waits(open_house: Open) -> None:
    async with (
        open_house(AGENT_POOL_SIZE="0", AGENT_POOL_IDLE_TIME="0s") as house,
        sdk(house.url, ADMIN) as client,
    ):
        session = await talk(client)
        for words in ("One.", "Two."):
            await session.say(text(words))
        await until(house, took_cold=2, idle=0, warm=0, busy=0)
        assert house.agent.alive() == 0


async def test_an_idle_agent_ends_after_its_time_and_the_session_goes_on(open_house: Open) -> None:
    async with (
        open_house(AGENT_POOL_SIZE="0", AGENT_POOL_IDLE_TIME="10ms") as house,
        sdk(house.url, ADMIN) as client,
    ):
        session = await talk(client)
        await session.say(text("One."))
        await until(house, idle=0, busy=0)
        await session.say(text("Two."))
        assert house.agent.launched[1].resume is not None
        assert house.agent.launched[1].workspace == house.agent.launched[0].workspace


async def test_a_deleted_session_takes_its_agent_and_its_history_along(open_house: Open) -> None:
    async with open_house(AGENT_POOL_SIZE="0") as house, sdk(house.url, ADMIN) as client:
        session = await talk(client)
        await session.say(text("One."))
        await until(house, idle=1)
        assert await entries(house) > 0
        await client.beta.sessions.delete(session.id)
        await until(house, idle=0)
        async with asyncio.timeout(PATIENCE):
            while await entries(house) or house.agent.alive():
                await asyncio.sleep(0.01)


async def test_a_stop_leaves_no_agent_no_token_and_no_slot(
    open_house: Open, tmp_path: Path
) -> None:
    async with open_house() as house, sdk(house.url, ADMIN) as client:
        for _ in range(2):
            session = await talk(client)
            await session.say(text("One."))
        assert house.agent.alive() > 0
    assert house.agent.alive() == 0
    marks = tmp_path / "data" / "slots"
    assert list(marks.iterdir()) == []
    homes = {path.name for path in (tmp_path / "data" / "homes").iterdir()}
    kept = {path.name for path in (tmp_path / "data" / "workspaces" / "sessions").iterdir()}
    assert homes == kept
    database = open_database(house.settings.database_url.get_secret_value())
    living = select(func.count()).where(run_tokens.c.revoked_at.is_(None))
    assert await database.read(lambda tx: tx.execute(living).scalar()) == 0
    await database.close()


async def test_a_start_clears_away_what_a_killed_server_left(
    open_house: Open, tmp_path: Path
) -> None:
    left = [
        tmp_path / "data" / "workspaces" / "sessions" / "slot_left",
        tmp_path / "data" / "homes" / "slot_left",
    ]
    for directory in (*left, tmp_path / "data" / "slots"):
        directory.mkdir(parents=True)
    mark = tmp_path / "data" / "slots" / "slot_left"
    mark.touch()
    async with open_house():
        assert [path.exists() for path in (*left, mark)] == [False, False, False]


async def entries(house: House) -> int:
    """How many entries of agents' histories are kept."""
    database = open_database(house.settings.database_url.get_secret_value())
    found = await database.read(
        lambda tx: tx.execute(select(func.count()).select_from(transcript_entries)).scalar()
    )
    await database.close()
    return int(found or 0)
