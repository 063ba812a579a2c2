"""`stationmaster jobs`, on this machine's database."""

import asyncio
import json
from pathlib import Path

import pytest

from stationmaster.cli.application import run
from stationmaster.jobs import Job, Outbox, Parked, Runner
from stationmaster.kernel.clock import SystemClock
from stationmaster.live.bus import MemoryBus
from stationmaster.migrations import migrate
from stationmaster.storage import open_database


@pytest.fixture
def parked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a job that was given up."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET_KEY", "a-secret-for-hashes-of-tests")
    (tmp_path / "data").mkdir()

    async def make() -> str:
        url = f"sqlite:///{tmp_path / 'data' / 'stationmaster.db'}"
        await migrate(url)
        database, bus, clock = open_database(url), MemoryBus(), SystemClock()

        async def refuse(_job: Job) -> None:
            raise Parked("It cannot be done.")

        try:
            outbox = Outbox(bus, clock)
            job_id = await database.write(lambda tx: outbox.put(tx, "work", {"about": "it"}))
            await Runner(database, bus, clock, {"work": refuse}, instance_id="ins_a").drain()
        finally:
            await database.close()
        return job_id

    return asyncio.run(make())


def test_it_is_listed_and_shown(parked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "list", "--state", "parked"]) == 0
    told = capsys.readouterr().out
    assert parked in told
    assert "It cannot be done." in told
    assert run(["-o", "json", "jobs", "show", parked]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["payload"]) == ("parked", {"about": "it"})
    assert run(["jobs", "show", parked]) == 0
    assert run(["jobs", "list", "--state", "running", "-o", "json"]) == 0


def test_it_is_tried_again_and_then_cannot_be_discarded(
    parked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["jobs", "replay", parked]) == 0
    assert parked in capsys.readouterr().out
    assert run(["jobs", "discard", parked]) == 5
    assert "waiting, not parked" in capsys.readouterr().err


def test_it_is_discarded_on_record(parked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "discard", parked]) == 0
    assert run(["jobs", "show", parked]) == 4
    capsys.readouterr()
    assert run(["audit", "verify", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["whole"] is True
