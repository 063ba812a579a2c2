"""A real server, of any role, whose agent plays what its message says: it costs next to nothing.

    python -m tests.support.playing_server

Its settings are the environment's, ROLE too. Its clock can be set off.
"""

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from stationmaster.agents.base import Agent
from stationmaster.agents.scripted import Say, ScriptedAgent, Think, UseTool
from stationmaster.agents.scripted.script import Call, Step, WaitFor
from stationmaster.agents.spec import LaunchSpec
from stationmaster.bootstrap import parts, serve
from stationmaster.settings import Settings
from tests.support.off_clock import can_be_set_off

TOOLS = 8  # tool calls of the message "work"
PAUSE_S = 0.05  # between them


async def pause(_spec: LaunchSpec) -> None:
    await asyncio.sleep(PAUSE_S)


def steps(_spec: object, content: Sequence[dict[str, Any]]) -> Sequence[Step]:
    """What the words of a message make of it."""
    words = " ".join(block.get("text", "") for block in content if block["type"] == "text")
    if "lost" in words:  # what a resumed agent is told
        return (Say("It goes on. It is done."),)
    if "ask" in words:
        return (UseTool("Bash", {"command": "ls"}), Say("It is done."))
    if "weather" in words:
        return (UseTool("weather", {"city": "Oslo"}), Say("It is done."))
    if "wait" in words:
        return (Say("I wait."), WaitFor())
    if "work" in words:
        work: list[Step] = [Think("To work.")]
        for number in range(TOOLS):
            work += [UseTool("Bash", {"command": f"echo {number}"}), Call(pause)]
        return (*work, Say("It is done."))
    return (Say("Many words come one after another. It is done."),)


async def main() -> None:
    """Serve until a signal."""

    async def scripted(
        stack: AsyncExitStack, *_: object, **__: object
    ) -> tuple[Agent, str, list[str]]:
        agent = ScriptedAgent(partial(steps))
        stack.push_async_callback(agent.aclose)
        return agent, "none", []

    can_be_set_off()
    parts.agent = scripted
    await serve(Settings.load(os.environ, cwd=Path.cwd()))


if __name__ == "__main__":
    asyncio.run(main())
