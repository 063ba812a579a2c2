"""The real Claude Code CLI, against an upstream that counts what it serves."""

import asyncio
import json
import os
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.books import (
    assert_ended_once,
    assert_nothing_open,
    ledger_cost,
    query,
    served_cost,
)
from tests.support.server import ServerProcess
from tests.support.wire_upstream import (
    Reply,
    Text,
    Tool,
    Usage,
    WireUpstream,
    steps,
    write_run_read,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

SERVER_KEY = "sk-ant-server-key-for-tests"


def upstream_env(upstream: WireUpstream) -> dict[str, str]:
    return {"ANTHROPIC_API_KEY": SERVER_KEY, "ANTHROPIC_BASE_URL": upstream.url}


# The long form is TASKS_IN_A_ROW=50.
IN_A_ROW = int(os.environ.get("TASKS_IN_A_ROW", "15"))


async def test_five_at_once_and_many_in_a_row_are_billed_to_the_token(tmp_path: Path) -> None:
    async with (
        WireUpstream(write_run_read) as upstream,
        ServerProcess(tmp_path, upstream_env(upstream)) as server,
    ):
        together = [await server.submit() for _ in range(5)]
        for task_id in together:
            task = await server.finished(task_id)
            assert task["status"] == "completed", task
            assert "greeting" in task["result"]["summary"]
            assert [item["path"] for item in task["artifacts"]] == ["hello.py"]
        for _ in range(IN_A_ROW):
            task = await server.run_task()
            assert task["status"] == "completed", task
            assert [item["path"] for item in task["artifacts"]] == ["hello.py"]

        assert ledger_cost(server.data_dir) == (served_cost(upstream.message_calls), 0)
        served = upstream.served
        [tokens] = query(
            server.data_dir,
            "SELECT sum(input_tokens), sum(output_tokens), sum(cache_write_tokens),"
            " sum(cache_read_tokens), count(*) FROM ledger",
        )
        assert tokens == (
            served.input_tokens,
            served.output_tokens,
            served.cache_creation_input_tokens,
            served.cache_read_input_tokens,
            len(upstream.message_calls),
        )
        usage = (await server.client.get("/v1/usage")).json()
        assert round(usage["total_cost"] * 1_000_000) == served_cost(upstream.message_calls)
        assert_nothing_open(server.data_dir)
        assert_ended_once(server.data_dir)
        health = (await server.client.get("/health")).json()
        assert health["services"]["worker_pool"]["active_workers"] == 0
        metrics = (await server.client.get("/metrics")).text
        assert "\nagent_pool_idle 0.0" in metrics
        taken = re.findall(r'agent_pool_takes_total{source="(\w+)"} (\d+)', metrics)
        assert {source for source, _ in taken} == {"cold", "warm"}
        assert sum(int(count) for _, count in taken) == 5 + IN_A_ROW
        assert await server.stop() == 0
        await server.no_agents_left()


async def test_a_run_over_its_cost_is_stopped_at_its_next_model_call(tmp_path: Path) -> None:
    def dear(request: dict[str, object]) -> Reply:
        return replace(write_run_read(request), usage=Usage(10_000, 1_000))

    async with (
        WireUpstream(dear) as upstream,
        ServerProcess(tmp_path, upstream_env(upstream)) as server,
    ):
        # The first call costs three cents; what is left then pays for no second one.
        task = await server.run_task(max_cost=0.06)
        assert task["status"] == "cost_exceeded", task
        assert task["error"]["code"] == "budget_exceeded"
        assert len(upstream.message_calls) == 1
        assert ledger_cost(server.data_dir) == (served_cost(upstream.message_calls), 0)
        assert ledger_cost(server.data_dir)[0] <= 60_000
        assert_nothing_open(server.data_dir)
        await server.no_agents_left()


@pytest.mark.slow
async def test_kill_nine_ten_times_over_five_runs_each(tmp_path: Path) -> None:
    chance = random.Random(7)

    def sometimes_slow(request: dict[str, object]) -> Reply:
        reply = write_run_read(request)
        if chance.random() < 0.25:
            # Cut here, the call has been served in part: input counted, output begun.
            return Reply(reply.blocks, reply.usage, hang_after=chance.randrange(8))
        return reply

    async with (
        WireUpstream(sometimes_slow) as upstream,
        ServerProcess(tmp_path, upstream_env(upstream)) as server,
    ):
        for _ in range(10):
            before = len(upstream.message_calls)
            tasks = [await server.submit() for _ in range(5)]
            await upstream.wait_for_calls(before + chance.randrange(1, 9))
            seen = {task_id: await server.events(task_id) for task_id in tasks}
            await server.kill()
            await server.no_agents_left()
            await server.start()
            for task_id in tasks:
                task = await server.finished(task_id)
                assert task["status"] in {"completed", "interrupted"}, task
                after = await server.events(task_id)
                assert after[: len(seen[task_id])] == seen[task_id]
            assert_ended_once(server.data_dir)
            await _nothing_open_soon(server)
            total, lost = ledger_cost(server.data_dir)
            served = served_cost(upstream.message_calls)
            assert served <= total <= served + lost
        assert await server.stop() == 0
        await server.no_agents_left()


async def _nothing_open_soon(server: ServerProcess) -> None:
    # Runs that had only waited when the server was killed start after it: let them end first.
    while query(server.data_dir, "SELECT 1 FROM runs WHERE state IN ('queued', 'running')"):
        await asyncio.sleep(0.05)
    assert_nothing_open(server.data_dir)


async def test_the_first_signal_lets_runs_end_and_tells_streams(tmp_path: Path) -> None:
    gate = asyncio.Event()

    def held(request: dict[str, object]) -> Reply:
        return Reply((Text("Done at last."),), hold=gate)

    async with (
        WireUpstream(held) as upstream,
        ServerProcess(tmp_path, upstream_env(upstream)) as server,
    ):
        task_id = await server.submit()
        await upstream.wait_for_calls(1)
        stopping = asyncio.create_task(server.stop())
        while (await server.client.get("/ready")).status_code == 200:
            await asyncio.sleep(0.02)
        assert (await server.client.get("/ready")).json()["reason"] == "shutting_down"
        refused = await server.client.post("/v1/tasks", json={"description": "One more."})
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        gate.set()
        assert await stopping == 0
        await server.no_agents_left()
        [[state]] = query(server.data_dir, "SELECT state FROM runs WHERE id = ?", task_id)
        assert state == "completed"


async def test_runs_that_outlast_the_stop_are_interrupted_in_order(tmp_path: Path) -> None:
    def never(request: dict[str, object]) -> Reply:
        return Reply((Text("Never."),), hang_after=3)

    async with (
        WireUpstream(never) as upstream,
        ServerProcess(tmp_path, {**upstream_env(upstream), "SHUTDOWN_TIMEOUT": "1s"}) as server,
    ):
        task_id = await server.submit()
        await upstream.wait_for_calls(1)
        assert await server.stop() == 0
        await server.no_agents_left()
        [[state, error]] = query(
            server.data_dir, "SELECT state, error FROM runs WHERE id = ?", task_id
        )
        assert (state, json.loads(error)["code"]) == ("interrupted", "shutting_down")
        assert_nothing_open(server.data_dir)
        assert ledger_cost(server.data_dir)[0] >= served_cost(upstream.message_calls)


async def test_a_second_signal_ends_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    def never(request: dict[str, object]) -> Reply:
        return Reply((Text("Never."),), hang_after=3)

    async with (
        WireUpstream(never) as upstream,
        ServerProcess(tmp_path, upstream_env(upstream)) as server,
    ):
        task_id = await server.submit()
        await upstream.wait_for_calls(1)
        stopping = asyncio.create_task(server.stop())
        while (await server.client.get("/ready")).status_code == 200:
            await asyncio.sleep(0.02)
        assert await server.stop() == 128 + 15
        await stopping
        await server.no_agents_left()
        await server.start()
        assert (await server.finished(task_id))["status"] == "interrupted"
        assert_nothing_open(server.data_dir)


async def test_runs_in_a_shared_workspace_read_each_other_and_change_their_own(
    tmp_path: Path,
) -> None:
    gate = asyncio.Event()

    def first(request: dict[str, Any]) -> Reply:
        if "SECOND" in json.dumps(request["messages"]):
            return second(request)
        return steps(
            Reply((Tool("Bash", {"command": "echo from the first > note.txt"}),)),
            Reply((Text("Waiting."),), hold=gate),
        )(request)

    second = steps(
        Reply((Tool("Bash", {"command": "cat ../run_*/note.txt; echo mine > own.txt; ls"}),)),
        Reply((Tool("Bash", {"command": "echo changed > ../run_*/note.txt"}),)),
        Reply((Text("Done."),)),
    )

    async with (
        WireUpstream(first) as upstream,
        ServerProcess(tmp_path, upstream_env(upstream)) as server,
    ):
        one = await server.submit("FIRST", workspace="team")
        await upstream.wait_for_calls(2)
        two = await server.run_task("SECOND", workspace="team")
        gate.set()
        assert two["status"] == "completed", two
        assert [item["path"] for item in two["artifacts"]] == ["own.txt"]
        events = await server.events(two["task_id"])
        results = [event for event in events if event["type"] == "agent.tool_result"]
        assert "from the first" in str(results[0])
        assert "Permission denied" in str(results[1])
        ended = await server.finished(one)
        assert [item["path"] for item in ended["artifacts"]] == ["note.txt"]
        note = await server.client.get(f"/v1/tasks/{one}/artifacts/note.txt")
        assert note.text == "from the first\n"


async def _one_warm(server: ServerProcess) -> str:
    """Wait until one waits; the metrics then."""
    async with asyncio.timeout(60):
        while "\nagent_pool_warm 1.0" not in (
            metrics := (await server.client.get("/metrics")).text
        ):
            await asyncio.sleep(0.05)
    return metrics


async def test_a_warm_task_finds_its_files_and_leaves_what_it_changed(tmp_path: Path) -> None:
    work = steps(
        Reply((Tool("Bash", {"command": "pwd; ./run.sh && echo new > src/a.txt && ls -l"}),)),
        Reply((Text("Done."),)),
    )
    files = [
        {"path": "src/a.txt", "content": "old\n"},
        {"path": "run.sh", "content": "#!/bin/sh\necho it-runs\n", "executable": True},
    ]
    async with (
        WireUpstream(work) as upstream,
        ServerProcess(tmp_path, upstream_env(upstream)) as server,
    ):
        for _ in range(2):
            assert (await server.run_task(files=files))["status"] == "completed"
        before = await _one_warm(server)
        assert 'agent_pool_takes_total{source="warm"} 1' not in before
        task = await server.run_task(files=files)
        assert task["status"] == "completed", task
        metrics = (await server.client.get("/metrics")).text
        assert 'agent_pool_takes_total{source="warm"} 1' in metrics
        [result] = [each for each in task["execution_log"] if each["action"] == "tool_result"]
        assert "it-runs" in str(result["details"])
        changed = [(item["path"], item["change"]) for item in task["artifacts"]]
        assert changed == [("src/a.txt", "modified")]
        diff = (await server.client.get(task["links"]["diff"])).text
        assert "-old" in diff
        assert "+new" in diff
        assert "run.sh" not in diff
        assert await server.stop() == 0
        await server.no_agents_left()
        assert_nothing_open(server.data_dir)


async def test_a_warm_task_that_is_cancelled_or_killed_leaves_nothing(tmp_path: Path) -> None:
    def held(request: dict[str, Any]) -> Reply:
        if "WAIT" in json.dumps(request["messages"]):
            return Reply((Text("Never."),), hang_after=3)
        return Reply((Text("Done."),))

    async with (
        WireUpstream(held) as upstream,
        ServerProcess(tmp_path, upstream_env(upstream)) as server,
    ):
        for _ in range(2):
            await server.run_task()
        for ending in ("cancelled", "interrupted"):
            await _one_warm(server)
            before = len(upstream.message_calls)
            task_id = await server.submit("WAIT", files=[{"path": "a", "content": "x"}])
            await upstream.wait_for_calls(before + 1)
            if ending == "cancelled":
                await server.client.post(f"/v1/tasks/{task_id}/cancel")
            else:
                await server.kill()
                await server.no_agents_left()
                await server.start()
            task = await server.finished(task_id)
            assert task["status"] == ending, task
            kept = await server.client.get(f"/v1/tasks/{task_id}/artifacts/a")
            assert kept.text == "x"
        assert_ended_once(server.data_dir)
        assert_nothing_open(server.data_dir)
        assert list((server.data_dir / "slots").iterdir()) == []


_SERVER = """
import json, sys
for line in sys.stdin:
    said = json.loads(line)
    if said.get("method") == "initialize":
        result = {"protocolVersion": said["params"]["protocolVersion"],
            "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}
    elif said.get("method") == "tools/list":
        result = {"tools": [{"name": "look", "description": "Looks.",
            "inputSchema": {"type": "object"}}]}
    elif said.get("method") == "tools/call":
        result = {"content": [{"type": "text", "text": "looked around"}]}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": said["id"], "result": result}), flush=True)
"""


async def test_a_task_has_the_sub_agents_skills_and_tool_servers_that_it_names(
    tmp_path: Path,
) -> None:
    skill = tmp_path / "skills" / "greeting"
    skill.mkdir(parents=True)
    head = "---\nname: greeting\ndescription: How to greet.\n---\n"
    (skill / "SKILL.md").write_text(head + "Say ahoy, always.\n")
    servers = tmp_path / "mcp.json"
    docs = {"command": "/usr/bin/python3", "args": ["-c", _SERVER]}
    servers.write_text(json.dumps({"mcpServers": {"docs": docs}}))
    given = {"description": "look", "prompt": "THE-WORK", "subagent_type": "Code-Reviewer"}
    inner = steps(
        Reply((Tool("Bash", {"command": "echo by-the-helper"}),)), Reply((Text("Fine."),))
    )
    own = steps(
        Reply((Tool("Agent", given),)),
        Reply((Tool("Skill", {"skill": "skills:greeting"}),)),
        Reply((Tool("mcp__docs__look", {}),)),
        Reply((Text("Done."),)),
    )

    def script(request: dict[str, Any]) -> Reply:
        return (inner if "THE-WORK" in str(request["messages"][0]) else own)(request)

    async with (
        WireUpstream(script) as upstream,
        ServerProcess(
            tmp_path,
            {
                **upstream_env(upstream),
                "SKILLS_DIR": str(tmp_path / "skills"),
                "MCP_SERVERS_FILE": str(servers),
            },
        ) as server,
    ):
        definition = {
            "name": "Code Reviewer",
            "model": "sonnet",
            "system": "You review.",
            "tools": [{"type": "agent_toolset_20260401"}],
        }
        made = await server.client.post("/v1/agents", json=definition)
        assert made.status_code == 200, made.text
        task = await server.run_task(
            allow_tools=["Bash"],
            allow_agents=["Code Reviewer"],
            allow_skills=["greeting"],
            mcp_servers=["docs"],
        )
        assert task["status"] == "completed", task
        actions = [entry["action"] for entry in task["execution_log"]]
        assert {"agent_spawn", "skill_invoke"} <= set(actions)
        told = json.dumps(task["execution_log"])
        for words in ("by-the-helper", "looked around"):
            assert words in told
        assert "Say ahoy, always." in json.dumps(upstream.message_calls[-1].body["messages"])
        helper = next(
            call.body
            for call in upstream.message_calls
            if "THE-WORK" in str(call.body["messages"][0])
        )
        assert [tool["name"] for tool in helper["tools"]] == ["Bash"]
        # The helper's calls are on the bill of the task.
        assert task["usage"]["model_calls"] == len(upstream.message_calls)
