"""What carries word of a job to one worker of many.

A message is a doorbell: it says which job is waiting, and whoever hears it claims that job in the
database, or finds that another has. So a lost message costs a poll, and a doubled one nothing.
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, get_args

import msgspec
import structlog

from stationmaster.kernel.errors import Unavailable

log = structlog.get_logger(__name__)

Lane = Literal["runs", "jobs"]
LANES: Final[tuple[Lane, ...]] = get_args(Lane)

AT_ONCE: Final[Mapping[Lane, int]] = {"runs": 1, "jobs": 20}
"""How many messages one worker holds. Of runs one: what it has no room for is for another."""

MOST_KEPT = 100_000
"""Messages that wait in a lane. Of more, when nobody works, the oldest are dropped."""

MOST_DEAD = 1_000
"""Messages kept to be looked at that nobody understood."""

FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 5.0  # between two tries to reach it

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KIND = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Ring:
    """A job waits. Nothing in it is believed but that somebody should look."""

    job_id: str
    kind: str
    lane: Lane

    def encode(self) -> bytes:
        """The message's body."""
        return msgspec.json.encode({"id": self.job_id, "kind": self.kind, "lane": self.lane})

    @classmethod
    def decode(cls, body: bytes) -> "Ring":
        """What a message says. Raises ValueError for what is not ours; more fields are allowed."""
        try:
            said = msgspec.json.decode(body, type=_Said)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ValueError("This is no message of ours.") from error
        if not (_ID.fullmatch(said.id) and _KIND.fullmatch(said.kind)):
            raise ValueError("These are no names of ours.")
        return cls(said.id, said.kind, said.lane)


class _Said(msgspec.Struct):
    id: str
    kind: str
    lane: Lane


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that is the receiver's until it acknowledges it. `token` is the broker's own."""

    ring: Ring
    token: Any


class Broker(Protocol):
    """Delivers each message at least once to one of those who receive.

    `run` must run; what is asked for meanwhile waits, or is refused, while the broker is away.
    """

    @property
    def kind(self) -> str:
        """What it is, in a word."""
        ...

    @property
    def trouble(self) -> Unavailable | None:
        """Why nothing can be sent or received now; None while it can. Never names an address."""
        ...

    @property
    def waiting(self) -> int:
        """How many messages waited when that was last asked."""
        ...

    async def run(self) -> None:
        """Reach the broker, and again whenever it is away, until cancelled.

        A cancellation is obeyed within a few seconds, whatever the broker does.
        """
        ...

    async def publish(self, rings: Sequence[Ring]) -> None:
        """Send them; when this returns the broker has them all.

        Raises `Unavailable`, within a few seconds, where that is not sure. Some may have come.
        """
        ...

    async def receive(self, lane: Lane) -> list[Delivery]:
        """Wait for messages of a lane, at most `AT_ONCE` of them; for as long as it takes."""
        ...

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """They need not come again. Never raises: where it fails they come again."""
        ...


def away(message: str, code: str = "broker_away") -> Unavailable:
    """Trouble in words of ours: what libraries say may name addresses and users."""
    return Unavailable(message, code=code)


def pauses() -> Iterator[float]:
    """Seconds between tries, longer and longer. Not the same for all servers at once."""
    pause = FIRST_PAUSE_S
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311
        pause = min(2 * pause, MAX_PAUSE_S)


class Wellness:
    """Whether a broker is there. Says in the log when that changes."""

    def __init__(self, name: str, on_change: Callable[[bool], None]) -> None:
        self._name = name
        self._on_change = on_change
        self._well = asyncio.Event()
        self._told: str | None = None
        self.trouble: Unavailable | None = away(f"{name} has not been reached yet.")
        on_change(False)

    def is_well(self) -> None:
        """It can be used."""
        if self.trouble is not None:
            log.info("Jobs go through the broker.", broker=self._name)
            self.trouble, self._told = None, None
            self._well.set()
            self._on_change(True)

    def is_away(self, trouble: Unavailable) -> None:
        """It cannot be used."""
        if self._told != trouble.error_code:
            self._told = trouble.error_code
            log.warning(
                "Jobs go by polling.",
                broker=self._name,
                reason=trouble.message,
                code=trouble.error_code,
            )
        if self.trouble is None:
            self._on_change(False)
        self.trouble = trouble
        self._well.clear()

    async def wait(self) -> None:
        """Return once it can be used."""
        await self._well.wait()


async def within(
    seconds: float, work: Awaitable[Any], *, give_up: Callable[[], None], grace: float = 1.0
) -> Any:
    """What `work` gives, or TimeoutError after `seconds`. Never takes much longer than that.

    `asyncio.timeout` waits for whatever the cancelled does about it, and a library's clean-up may
    wait for an answer that does not come. Here `give_up`, which is to break what is waited for,
    has `grace` seconds to tell; then it is left alone. The same where the caller is cancelled.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(_looked_at)  # it may fail when nobody asks any more
    ended: set[Any] = set()
    try:
        ended, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            give_up()
            task.cancel()
            await asyncio.wait({task}, timeout=grace)
    if not ended:
        raise TimeoutError
    if task.cancelled():
        raise ConnectionAbortedError("What was waited for was cancelled by somebody else.")
    return task.result()


def _looked_at(task: "asyncio.Future[Any]") -> None:
    if not task.cancelled():
        task.exception()
