"""`stationmaster jobs`, on this machine's database and on a server."""

import asyncio
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from stationmaster.cli.application import run
from stationmaster.client import AsyncClient, Client, ClientError
from stationmaster.client.jobs import AsyncJobClient, JobClient
from stationmaster.jobs import Job, Outbox, Parked, Runner
from stationmaster.kernel.clock import SystemClock
from stationmaster.live.bus import MemoryBus
from stationmaster.migrations import migrate
from stationmaster.storage import open_database
from tests.support.scripted_http import Answer, ScriptedServer


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


JOB = {"id": "job_1", "kind": "work", "state": "parked", "attempts": 8, "error": "No\nuse."}


def test_a_server_that_is_named_is_asked_instead(
    parked: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedServer() as server:
        page = Answer.of({"jobs": [JOB], "has_more": True, "next": "7.job_1"})
        server.answers = [page, page, *([Answer.of(JOB)] * 3)]
        monkeypatch.setenv("STATIONMASTER_API_KEY", "sm_live_test")
        to = ["--url", server.url]
        assert run(["jobs", "list", "--state", "parked", "--limit", "5", *to]) == 0
        told = capsys.readouterr()
        assert "job_1" in told.out
        assert parked not in told.out
        assert "--after 7.job_1" in told.err
        assert run(["-o", "json", "jobs", "list", "--after", "7.job_1", *to]) == 0
        assert json.loads(capsys.readouterr().out) == {"jobs": [JOB], "next": "7.job_1"}
        monkeypatch.setenv("STATIONMASTER_URL", server.url)
        assert run(["jobs", "show", "job_1"]) == 0
        assert run(["jobs", "replay", "job_1"]) == 0
        assert run(["jobs", "discard", "job_1"]) == 0
        assert "Job job_1 (work) is gone." in capsys.readouterr().out
        asked = [(request.method, request.path) for request in server.requests]
        assert asked == [
            ("GET", "/v1/jobs?state=parked&limit=5"),
            ("GET", "/v1/jobs?limit=100&after=7.job_1"),
            ("GET", "/v1/jobs/job_1"),
            ("POST", "/v1/jobs/job_1/replay"),
            ("DELETE", "/v1/jobs/job_1"),
        ]
        assert "idempotency-key" in server.requests[3].headers


async def asked(twin: type[Any]) -> list[tuple[str, str]]:
    with ScriptedServer() as server:
        page = Answer.of({"jobs": [JOB], "next": None})
        server.answers = [page, *([Answer.of(JOB)] * 3), Answer(200, b"[]")]
        make: Any = Client if twin is JobClient else AsyncClient
        client = make(server.url, "key")
        jobs = twin(client)

        async def of(result: Any) -> Any:
            return await result if inspect.isawaitable(result) else result

        page = await of(jobs.jobs(state="parked", kind="a b", limit=3, after="1.a"))
        assert (page.items, page.next_cursor) == ([JOB], None)
        assert await of(jobs.get("a/b")) == JOB
        assert await of(jobs.replay("job_1")) == JOB
        assert await of(jobs.discard("job_1")) == JOB
        with pytest.raises(ClientError):
            await of(jobs.get("job_1"))
        await of(client.close())
        return [(request.method, request.path) for request in server.requests]


async def test_both_twins_ask_the_same() -> None:
    found = await asked(JobClient)
    assert found == await asked(AsyncJobClient)
    assert found[:2] == [
        ("GET", "/v1/jobs?state=parked&kind=a+b&limit=3&after=1.a"),
        ("GET", "/v1/jobs/a%2Fb"),
    ]
