"""A real server, of any role, whose agent does what its message says, and leaves a trace of it.

    python -m tests.chaos.server

Its settings are the environment's, ROLE too. In `DEEDS_DIR` each step of a message is written down
when it is done, by whichever server did it: what was done twice stands there twice.
"""

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from stationmaster.agents.base import Agent
from stationmaster.agents.scripted import Say, ScriptedAgent, Think, UseTool
from stationmaster.agents.scripted.script import Call, Step
from stationmaster.agents.spec import LaunchSpec
from stationmaster.bootstrap import parts, serve
from stationmaster.settings import Settings
from tests.support.off_clock import can_be_set_off

STEPS = 3
PAUSE_S = 0.15
ATTEMPTS = 8
BETWEEN_S = 0.5
WORD = "word-"  # what each message has one of


class RefusedError(Exception):
    """A model call was not served."""


async def ask(spec: LaunchSpec, *, word: str) -> None:
    """One model call, as an agent's client would make it: again where it is worth a try."""
    body = {
        "model": "claude-haiku-4-5",
        "max_tokens": 2_000,
        "messages": [{"role": "user", "content": f"What about {word}?"}],
    }
    transport = httpx.AsyncHTTPTransport(uds=str(spec.gateway_socket))
    async with httpx.AsyncClient(transport=transport, timeout=60) as client:
        for left in reversed(range(ATTEMPTS)):
            answer = await client.post(
                "http://gateway/v1/messages", json=body, headers={"x-api-key": spec.token}
            )
            if answer.status_code == httpx.codes.OK:
                return
            if answer.status_code in {401, 402, 403} or not left:
                raise RefusedError(f"{answer.status_code} {answer.text}")
            await asyncio.sleep(BETWEEN_S)


async def do(_spec: LaunchSpec, *, deeds: Path, word: str, step: int) -> None:
    """What an agent does to the world: it cannot be taken back."""
    with (deeds / word).open("a") as book:
        book.write(f"{step}\n")
    await asyncio.sleep(PAUSE_S)


def steps(deeds: Path, _spec: object, content: Sequence[dict[str, Any]]) -> Sequence[Step]:
    """What the words of a message make of it."""
    words = " ".join(block.get("text", "") for block in content if block["type"] == "text")
    word = next((each for each in words.split() if each.startswith(WORD)), None)
    if word is None or "was lost in the middle" in words:
        return (Say("It goes on. It is done."),)
    made: list[Step] = [Think("To work.")]
    for step in range(STEPS):
        made += [
            Call(partial(ask, word=word)),
            UseTool("Bash", {"command": f"{word} {step}"}),
            Call(partial(do, deeds=deeds, word=word, step=step)),
        ]
    return (*made, Say("It is done."))


async def main() -> None:
    """Serve until a signal."""
    deeds = Path(os.environ["DEEDS_DIR"])
    can_be_set_off()

    async def scripted(
        stack: AsyncExitStack, *_: object, **__: object
    ) -> tuple[Agent, str, list[str]]:
        agent = ScriptedAgent(partial(steps, deeds))
        stack.push_async_callback(agent.aclose)
        return agent, "none", []

    parts.agent = scripted
    env = {name: value for name, value in os.environ.items() if name != "DEEDS_DIR"}
    await serve(Settings.load(env, cwd=Path.cwd()))


if __name__ == "__main__":
    asyncio.run(main())
