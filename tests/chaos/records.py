"""What is known of a campaign: what clients were told, and what the store and the provider have."""

from collections import Counter
from dataclasses import dataclass, field

Seen = tuple[int, str]
"""An event's number and type."""

Tokens = tuple[int, int]
"""Of one model call: in, out. Each call of a campaign has others."""


@dataclass
class Told:
    """What the clients sent and were answered."""

    tasks: dict[str, str] = field(default_factory=dict)  # an accepted task, and its word
    # Words of which nobody knows if they were taken, with the session that they were meant for.
    doubtful: dict[str, str | None] = field(default_factory=dict)
    streams: dict[str, list[list[Seen]]] = field(default_factory=dict)  # of a task, each reader's
    sessions: dict[str, list[Seen]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)  # the word of one taken, its session
    chats: dict[str, str] = field(default_factory=dict)  # the word of one served, its call
    replays: Counter[str] = field(default_factory=Counter)
    reconnects: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0  # seconds that an answer to a POST took
    wrong: list[str] = field(default_factory=list)  # answers that are never right


@dataclass(frozen=True, slots=True)
class Run:
    """A run's row."""

    id: str
    stream: str
    state: str
    task: bool
    lost: int


@dataclass(frozen=True, slots=True)
class Event:
    """An event of the book; `words` is what a message says."""

    seq: int
    type: str
    run_id: str | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the ledger."""

    call_id: str
    outcome: str
    tokens: Tokens
    cost: int


@dataclass(frozen=True, slots=True)
class Budget:
    """A hard budget's account."""

    id: str
    limit: int
    spent: int
    held: int


@dataclass
class Book:
    """What the store has once all has settled."""

    runs: list[Run] = field(default_factory=list)
    events: dict[str, list[Event]] = field(default_factory=dict)
    heads: dict[str, int] = field(default_factory=dict)
    ledger: list[Line] = field(default_factory=list)
    budgets: list[Budget] = field(default_factory=list)
    holds: list[str] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)  # those that are not done
    differences: list[str] = field(default_factory=list)  # by the proof of the books


@dataclass(frozen=True, slots=True)
class Served:
    """A call as the provider counted it."""

    tokens: Tokens
    cost: int
    whole: bool


@dataclass
class Outside:
    """What was done in the world, and what was seen of the store from beside it."""

    served: list[Served] = field(default_factory=list)
    deeds: dict[str, list[str]] = field(default_factory=dict)  # of a word, each step when done
    passed: list[str] = field(default_factory=list)  # budgets that were passed at some moment
    agents: list[str] = field(default_factory=list)  # agents' processes without a server
    exits: list[str] = field(default_factory=list)  # servers that did not stop in good order
    unsettled: list[str] = field(default_factory=list)
