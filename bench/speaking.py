"""A server, of any role, whose agent says the time, again and again.

    python -m bench.speaking

Its settings are the environment's. `SPEAKING` is how often it speaks, and every how many seconds.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

from stationmaster.agents.base import Agent
from stationmaster.agents.scripted import Say, ScriptedAgent
from stationmaster.agents.scripted.script import Call, Step
from stationmaster.agents.spec import LaunchSpec
from stationmaster.bootstrap import parts, serve
from stationmaster.settings import Settings


def steps(times: int, every: float) -> Iterator[Step]:
    """The time is read when the words are said, not before."""

    async def pause(_spec: LaunchSpec) -> None:
        await asyncio.sleep(every)

    for _ in range(times):
        yield Call(pause)
        yield Say(str(time.time_ns()))


async def main() -> None:
    """Serve until a signal."""
    times, every = os.environ["SPEAKING"].split()

    async def scripted(
        stack: AsyncExitStack, *_: object, **__: object
    ) -> tuple[Agent, str, list[str]]:
        agent = ScriptedAgent(lambda *_: cast("Any", steps(int(times), float(every))))
        stack.push_async_callback(agent.aclose)
        return agent, "none", []

    parts.agent = scripted
    env = {name: value for name, value in os.environ.items() if name != "SPEAKING"}
    await serve(Settings.load(env, cwd=Path.cwd()))


if __name__ == "__main__":
    asyncio.run(main())
