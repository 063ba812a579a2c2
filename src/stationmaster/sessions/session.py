"""What the verbs on sessions give back."""

from dataclasses import dataclass, field
from typing import Any, Literal

from stationmaster.events import Event
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.money import MicroDollars
from stationmaster.kernel.principal import Owner
from stationmaster.sessions.state import SessionState, Status

CrashPolicy = Literal["resume", "interrupt"]


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation with an agent. `kind` is `task` for one made by the Task API.

    `state` has its status, usage and the rest that changes. `directory` is where its agent works;
    empty as long as it has no workspace. The tools of one that is `self_hosted` are run by a worker
    of its environment.
    """

    state: SessionState
    owner: Owner
    key_id: str
    kind: Literal["session", "task"]
    agent_id: str | None
    agent_version: int | None
    environment_id: str | None
    on_crash: CrashPolicy
    created_at: Millis
    forked_from: dict[str, Any] | None = None
    directory: str = ""
    self_hosted: bool = False

    @property
    def id(self) -> str:
        """Its id, `sesn_…`, which is also that of its stream."""
        return self.state.id

    @property
    def resumes(self) -> bool:
        """Whether a turn that a crash has cut goes on elsewhere."""
        return self.kind == "session" and self.on_crash == "resume"


@dataclass(frozen=True, slots=True)
class Mount:
    """A stored file that is wanted in a session's workspace. See `place_of_mount`."""

    file_id: str
    mount_path: str | None = None


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """A request for a session. `budget` is in micro-dollars.

    `agent` is an id, or the API's object with `id` and `version`, of type `agent` or
    `agent_with_overrides`; ours besides: of type `inline`, with a definition's fields.
    """

    agent: str | dict[str, Any]
    environment_id: str | None = None
    title: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    budget: MicroDollars | None = None
    on_crash: CrashPolicy = "resume"
    # Ours: what decides on tool calls besides the agent's own policies. See `rules.py`.
    rules: tuple[dict[str, Any], ...] = ()
    resources: tuple[Mount, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionPatch:
    """What to change. `fields` names those that are meant: a None among them empties the field.

    Fields: `title`, `metadata` (a patch), `budget`, `agent` (`tools`, `mcp_servers`).
    """

    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions to list. Times are inclusive bounds in milliseconds."""

    agent_id: str | None = None
    agent_version: int | None = None
    model: str | None = None
    statuses: tuple[Status, ...] = ()
    created_from: Millis | None = None
    created_to: Millis | None = None
    include_archived: bool = False
    only_archived: bool = False
    order: Literal["asc", "desc"] = "desc"


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """An event of a session. `id` is its `sevt_…`; `processed_at` is None while it is queued.

    `event.type` is the API's name or one of ours (`run.…`, `session.created`, `session.archived`),
    which the API does not show. `event.data` has the API's fields beside ours: `run_id`,
    `tool_use_id` (the agent's own id of a call), `parent_tool_use_id`.
    """

    id: str
    event: Event
    processed_at: Millis | None


@dataclass(frozen=True, slots=True)
class Thread:
    """A sub-agent at work, or the session's own conversation, whose `parent_id` is None.

    Its events are the stream `stream_id`. `agent` is in the form of `session.agent`.
    """

    id: str
    session_id: str
    parent_id: str | None
    agent_name: str
    agent: dict[str, Any]
    status: Status
    created_at: Millis
    updated_at: Millis
    stream_id: str
    archived_at: Millis | None = None
