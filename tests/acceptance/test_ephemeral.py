"""A server for one job: it ends with it, and the next one knows the session and nothing else."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import ServerProcess

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

ENV = {"PROVIDER": "offline", "OFFLINE_DELAY": "0s", "EPHEMERAL": "true"}
TASK = "Print the first 5 prime numbers."


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tmp_path, ENV) as server:
        yield server


def frames_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


async def execute(server: ServerProcess, **body: Any) -> list[dict[str, Any]]:
    answer = await server.client.post("/api/execute", json={"prompt": TASK, **body})
    assert answer.status_code == 200, answer.text
    return frames_of(answer.text)


async def test_it_ends_with_its_job_and_leaves_nothing_at_work(server: ServerProcess) -> None:
    first = server.pid
    told = await execute(server)
    assert told[-1]["type"] == "completed"
    assert await server.exited() == 0
    assert server.agent_processes() == []
    left = [path for path in server.data_dir.rglob("*") if path.name == ".credentials.json"]
    assert left == []
    # Its supervisor starts it again: another process, and the session is known.
    await server.start()
    assert server.pid != first
    assert (await server.client.get("/status")).json()["status"] == "idle"
    again = await execute(server, resumeSessionId=told[0]["sessionId"])
    assert again[0]["resuming"] is True
    assert again[-1]["type"] == "completed"
    assert await server.exited() == 0


async def test_a_second_job_is_refused_meanwhile(server: ServerProcess) -> None:
    body = {"prompt": TASK}
    async with server.client.stream("POST", "/api/execute", json=body) as answer:
        lines = answer.aiter_lines()
        assert "connected" in await anext(lines)
        for path, json_body in (
            ("/api/execute", body),
            ("/v1/tasks", {"description": TASK}),
            ("/api/stream/sesn_01jd3k00000000000000000000", body),
        ):
            refused = await server.client.post(path, json=json_body)
            assert refused.status_code == 429, path
            assert refused.json()["code"] == "replica_busy"
            assert refused.headers["retry-after"] == "5"
        rest = [line async for line in lines]
    assert any("completed" in line for line in rest)
    assert await server.exited() == 0


async def test_what_is_refused_further_in_takes_nothing(server: ServerProcess) -> None:
    refused = await server.client.post("/api/execute", json={"prompt": ""})
    assert refused.status_code == 422
    assert (await execute(server))[-1]["type"] == "completed"
    assert await server.exited() == 0


async def test_a_job_that_does_not_complete_ends_it_with_1(server: ServerProcess) -> None:
    task = await server.run_task(TASK, max_cost=0)
    assert task["status"] != "completed"
    assert await server.exited() == 1
