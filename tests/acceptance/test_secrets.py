"""No secret of the server reaches an agent, a log line or an event; run tokens die with runs."""

import asyncio
import os
import re
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer
from tests.support.server import ADMIN_KEY, ServerProcess
from tests.support.wire_upstream import Reply, Text, Tool, WireUpstream, steps, write_run_read

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

CANARY_KEY = "sk-ant-canary-4f9d2c7e1b8a6035"
CANARY_PEPPER = "canary-pepper-91c2f7d0a4e8b6"
TOKEN = re.compile(rb"sm_run_[0-9A-Za-z]{46}")

# What an agent might try: its environment, every process it sees, every file it can read.
SNOOP = (
    "env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n';"
    " cat /proc/*/maps 2>/dev/null;"
    " find / -xdev -type f -readable -size -200k -not -path '/proc/*' -not -path '/usr/*'"
    " -exec grep -la canary {} + 2>/dev/null; true"
)


def memory_of(pid: int) -> bytes:
    """Everything readable in a process's memory."""
    parts = []
    maps = Path(f"/proc/{pid}/maps").read_text()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps.splitlines():
            span, rights, *_ = line.split()
            start, end = (int(part, 16) for part in span.split("-"))
            # The program itself, mapped from its file, cannot hold a secret; skip what is huge.
            if not rights.startswith("rw") or end - start > 256 * 1024**2:
                continue
            try:
                memory.seek(start)
                parts.append(memory.read(end - start))
            except (OSError, ValueError, OverflowError):
                continue
    return b"".join(parts)


@pytest.mark.skipif(os.getuid() != 0, reason="reading another user's memory needs root")
async def test_the_servers_secrets_are_nowhere_an_agent_can_look(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    gate = asyncio.Event()
    script = steps(
        Reply((Text("I look around."), Tool("Bash", {"command": SNOOP}))),
        Reply((Text("I wait."),), hold=gate),
    )
    database = postgres_server.create()
    url = postgres_server.url(database)
    password = url.split("@")[0].rpartition(":")[2]
    secrets = [CANARY_KEY, CANARY_PEPPER, password, ADMIN_KEY]
    async with (
        WireUpstream(script) as upstream,
        ServerProcess(
            tmp_path,
            {
                "ANTHROPIC_API_KEY": CANARY_KEY,
                "ANTHROPIC_BASE_URL": upstream.url,
                "DATABASE_URL": url,
                "SECRET_KEY": CANARY_PEPPER,
            },
        ) as server,
    ):
        task_id = await server.submit()
        await upstream.wait_for_calls(2)
        agents = server.agent_processes()
        assert agents
        token = b""
        for pid in agents:
            try:
                environ = Path(f"/proc/{pid}/environ").read_bytes()
                seen = environ + memory_of(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
            for secret in secrets:
                assert secret.encode() not in seen, (pid, secret)
            if found := TOKEN.search(environ):
                token = found.group()
        assert token, "no agent process holds the run token: the search itself is broken"

        body = {
            "model": "sonnet",
            "max_tokens": 8,
            "messages": [{"role": "user", "content": "Hello"}],
        }
        upstream.script = lambda _request: Reply((Text("Hello."),))
        headers = {"authorization": f"Bearer {token.decode()}"}
        assert (
            await server.client.post("/v1/messages", json=body, headers=headers)
        ).status_code == 200
        gate.set()
        task = await server.finished(task_id)
        assert task["status"] == "completed", task
        refused = await server.client.post("/v1/messages", json=body, headers=headers)
        assert refused.status_code == 401
        assert refused.json()["error"]["type"] == "authentication_error"

        events = str(await server.events(task_id))
        assert "ANTHROPIC" in events, "the agent has not shown its environment"
        files = b"".join(
            path.read_bytes()
            for path in server.data_dir.rglob("*")
            if path.is_file() and path.name != "secret.key"
        )
        await server.stop()
        for secret in secrets:
            assert secret not in events
            assert secret not in server.output
            assert secret.encode() not in files
        assert token.decode() not in server.output
    postgres_server.drop(database)


async def test_no_secret_is_in_any_output_of_a_whole_run(tmp_path: Path) -> None:
    async with (
        WireUpstream(write_run_read) as upstream,
        ServerProcess(
            tmp_path, {"ANTHROPIC_API_KEY": CANARY_KEY, "ANTHROPIC_BASE_URL": upstream.url}
        ) as server,
    ):
        task = await server.run_task()
        assert task["status"] == "completed"
        # Failures say more than successes: a wrong key, a broken body, a provider that refuses.
        upstream.script = lambda _request: Reply(status=401, message=f"bad key {CANARY_KEY}")
        failed = await server.run_task()
        assert failed["status"] == "failed"
        for key in (CANARY_KEY, "x" * 600):
            await server.client.get("/v1/tasks", headers={"authorization": f"Bearer {key}"})
        await server.client.post("/v1/messages", content=b'{"model": ')
        assert await server.stop() == 0
        assert CANARY_KEY not in server.output
        assert ADMIN_KEY not in server.output
        assert TOKEN.search(server.output.encode()) is None
        assert all(call.headers.get("x-api-key") == CANARY_KEY for call in upstream.message_calls)
