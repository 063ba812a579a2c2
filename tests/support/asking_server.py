"""A real server whose agent is a script that asks the model: many tasks cost nothing to run.

    python -m tests.support.asking_server

Its settings are the environment's. Each task makes `ASKING_CALLS` calls with its run's token, one
after another, and ends in success if all were served.
"""

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx

from stationmaster.agents.base import Agent
from stationmaster.agents.scripted import ScriptedAgent
from stationmaster.agents.scripted.script import Call
from stationmaster.agents.spec import LaunchSpec
from stationmaster.bootstrap import parts, serve
from stationmaster.settings import Settings

BODY: dict[str, Any] = {
    "model": "claude-haiku-5-5",
    "max_tokens": 2_000,
    "messages": [{"role": "user", "content": "Say something."}],
}
ATTEMPTS = 3  # as the official clients


class RefusedError(Exception):
    """A model call was not served."""


async def ask(spec: LaunchSpec) -> None:
    """One call, as an agent's client would make it."""
    transport = httpx.AsyncHTTPTransport(uds=str(spec.gateway_socket))
    async with httpx.AsyncClient(transport=transport, timeout=60) as client:
        for left in reversed(range(ATTEMPTS)):
            answer = await client.post(
                "http://gateway/v1/messages", json=BODY, headers={"x-api-key": spec.token}
            )
            if answer.status_code == httpx.codes.OK:
                return
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS or not left:
                raise RefusedError(f"{answer.status_code} {answer.text}")
            await asyncio.sleep(float(answer.headers["retry-after"]) / 20)


async def main() -> None:
    """Serve until a signal."""
    calls = int(os.environ.get("ASKING_CALLS", "2"))

    async def scripted(
        stack: AsyncExitStack, *_: object, **__: object
    ) -> tuple[Agent, str, list[str]]:
        agent = ScriptedAgent([Call(ask)] * calls)
        stack.push_async_callback(agent.aclose)
        return agent, "none", []

    parts.agent = scripted
    env = {name: value for name, value in os.environ.items() if name != "ASKING_CALLS"}
    await serve(Settings.load(env, cwd=Path.cwd()))


if __name__ == "__main__":
    asyncio.run(main())
