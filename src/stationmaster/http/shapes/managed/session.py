"""Sessions and their threads, as asked for and as shown."""

from typing import Annotated, Any, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request
from stationmaster.http.shapes.managed.event import MAX_EVENTS, ClientEvent
from stationmaster.http.shapes.managed.resource import Resource, ResourceRequest
from stationmaster.http.shapes.managed.terms import (
    Amount,
    JsonObject,
    Metadata,
    MetadataPatch,
    NextPage,
    SessionBudget,
)

Status = Literal["rescheduling", "running", "idle", "terminated"]
Title = Annotated[str | None, Field(max_length=1000)]


class AmountRequest(Request):
    """An amount of money."""

    amount: Annotated[
        str, Field(pattern=r"^(0|[1-9][0-9]{0,12})$", description='In cents: "2500" is $25.00.')
    ]
    currency: Literal["USD"]


class SessionBudgetRequest(Request):
    """A spend ceiling: a model call that could pass it is refused."""

    type: Literal["limit"]
    max_list_cost: AmountRequest


class SessionCreate(Request):
    """A session to be made."""

    agent: Annotated[
        str | JsonObject,
        Field(
            description="An agent's id, or an object of type `agent` (with `id` and `version`) or"
            " `agent_with_overrides`."
        ),
    ]
    environment_id: str
    title: Title = None
    metadata: Metadata = Field(default_factory=dict)
    budget: SessionBudgetRequest | None = None
    on_crash: Annotated[
        Literal["resume", "interrupt"],
        Field(description="Ours: whether a turn that a crash has cut goes on elsewhere."),
    ] = "resume"
    rules: Annotated[
        list[JsonObject],
        Field(
            max_length=100,
            description="Ours: what decides on tool calls before anybody is asked: `tool`,"
            " `action` (`allow`, `ask`, `deny`), `pattern`.",
        ),
    ] = Field(default_factory=list)
    initial_events: Annotated[
        list[ClientEvent],
        Field(max_length=MAX_EVENTS, description="`user.message` events, sent at once."),
    ] = Field(default_factory=list)
    resources: Annotated[
        list[ResourceRequest],
        Field(max_length=100, description="Files for the session's workspace."),
    ] = Field(default_factory=list)
    vault_ids: Annotated[
        list[str], Field(description="There are no vaults here: must be empty.")
    ] = Field(default_factory=list)


class SessionUpdate(Request):
    """What to change. What is left out stays."""

    title: Title = None
    metadata: MetadataPatch = None
    budget: Annotated[
        SessionBudgetRequest | None, Field(description="A new ceiling; null removes it.")
    ] = None
    agent: Annotated[
        JsonObject | None,
        Field(description="`tools` and `mcp_servers`, while the session is idle."),
    ] = None
    vault_ids: list[str] = Field(default_factory=list)


class SessionFork(Request):
    """From where a new session goes on."""

    run_id: Annotated[
        str | None,
        Field(max_length=64, description="The turn, `run_…`; left out: the last one."),
    ] = None


class CacheCreation(Reply):
    """Tokens written to the prompt cache, by how long they live there."""

    ephemeral_5m_input_tokens: int
    ephemeral_1h_input_tokens: int


class SessionUsage(Reply):
    """What a session used, by the ledger."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation: CacheCreation
    list_cost: Amount
    active_seconds: float


class SessionStats(Reply):
    """How long a session has been there, and at work."""

    active_seconds: float
    duration_seconds: float


class Session(Reply):
    """A session."""

    id: str
    type: Literal["session"] = "session"
    status: Status
    title: str | None
    agent: JsonObject
    environment_id: str
    metadata: dict[str, str]
    budget: SessionBudget | None
    usage: SessionUsage
    stats: SessionStats
    resources: list[Resource]
    outcome_evaluations: list[JsonObject] = Field(default_factory=list)
    vault_ids: list[str] = Field(default_factory=list)
    deployment_id: None = None
    created_at: str
    updated_at: str
    archived_at: str | None


class SessionPage(Reply):
    """Sessions."""

    data: list[Session]
    next_page: NextPage
    prev_page: Annotated[None, Field(description="Pages go forward alone.")] = None


class Thread(Reply):
    """A conversation inside a session: its own, or a sub-agent's."""

    id: str
    type: Literal["session_thread"] = "session_thread"
    session_id: str
    parent_thread_id: str | None
    agent: JsonObject
    status: Status
    created_at: str
    updated_at: str
    archived_at: str | None = None
    stats: Any = None
    usage: Any = None
    workflow_run_id: None = None


class TurnError(Reply):
    """Why a turn did not complete."""

    code: str
    message: str


class Turn(Reply):
    """A turn that has ended. A part of ours: Anthropic's API has none."""

    id: Annotated[str, Field(description="`run_…`; a session can be forked from here.")]
    type: Literal["turn"] = "turn"
    session_id: str
    state: Annotated[str, Field(description="`completed`, `failed`, `interrupted` and so on.")]
    result: Annotated[str | None, Field(description="The agent's last words.")]
    structured_output: Annotated[Any, Field(description="After the message's `output_schema`.")]
    error: TurnError | None
    model_calls: int
    list_cost: Amount
    ended_at: str


class TurnPage(Reply):
    """Turns that have ended, newest first unless told otherwise."""

    data: list[Turn]
    next_page: NextPage


class ThreadPage(Reply):
    """Threads, oldest first."""

    data: list[Thread]
    next_page: NextPage
