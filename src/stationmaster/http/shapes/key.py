"""API keys, as made and as listed."""

from typing import Annotated, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request

Days = Annotated[int | None, Field(ge=1, le=365, description="Left out: it never expires.")]
Names = Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=100)]


class KeyLimits(Request):
    """How fast a key may go; what is left out is as the server's settings say."""

    requests_per_minute: Annotated[int | None, Field(ge=0, le=10**12)] = None
    burst: Annotated[int | None, Field(ge=0, le=10**12)] = None
    input_tokens_per_minute: Annotated[int | None, Field(ge=0, le=10**12)] = None
    output_tokens_per_minute: Annotated[int | None, Field(ge=0, le=10**12)] = None
    concurrent_calls: Annotated[int | None, Field(ge=0, le=10**12)] = None
    concurrent_runs: Annotated[int | None, Field(ge=0, le=10**12)] = None
    sockets: Annotated[int | None, Field(ge=0, le=10**12)] = None


class ProfileChanges(Request):
    """What is different from the named profile."""

    allowed_tools: Names | None = None
    blocked_tools: Names | None = None
    allowed_agents: Names | None = None
    allowed_skills: Names | None = None
    max_concurrent_tasks: Annotated[int | None, Field(ge=0, le=10_000)] = None
    max_cpu_cores: Annotated[float | None, Field(ge=0.1, le=1024)] = None
    max_memory_gb: Annotated[float | None, Field(gt=0, le=1024)] = None
    max_execution_seconds: Annotated[float | None, Field(ge=1, le=86_400)] = None
    max_cost_per_task: Annotated[float | None, Field(ge=0, le=1_000_000)] = None
    network_access: bool | None = None
    filesystem_access: Literal["readonly", "readwrite"] | None = None
    workspace_size_mb: Annotated[int | None, Field(ge=0, le=2**30)] = None
    max_priority: Literal["low", "normal", "high"] | None = None


ProfileName = Annotated[
    str,
    Field(max_length=32, description="`free`, `pro` or `enterprise`: what its tasks may use."),
]
Models = Annotated[
    Names, Field(description="Models it may use; `claude-haiku-*` is every one that begins so.")
]
Addresses = Annotated[
    Names, Field(description="Addresses and networks that it may come from, as `10.0.0.0/8`.")
]


class KeyRequest(Request):
    """A key to be made."""

    name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_-]{3,50}$", description="For people to tell keys apart.")
    ]
    permissions: Annotated[
        list[str],
        Field(
            min_length=1,
            max_length=50,
            default_factory=lambda: ["read:*", "write:*"],
            description="Scopes such as `write:tasks`, `read:*` or `*`. None that you lack.",
        ),
    ]
    expires_in_days: Days = None
    rate_limit: Annotated[
        int | None, Field(ge=1, le=10_000, description="Requests a minute; in short for `limits`.")
    ] = None
    limits: KeyLimits | None = None
    profile: ProfileName | None = None
    profile_changes: ProfileChanges | None = None
    models: Models | None = None
    addresses: Addresses | None = None
    project_id: Annotated[
        str | None, Field(max_length=64, description="Left out: your own project.")
    ] = None
    user_id: Annotated[
        str | None, Field(max_length=64, description="The user it is of: never with more rights.")
    ] = None
    service_account_id: Annotated[str | None, Field(max_length=64)] = None
    rotates: Annotated[
        bool, Field(description="Whether it gets a successor by itself when it is old.")
    ] = True


class KeyChanges(Request):
    """What is to be different. What is left out stays; `null` takes a bound away."""

    name: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_-]{3,50}$")] = None
    permissions: Annotated[list[str] | None, Field(min_length=1, max_length=50)] = None
    enabled: Annotated[bool | None, Field(description="False takes it out of service.")] = None
    expires_in_days: Days = None
    rate_limit: Annotated[int | None, Field(ge=1, le=10_000)] = None
    limits: KeyLimits | None = None
    profile: ProfileName | None = None
    profile_changes: ProfileChanges | None = None
    models: Models | None = None
    addresses: Addresses | None = None


class RotationRequest(Request):
    """How a key is to be replaced."""

    overlap_days: Annotated[
        float, Field(ge=0, le=90, description="How long the old key still works.")
    ] = 7


class KeyProfile(Reply):
    """What the tasks of a key may use. null is as the server's settings say."""

    name: str
    allowed_tools: list[str]
    blocked_tools: list[str]
    allowed_agents: list[str]
    allowed_skills: list[str]
    max_concurrent_tasks: int | None
    max_cpu_cores: float | None
    max_memory_gb: float | None
    max_execution_seconds: float | None
    max_cost_per_task: float | None
    network_access: bool
    filesystem_access: str
    workspace_size_mb: float | None
    max_priority: str | None


class Key(Reply):
    """A key, without its secret."""

    id: str
    name: str
    hint: Annotated[str, Field(description="The last four characters of the secret.")]
    permissions: list[str]
    source: Annotated[str, Field(description="`created`, or `environment` for a configured one.")]
    project_id: str
    status: Annotated[str, Field(description="`active`, `inactive`, `expired` or `archived`.")]
    enabled: Annotated[bool, Field(description="False once it is revoked or out of service.")]
    rate_limit: Annotated[int | None, Field(description="Requests a minute, where it has its own.")]
    limits: dict[str, int]
    profile: KeyProfile | None
    models: Annotated[list[str] | None, Field(description="null is every model.")]
    addresses: Annotated[list[str] | None, Field(description="null is from anywhere.")]
    user_id: str | None
    service_account_id: str | None
    created_by: str | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used: Annotated[str | None, Field(description="To about half a minute.")]
    rotates_at: Annotated[str | None, Field(description="When it gets a successor by itself.")]
    successor_id: Annotated[str | None, Field(description="The key that replaces it.")]
    uncollected: Annotated[bool, Field(description="True until somebody was given its secret.")]


class NewKey(Key):
    """A key that was just made."""

    key: Annotated[str, Field(description="The secret. It is shown this once.")]


class KeyStatistics(Reply):
    """How many keys the project has."""

    total: int
    active: int
    inactive: int
    expired: int
    archived: int


class KeyList(Reply):
    """The project's keys, newest first."""

    keys: list[Key]
    statistics: KeyStatistics
    has_more: bool
    next: Annotated[str | None, Field(description="The next page's `after`; null on the last.")]
