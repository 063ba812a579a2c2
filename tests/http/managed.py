"""What the tests of the Managed Agents API share: a client, a session, its events."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anthropic

from stationmaster.agents.scripted import ScriptedAgent
from stationmaster.agents.scripted.script import Step
from tests.http.conftest import House
from tests.support.sdk import check

TOOLSET: Any = {"type": "agent_toolset_20260401"}
ASK: Any = {**TOOLSET, "default_config": {"permission_policy": {"type": "always_ask"}}}
WEATHER: Any = {
    "type": "custom",
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
MODEL = "claude-haiku-4-5"
PATIENCE = 20.0  # seconds until a stream that should have brought something fails the test


def text(words: str) -> Any:
    """A message."""
    return {"type": "user.message", "content": [{"type": "text", "text": words}]}


def words_of(content: Sequence[dict[str, Any]]) -> str:
    """What a turn was asked, for scripts that answer by it."""
    return " ".join(block.get("text", "") for block in content if block["type"] == "text")


def by_words(agent: ScriptedAgent, scripts: dict[str, Sequence[Step]]) -> None:
    """Let the agent play the script whose name is in the message."""

    def chosen(_spec: object, content: Sequence[dict[str, Any]]) -> Sequence[Step]:
        words = words_of(content)
        return next(steps for name, steps in scripts.items() if name in words)

    agent.script = chosen


@dataclass(frozen=True)
class Talk:
    """A session, as its client knows it."""

    client: anthropic.AsyncAnthropic
    id: str

    async def send(self, *events: Any) -> Any:
        return check(await self.client.beta.sessions.events.send(self.id, events=list(events)))

    @asynccontextmanager
    async def stream(self, **options: Any) -> AsyncIterator[Any]:
        stream = await self.client.beta.sessions.events.stream(self.id, **options)
        async with stream:
            yield stream

    async def until_idle(self, stream: Any) -> list[Any]:
        """The events up to the next idle, each checked against its model."""
        found = []
        async with asyncio.timeout(PATIENCE):
            async for event in stream:
                found.append(check(event))
                if event.type in {"session.status_idle", "session.status_terminated"}:
                    return found
        raise AssertionError([event.type for event in found])

    async def say(self, *events: Any, **options: Any) -> list[Any]:
        """Send, and return what happens up to the next idle."""
        async with self.stream(**options) as stream:
            await self.send(*events)
            return await self.until_idle(stream)

    async def events(self, **options: Any) -> list[Any]:
        """What is kept."""
        found = self.client.beta.sessions.events.list(self.id, **options)
        return [check(event) async for event in found]

    async def shown(self) -> Any:
        return check(await self.client.beta.sessions.retrieve(self.id))


async def talk(client: anthropic.AsyncAnthropic, *tools: Any, **agent: Any) -> Talk:
    """A new session with an agent of its own."""
    made = await client.beta.agents.create(name="a", model=MODEL, tools=list(tools), **agent)
    environment = await client.beta.environments.create(name="e")
    session = await client.beta.sessions.create(agent=made.id, environment_id=environment.id)
    return Talk(client, session.id)


def types(events: Sequence[Any]) -> list[str]:
    return [event.type for event in events]


def said(events: Sequence[Any]) -> str:
    """The agent's words."""
    return "".join(
        block.text for event in events if event.type == "agent.message" for block in event.content
    )


__all__ = [
    "ASK",
    "MODEL",
    "PATIENCE",
    "TOOLSET",
    "WEATHER",
    "House",
    "Talk",
    "by_words",
    "said",
    "talk",
    "text",
    "types",
    "words_of",
]
