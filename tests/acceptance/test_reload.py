"""The models are read again under load: on SIGHUP, on a change, and not when broken."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import ServerProcess
from tests.support.wire_upstream import WireUpstream, fixed, text

pytestmark = pytest.mark.acceptance

CONFIG = """
providers:
  upstream-{name}: {{type: anthropic, base_url: "{url}", api_key: k}}
models:
  steady: {{targets: [{{provider: upstream-{name}}}], price: {{input: 1, output: 1}}}}
"""
CALL: dict[str, Any] = {
    "model": "steady",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "x"}],
}
GENEROUS = {"AGENT": "scripted", "RATE_LIMIT_CHAT": "none", "DEFAULT_RATE_LIMIT": "none"}
CALLERS = 6


async def test_no_call_is_dropped_while_the_models_change(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    over = False
    answers: dict[str, int] = {}
    failures: list[str] = []
    async with WireUpstream(fixed(text("from a"))) as a, WireUpstream(fixed(text("from b"))) as b:
        urls = {"a": a.url, "b": b.url}

        def say(name: str) -> None:
            part = config.with_suffix(".part")
            part.write_text(CONFIG.format(name=name, url=urls[name]))
            part.replace(config)

        say("a")
        env = {"CONFIG_FILE": str(config), **GENEROUS}
        async with ServerProcess(tmp_path, env) as server:

            async def call(*, stream: bool) -> None:
                while not over:
                    answer = await server.client.post(
                        "/v1/messages", json={**CALL, "stream": stream}
                    )
                    if answer.status_code != 200 or "end_turn" not in answer.text:
                        failures.append(answer.text)
                    by = answer.headers.get("x-stationmaster-provider", "?")
                    answers[by] = answers.get(by, 0) + 1

            async def served_by(name: str) -> None:
                before = answers.get(f"upstream-{name}", 0)
                async with asyncio.timeout(60):
                    while answers.get(f"upstream-{name}", 0) == before:
                        await asyncio.sleep(0.01)

            callers = [asyncio.create_task(call(stream=bool(n % 2))) for n in range(CALLERS)]
            await served_by("a")
            for turn in range(8):
                name = "b" if turn % 2 == 0 else "a"
                say(name)
                os.kill(server.pid, signal.SIGHUP)
                await served_by(name)
            config.write_text("providers: {upstream-b: {type: 7}}\nmodels: {steady: [\n")
            os.kill(server.pid, signal.SIGHUP)
            async with asyncio.timeout(60):
                while "stays as it was" not in server.output or "line 3" not in server.output:
                    await asyncio.sleep(0.02)
            await served_by("a")
            say("b")  # without a signal: it is seen
            await served_by("b")
            over = True
            await asyncio.gather(*callers)
    assert failures == []
    assert set(answers) == {"upstream-a", "upstream-b"}
    assert min(answers.values()) > 0
