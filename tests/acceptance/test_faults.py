"""What a task's end says when something around it is broken, and that the server lives on."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.books import assert_nothing_open, ledger_cost, query, served_cost
from tests.support.server import ServerProcess
from tests.support.wire_upstream import Reply, Text, Tool, WireUpstream, steps

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]


def env(upstream: WireUpstream, **more: str) -> dict[str, str]:
    return {
        "ANTHROPIC_API_KEY": "sk-ant-server-key-for-tests",
        "ANTHROPIC_BASE_URL": upstream.url,
        **more,
    }


@pytest.mark.parametrize("hang_after", [None, 4])
async def test_an_upstream_that_hangs_ends_the_run_and_is_let_go(
    tmp_path: Path, hang_after: int | None
) -> None:
    def silent(_request: dict[str, Any]) -> Reply:
        if hang_after is None:
            return Reply((Text("Never."),), delay=3600)
        return Reply((Text("Only so far, and no further."),), hang_after=hang_after)

    async with (
        WireUpstream(silent) as upstream,
        ServerProcess(tmp_path, env(upstream, AGENT_INACTIVITY_TIMEOUT="2s")) as server,
    ):
        task = await server.run_task()
        assert task["status"] == "timeout"
        assert task["error"]["code"] == "upstream_timeout"
        for call in upstream.message_calls:
            await call.done.wait()
        assert all(call.disconnected for call in upstream.message_calls)
        await server.no_agents_left()
        assert_nothing_open(server.data_dir)
        total, lost = ledger_cost(server.data_dir)
        assert total >= served_cost(upstream.message_calls)
        assert lost == 0


@pytest.mark.parametrize("route", ["/v1/messages", "/v1/chat/completions"])
async def test_a_call_that_a_stopping_server_gives_up_is_told_so(
    tmp_path: Path, route: str
) -> None:
    def silent(_request: dict[str, Any]) -> Reply:
        return Reply((Text("Never."),), delay=3600)

    body = {
        "model": "claude-haiku-5-5",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Say hello."}],
    }
    async with (
        WireUpstream(silent) as upstream,
        ServerProcess(tmp_path, env(upstream, SHUTDOWN_TIMEOUT="1s")) as server,
    ):
        asking = asyncio.create_task(server.client.post(route, json=body))
        await upstream.wait_for_calls(1)
        assert await server.stop() == 0
        answer = await asking
        assert answer.status_code == 503
        assert answer.json()["error"]["message"] == "The server is stopping."
        assert int(answer.headers["retry-after"]) > 0
        assert_nothing_open(server.data_dir)


async def test_a_run_that_outlasts_its_timeout_is_stopped(tmp_path: Path) -> None:
    script = steps(Reply((Tool("Bash", {"command": "sleep 600"}),)), Reply((Text("Done."),)))
    async with (
        WireUpstream(script) as upstream,
        ServerProcess(tmp_path, env(upstream)) as server,
    ):
        task = await server.run_task(timeout=3)
        assert (task["status"], task["error"]["code"]) == ("timeout", "timeout")
        await server.no_agents_left()


async def test_a_cancelled_run_ends_with_all_its_processes(tmp_path: Path) -> None:
    script = steps(
        Reply((Tool("Bash", {"command": "(setsid sleep 600 &) ; sleep 600"}),)),
        Reply((Text("Done."),)),
    )
    async with (
        WireUpstream(script) as upstream,
        ServerProcess(tmp_path, env(upstream)) as server,
    ):
        task_id = await server.submit()
        while not any(e["type"] == "agent.tool_use" for e in await server.events(task_id)):
            pass
        for _ in range(2):
            answer = await server.client.post(f"/v1/tasks/{task_id}/cancel")
            assert answer.status_code == 200
        task = await server.finished(task_id)
        assert task["status"] == "cancelled"
        await server.no_agents_left()
        assert (await server.client.post(f"/v1/tasks/{task_id}/cancel")).status_code == 200
        ends = [e for e in await server.events(task_id) if e["type"] == "run.ended"]
        assert len(ends) == 1


async def test_an_upstream_that_refuses_every_call_fails_the_run(tmp_path: Path) -> None:
    async with (
        WireUpstream(lambda _request: Reply(status=400, message="no such thing")) as upstream,
        ServerProcess(tmp_path, env(upstream)) as server,
    ):
        task = await server.run_task()
        assert (task["status"], task["error"]["code"]) == ("failed", "agent_error")
        assert "no such thing" in task["error"]["message"]
        assert ledger_cost(server.data_dir) == (0, 0)
        assert_nothing_open(server.data_dir)


async def test_no_tools_means_no_tools(tmp_path: Path) -> None:
    script = steps(
        Reply((Tool("Bash", {"command": "touch made"}),)),
        Reply((Text("Done."),)),
        aside="I have no tools.",
    )
    async with (
        WireUpstream(script) as upstream,
        ServerProcess(tmp_path, env(upstream)) as server,
    ):
        task = await server.run_task(allow_tools=[])
        assert task["status"] == "completed"
        assert task["artifacts"] == []
        offered = [tool for call in upstream.message_calls for tool in call.body.get("tools", ())]
        assert offered == []
        refused = await server.client.post(
            "/v1/task", json={"description": "Hello", "allow_tools": ["Read", "Teleport"]}
        )
        assert refused.status_code == 403
        assert refused.json()["code"] == "tool_not_allowed"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.getuid() != 0:
        pytest.skip("mounting a small disk needs root")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


async def test_a_full_disk_is_a_typed_failure_and_the_server_lives(small_disk: Path) -> None:
    script = steps(Reply((Tool("Bash", {"command": "echo hello"}),)), Reply((Text("Done."),)))
    async with (
        WireUpstream(script) as upstream,
        ServerProcess(small_disk, env(upstream)) as server,
    ):
        assert (await server.run_task())["status"] == "completed"
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        answer = await server.client.post("/v1/task", json={"description": "Once more."})
        assert answer.status_code == 503, answer.text
        assert answer.json()["code"] == "disk_full"
        assert (await server.client.get("/live")).status_code == 200
        assert (await server.client.get("/health")).json()["status"] == "degraded"
        filler.unlink()
        again = await server.run_task()
        assert again["status"] == "completed", again
        assert query(server.data_dir, "SELECT 1 FROM runs WHERE state = 'running'") == []
