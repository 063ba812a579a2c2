"""What a pooled process needs around it: a token, a place, a way for its history. For `pool`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from stationmaster.agents.base import AgentHistoryLost, LiveAgent, TranscriptSink

# Where a turn's process came from: the session's own, one that was warm, or a fresh launch.
Source = Literal["kept", "warm", "cold"]

# What a process may write before it serves anyone; measured, it writes nothing.
_EARLY_ENTRIES = 1000


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Durations are in seconds.

    `size` processes of each kind wait warm, of the `kinds` used last; 0 of either keeps none.
    `idle` is how long a session's own process waits for the next turn, and `unused` how long a
    kind nobody asks for is kept warm. `memory` is what all waiting processes together may hold,
    in bytes.
    """

    size: int = 1
    kinds: int = 4
    idle: float = 300.0
    unused: float = 600.0
    memory: int = 1024**3


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A look at the pool. `memory` is in bytes, as last measured, of warm and idle ones."""

    warm: int
    idle: int
    busy: int
    launching: int
    kinds: int
    memory: int


@dataclass(frozen=True, slots=True)
class Seat:
    """A process for one session's turns.

    `token` is the secret that the process was started with and `token_id` its id: bind it to the
    run before the turn. `workspace` and `home` are where the process really is.
    """

    live: LiveAgent
    token_id: str
    token: str = field(repr=False)
    workspace: Path
    home: Path
    source: Source

    @property
    def warm(self) -> bool:
        """Whether no launch was waited for."""
        return self.source != "cold"


class SlotTokens(Protocol):
    """Tokens for processes. Both raise `Unavailable`."""

    async def issue(self) -> tuple[str, str]:
        """Make a token without rights; its id and its secret."""
        ...

    async def revoke(self, token_id: str) -> None:
        """End a token for good. Idempotent."""
        ...


class SlotPlaces(Protocol):
    """Directories for processes that serve no session yet. Every method blocks on the disk."""

    def make(self, slot: str) -> tuple[Path, Path]:
        """Make a workspace and a home. Where this server dies, they are deleted later."""
        ...

    def adopt(self, slot: str) -> None:
        """They belong to a session from now on, whatever happens to this server. Idempotent."""
        ...

    def discard(self, slot: str) -> None:
        """Delete both. Idempotent."""
        ...


class LateSink:
    """The transcripts of a process: where they go is said at each take, not at the launch.

    What comes before the first `bind` waits, and goes first with what comes after it.
    """

    def __init__(self) -> None:
        self._to: TranscriptSink | None = None
        self._early: list[tuple[str, str | None, list[dict[str, Any]]]] = []

    def bind(self, to: TranscriptSink) -> None:
        """Where they go from now on."""
        self._to = to

    async def append(
        self, session: str, subpath: str | None, entries: Sequence[dict[str, Any]]
    ) -> None:
        """See `TranscriptSink`."""
        if self._to is None:
            if sum(len(each) for *_, each in self._early) + len(entries) > _EARLY_ENTRIES:
                raise AgentHistoryLost("The agent wrote a history before it was asked anything.")
            self._early.append((session, subpath, list(entries)))
            return
        while self._early:
            await self._to.append(*self._early[0])
            del self._early[0]
        await self._to.append(session, subpath, entries)

    async def load(self, session: str, subpath: str | None) -> list[dict[str, Any]] | None:
        """See `TranscriptSink`."""
        return None if self._to is None else await self._to.load(session, subpath)

    async def subpaths(self, session: str) -> list[str]:
        """See `TranscriptSink`."""
        return [] if self._to is None else await self._to.subpaths(session)
