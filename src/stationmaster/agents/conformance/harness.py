"""What a check works with: an agent under test, and the small steps that all checks share."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from stationmaster.agents.base import (
    Agent,
    AgentEvent,
    Finished,
    Host,
    LaunchSpec,
    LiveAgent,
    Started,
)
from stationmaster.kernel.errors import StationmasterError

# Real agents start in about a second; a check that waits longer than this has found a hang.
PATIENCE_SECONDS = 60.0
CLOSE_SECONDS = 5.0

F = TypeVar("F", bound=StationmasterError)


class Harness(Protocol):
    """An agent, and a way to tell its model what to do in the turns that follow."""

    @property
    def agent(self) -> Agent:
        """The agent under test."""
        ...

    def spec(
        self, *, tools: tuple[str, ...] | None = None, workspace: Path | None = None
    ) -> LaunchSpec:
        """How to launch one for a new session, with directories that exist."""
        ...

    def will_say(self, text: str) -> None:
        """Each turn says `text` and ends."""
        ...

    def will_use(self, tool: str, given: dict[str, Any] | None = None) -> None:
        """Each turn calls `tool` once, with `given` or else with valid input, and ends."""
        ...

    def will_delegate(self, agent: str, tool: str) -> None:
        """Each turn gives work to `agent`, which calls `tool` with valid input and says `done`."""
        ...

    def will_output(self, value: Any) -> None:
        """Each turn gives `value` as its output after the launch's schema."""
        ...

    def will_hang(self) -> None:
        """Each turn begins and does not end by itself."""
        ...


Check = Callable[[Harness], Awaitable[None]]


def promise(kept: bool, words: str) -> None:
    """Say what was promised, where it was not kept."""
    if not kept:
        raise AssertionError(words)


async def launch(
    harness: Harness, tools: tuple[str, ...] | None = None, **changes: Any
) -> LiveAgent:
    """An agent for a new session, launched with `changes` of its spec."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await harness.agent.launch(replace(harness.spec(tools=tools), **changes))


async def iterate(
    live: LiveAgent, text: str = "Go on.", host: Host | None = None
) -> AsyncGenerator[AgentEvent, None]:
    """A turn that is closed with its iterator."""
    turn = live.turn([{"type": "text", "text": text}], host)
    try:
        async for event in turn:
            yield event
    finally:
        # Leaving the loop does not close the iterator: the garbage collector would, some day.
        if isinstance(turn, AsyncGenerator):
            await turn.aclose()


async def run_turn(
    live: LiveAgent, text: str = "Go on.", host: Host | None = None
) -> list[AgentEvent]:
    """All that happens in a turn."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [event async for event in live.turn([{"type": "text", "text": text}], host)]


async def close(live: LiveAgent) -> None:
    """Close it in time."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await live.close()
    except TimeoutError:
        raise AssertionError("A close takes at most 5 s.") from None


async def raises(kind: type[F], work: Awaitable[Any], words: str) -> F:
    """The error of the expected kind."""
    try:
        await work
    except kind as error:
        return error
    raise AssertionError(words)


def check_turn(events: list[AgentEvent]) -> None:
    """A turn has one beginning and one end."""
    promise(bool(events) and isinstance(events[0], Started), "A turn begins with Started.")
    promise(isinstance(events[-1], Finished), "A turn ends with Finished.")
    promise(sum(isinstance(event, Started) for event in events) == 1, "A turn begins once.")
    promise(sum(isinstance(event, Finished) for event in events) == 1, "A turn ends once.")


def start_of(events: list[AgentEvent]) -> Started:
    """The turn's first event."""
    match events:
        case [Started() as first, *_]:
            return first
    raise AssertionError("A turn begins with Started.")


def end_of(events: list[AgentEvent]) -> Finished:
    """The turn's last event."""
    match events:
        case [*_, Finished() as last]:
            return last
    raise AssertionError("A turn ends with Finished.")
