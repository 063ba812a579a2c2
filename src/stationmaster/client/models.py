"""What the server tells, as far as a caller needs names for it. `data` is always the whole."""

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Json = dict[str, Any]

UNFINISHED = frozenset({"pending", "running"})


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What a task may ask for. None means the server's default.

    `allow_tools` restricts: an empty list means no tools. `allow_agents`, `allow_skills` and
    `mcp_servers` are names of what the server offers. `max_cost` is in US dollars, `timeout` in
    seconds. `workspace` names a shared workspace. The model calls are counted under `tags`.
    `priority` is low, normal or high.
    """

    model: str | None = None
    allow_tools: list[str] | None = None
    allow_agents: list[str] | None = None
    allow_skills: list[str] | None = None
    mcp_servers: list[str] | None = None
    system_prompt: str | None = None
    max_turns: int | None = None
    max_cost: float | None = None
    timeout: float | None = None
    permission_mode: str | None = None
    workspace: str | None = None
    working_directory: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    tags: list[str] | None = None
    priority: str | None = None

    def to_json(self) -> Json:
        """The fields that are set."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in values.items() if value not in (None, {})}


@dataclass(frozen=True, slots=True)
class Task:
    """A task.

    `status` is pending, running, completed, failed, timeout, cost_exceeded, cancelled or
    interrupted.
    """

    id: str
    status: str
    data: Json

    @property
    def ended(self) -> bool:
        """Whether it has ended; then it never changes again."""
        return self.status not in UNFINISHED

    @property
    def summary(self) -> str:
        """What the agent said last; empty while it runs and where it said nothing."""
        return str(_part(self.data, "result").get("summary") or "")

    @property
    def cost(self) -> float:
        """What it has cost, in US dollars, once it has ended."""
        return float(_part(self.data, "usage").get("total_cost") or 0.0)

    @property
    def total_tokens(self) -> int:
        """Tokens of all classes together, once it has ended."""
        return int(_part(self.data, "usage").get("total_tokens") or 0)

    @property
    def error(self) -> Json | None:
        """Why it did not complete: `code`, `message` and perhaps `stderr_tail`."""
        found = self.data.get("error")
        return found if isinstance(found, dict) else None


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """One event of a task. `seq` is its number in the book, None for one that only passes by.

    A passing event, such as `agent.delta`, is not kept: after a reconnection it is not repeated.
    """

    seq: int | None
    type: str
    data: Json
    created_at: str | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page of a task's events. Ask on with `after=next`; nothing follows once `ended`."""

    events: list[TaskEvent]
    next: int
    ended: bool


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a task created, modified or deleted, as `change` says. `size` is in bytes."""

    path: str
    type: str
    change: str
    size: int
    data: Json


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key. `secret` is there only in the answer that made it."""

    id: str
    name: str
    secret: str | None
    data: Json


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A slice of a list, newest first. Ask on with `after=next_cursor`; None ends it."""

    items: list[T]
    next_cursor: str | None


def _part(data: Json, name: str) -> Json:
    found = data.get(name)
    return found if isinstance(found, dict) else {}
