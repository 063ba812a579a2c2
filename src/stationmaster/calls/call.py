"""A call as it is kept."""

from dataclasses import dataclass
from typing import Any, Protocol

from stationmaster.kernel.clock import Millis
from stationmaster.kernel.principal import Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """Whose a call was, what it asked and how it went."""

    id: str
    owner: Owner
    key_id: str
    user_id: str | None
    session_id: str | None
    run_id: str | None
    operation: str
    provider: str
    model: str
    outcome: str
    at: Millis


@dataclass(frozen=True, slots=True, kw_only=True)
class Said(CallFacts):
    """What went in and came out of a call, as its client wrote and read it.

    `answer` is a body, or the bytes of an event stream. One that is not `whole` was longer than
    what is kept of it.
    """

    request: bytes
    answer: bytes
    stream: bool
    whole: bool = True

    @property
    def size(self) -> int:
        """Bytes that it takes while it waits."""
        return len(self.request) + len(self.answer)


class CallKeeper(Protocol):
    """Told of each call that has ended. On the event loop: it must not block or raise."""

    def wants(self, owner: Owner, *, of_run: bool) -> bool:
        """Whether calls of this project are kept; `of_run` are those of agents."""
        ...

    def keep(self, said: Said) -> None:
        """Keep one, later. It may be dropped."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCall(CallFacts):
    """A call that was kept. `request` and `answer` are redacted; None where they are not kept.

    In a list both are None: `left_out` says of each that was not kept, why.
    """

    request: Any = None
    answer: Any = None
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Sought:
    """Which calls: each part that is given must fit. `since` is included, `until` is not."""

    key_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    run_id: str | None = None
    model: str | None = None
    outcome: str | None = None
    since: Millis | None = None
    until: Millis | None = None
