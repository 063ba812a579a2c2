"""Claude Code itself, with this server as its gateway: what the table of conformance leaves out.

Prompt caching goes through whole and is billed by its own prices; tokens are counted by the
provider; and the models that Claude Code finds are those that its key may use.
"""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from stationmaster.agents.claude_code.agent import bundled_cli
from tests.support.server import ADMIN_KEY, ServerProcess
from tests.support.wire_upstream import Reply, Text, Usage, WireUpstream, fixed

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

SECONDS = 120.0
CACHED = Usage(7, 11, cache_creation_input_tokens=2000, cache_read_input_tokens=30_000)


def env(upstream: WireUpstream, **more: str) -> dict[str, str]:
    return {
        "ANTHROPIC_API_KEY": "sk-ant-server-key-for-tests",
        "ANTHROPIC_BASE_URL": upstream.url,
        **more,
    }


async def asked(server: ServerProcess, home: Path, *more: str, **more_env: str) -> Any:
    """Ask Claude Code something, as a user has it; its result."""
    home.mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        str(bundled_cli()),
        *("-p", "--output-format=json", "--setting-sources=", "--strict-mcp-config"),
        *more,
        cwd=home,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "ANTHROPIC_BASE_URL": server.url,
            "ANTHROPIC_AUTH_TOKEN": ADMIN_KEY,
            "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_MAX_RETRIES": "0",
            **more_env,
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(SECONDS):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return json.loads(told)


async def test_prompt_caching_goes_through_and_is_billed(scratch: Path) -> None:
    async with (
        WireUpstream(fixed(Reply((Text("Pear."),), usage=CACHED))) as upstream,
        ServerProcess(scratch, env(upstream)) as server,
    ):
        result = await asked(server, scratch / "home", "--model=sonnet", "Say pear.")
        assert result["result"] == "Pear."
        assert result["usage"]["cache_read_input_tokens"] == 30_000
        assert result["usage"]["cache_creation_input_tokens"] == 2000
        call = upstream.message_calls[-1]
        assert b'"cache_control"' in call.raw
        assert call.headers["anthropic-beta"]
        assert call.headers["x-api-key"] == "sk-ant-server-key-for-tests"
        assert ADMIN_KEY not in str(dict(call.headers))
        used = (await server.client.get("/v1/usage")).raise_for_status().json()
    [model] = used["by_model"].values()
    calls = len(upstream.message_calls)
    assert model["cache_read_tokens"] == 30_000 * calls
    assert model["cache_write_tokens"] == 2000 * calls
    assert used["total_calls"] == calls


async def test_models_are_found_by_the_keys_rights(scratch: Path) -> None:
    async with (
        WireUpstream(fixed(Reply((Text("Pear."),)))) as upstream,
        ServerProcess(scratch, env(upstream)) as server,
    ):
        home = scratch / "home"
        await asked(
            server,
            home,
            "--model=sonnet",
            "Say pear.",
            CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY="1",
        )
        [found] = home.glob("**/gateway-models.json")
        told = json.loads(found.read_text())
        listed = (await server.client.get("/v1/models")).raise_for_status().json()["data"]
    assert told["baseUrl"].rstrip("/") == server.url
    ours = {each["id"] for each in listed if each["id"].startswith("claude")}
    assert ours
    assert {each["id"] for each in told["models"]} == ours


async def test_tokens_are_counted_by_the_provider(scratch: Path) -> None:
    async with (
        WireUpstream(fixed(Reply((Text("Pear."),)))) as upstream,
        ServerProcess(scratch, env(upstream)) as server,
    ):
        result = await asked(server, scratch / "home", "--model=sonnet", "/context")
        assert not result["is_error"], result
        counted = [call for call in upstream.calls if call.path.endswith("/count_tokens")]
        assert counted
        assert all(call.status == 200 for call in counted)
