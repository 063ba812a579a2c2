"""Agents that do nothing but live and die, and the pool's ports in memory."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from stationmaster.agents.base import AgentEvent, Finished, Host, LaunchSpec, LiveAgent, Started
from stationmaster.agents.pool import Pool
from stationmaster.agents.slots import PoolLimits, Seat, SlotTokens, Source
from stationmaster.kernel.errors import StationmasterError

MIB = 1024**2


class Life(LiveAgent):
    """A live agent that was launched as `spec` says. `served` is whom it was used for."""

    def __init__(self, spec: LaunchSpec) -> None:
        self.spec = spec
        self.bytes = 100 * MIB
        self.dead = False
        self.closed = False
        self.settled = 0
        self.served: set[str] = set()
        self._id = spec.resume or spec.agent_session_id or str(uuid4())

    @property
    def rung(self) -> str:
        return "none"

    @property
    def agent_session_id(self) -> str:
        return self._id

    @property
    def ended(self) -> bool:
        return self.dead or self.closed

    async def settle(self) -> None:
        self.settled += 1

    def memory(self) -> int:
        return self.bytes

    async def turn(
        self, content: Sequence[dict[str, Any]], host: Host | None = None
    ) -> AsyncGenerator[AgentEvent, None]:
        if self.spec.transcripts is not None:
            await self.spec.transcripts.append(self._id, None, [{"type": "user"}])
        yield Started(self._id, self.spec.model, (), "1")
        yield Finished("success", "", 1)

    async def interrupt(self) -> None: ...

    async def close(self) -> None:
        self.closed = True


class Lives:
    """A kind of agent. `failure` is raised by launches; without `open_gate` they wait."""

    name = "lives"
    default_tools: tuple[str, ...] = ()
    known_tools: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.launched: list[Life] = []
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = 0
        self.most_at_once = 0

    async def launch(self, spec: LaunchSpec) -> Life:
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            await self.gate.wait()
            if self.failure is not None:
                raise self.failure
        finally:
            self.under_way -= 1
        self.launched.append(Life(spec))
        return self.launched[-1]

    async def reap(self) -> int:
        return 0

    def alive(self) -> int:
        return sum(not life.ended for life in self.launched)

    async def aclose(self) -> None: ...


@dataclass
class Tokens:
    """Token ids by what became of them."""

    live: set[str] = field(default_factory=set)
    revoked: set[str] = field(default_factory=set)
    failure: StationmasterError | None = None
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def issue(self) -> tuple[str, str]:
        if self.failure is not None:
            raise self.failure
        token_id = f"tok_{next(self._numbers)}"
        self.live.add(token_id)
        return token_id, f"secret of {token_id}"

    async def revoke(self, token_id: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.live.discard(token_id)
        self.revoked.add(token_id)


@dataclass
class Places:
    """Slots by what became of them."""

    made: set[str] = field(default_factory=set)
    adopted: set[str] = field(default_factory=set)
    failure: StationmasterError | None = None

    def make(self, slot: str) -> tuple[Path, Path]:
        if self.failure is not None:
            raise self.failure
        self.made.add(slot)
        return Path("/w") / slot, Path("/h") / slot

    def adopt(self, slot: str) -> None:
        self.made.remove(slot)
        self.adopted.add(slot)

    def discard(self, slot: str) -> None:
        self.made.discard(slot)
        self.adopted.discard(slot)


class Station:
    """A pool with all its parts, and a clock moved by hand."""

    def __init__(self, *, tokens: SlotTokens | None = None, **limits: Any) -> None:
        self.agent = Lives()
        self.tokens = Tokens()
        self.places = Places()
        self.time = 1000.0
        self.sources: list[Source] = []
        self.pool = Pool(
            self.agent,
            tokens or self.tokens,
            self.places,
            PoolLimits(**limits),
            on_take=self.sources.append,
            now=lambda: self.time,
        )

    async def tend(self, seconds: float = 1.0) -> None:
        """Let time pass, have the pool look after itself, and wait for what that began."""
        self.time += seconds
        await self.pool.tend()
        await self.quiet()

    async def quiet(self) -> None:
        """Wait for launches and ends that can go on."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others and self.agent.gate.is_set():
            await asyncio.wait(others)

    async def warmed(self, spec: LaunchSpec) -> None:
        """Have one of a kind warm."""
        self.pool.expect(spec)
        await self.tend()
        assert self.pool.stats().warm == 1


def spec(**changes: Any) -> LaunchSpec:
    """A launch of some kind; what a session brings along is a session's own."""
    given: dict[str, Any] = {
        "session_id": "sesn",
        "workspace": Path("/own/workspace"),
        "home": Path("/own/home"),
        "gateway_socket": Path("/gateway.sock"),
        "gateway_url": "http://127.0.0.1:1",
        "token": "",
        "model": "sonnet",
    }
    return LaunchSpec(**(given | changes))


KIND, OTHER = spec(), spec(model="haiku")


def life_of(seat: Seat) -> Life:
    """The agent of a seat."""
    assert isinstance(seat.live, Life)
    return seat.live
