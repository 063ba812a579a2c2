"""Tasks, as asked for and as answered."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from stationmaster.http.shapes.base import Reply, Request

Status = Literal[
    "pending",
    "running",
    "completed",
    "failed",
    "timeout",
    "cost_exceeded",
    "cancelled",
    "interrupted",
]

MAX_FILES = 1000
MAX_METADATA = 16
MAX_NAMED = 20  # sub-agents, skills or tool servers of one task
MAX_TAGS = 4

# A model's name becomes an argument of a process: it cannot begin with a dash.
ModelName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]*$", max_length=128)
]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
AgentName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
MetadataName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class TaskFile(Request):
    """A file to put into the workspace before the task begins."""

    path: Annotated[
        str,
        Field(min_length=1, max_length=4096, description="Where, relative to the workspace."),
    ]
    content: Annotated[str, Field(description="What is in it, in the given encoding.")]
    encoding: Annotated[
        Literal["utf-8", "base64"], Field(description="How `content` is to be read.")
    ] = "utf-8"
    executable: Annotated[bool, Field(description="Whether the file may be run.")] = False


class TaskRequest(Request):
    """A task for an agent. Only `description` is required."""

    description: Annotated[
        str, Field(min_length=1, description="What the agent is to do, at most 1 MB.")
    ]
    allow_tools: Annotated[
        list[Name] | None,
        Field(
            max_length=100,
            description="The only tools that the agent gets. Left out: the server's default set."
            " An empty list: none. A tool that is unknown or forbidden is refused with 403.",
        ),
    ] = None
    allow_agents: Annotated[
        list[AgentName],
        Field(
            default_factory=list,
            max_length=MAX_NAMED,
            description="Sub-agents: the project's agents, by name or id. What the key may not use"
            " is refused with 403, what is not there with 404.",
        ),
    ]
    allow_skills: Annotated[
        list[Name],
        Field(
            default_factory=list,
            max_length=MAX_NAMED,
            description="Skills of the operator's catalogue, refused as sub-agents are.",
        ),
    ]
    mcp_servers: Annotated[
        list[Name],
        Field(
            default_factory=list,
            max_length=MAX_NAMED,
            description="Tool servers of the operator's catalogue, refused as sub-agents are.",
        ),
    ]
    working_directory: Annotated[
        str,
        Field(
            min_length=1,
            max_length=4096,
            description="Where the agent starts. `/project` and `/workspace` are the workspace;"
            " a relative path is inside of it. It must exist.",
        ),
    ] = "/project"
    timeout: Annotated[
        float | None,
        Field(
            ge=1,
            description="Seconds until the task is stopped. Left out: the server's default, 300"
            " unless configured; the most is 600 unless configured.",
        ),
    ] = None
    max_cost: Annotated[
        float | None,
        Field(
            ge=0,
            description="Dollars that its model calls may cost. Left out: the server's default,"
            " 1.00 unless configured; the most is 10.00 unless configured.",
        ),
    ] = None
    model: Annotated[
        ModelName | None, Field(description="Such as `sonnet`. Left out: the server's default.")
    ] = None
    project_id: Annotated[
        str | None,
        Field(max_length=64, description="The key's own project, or `default` for it; else 403."),
    ] = None
    context: Annotated[
        dict[str, Any],
        Field(
            default_factory=dict,
            description="Facts for the agent, given to it as JSON; at most 64 KB.",
        ),
    ]
    system_prompt: Annotated[
        str | None, Field(description="Instructions added to the agent's own, at most 100 KB.")
    ] = None
    max_turns: Annotated[
        int | None, Field(ge=1, le=1000, description="Turns after which the agent is stopped.")
    ] = None
    permission_mode: Annotated[
        Literal["default", "acceptEdits", "bypassPermissions", "plan"],
        Field(description="What the agent may do unasked. The sandbox holds in every mode."),
    ] = "bypassPermissions"
    workspace: Annotated[
        str | None,
        Field(
            max_length=64,
            description="The name of a workspace shared by the project's tasks; the task gets a"
            " directory of its own in it. Left out: a workspace of its own.",
        ),
    ] = None
    metadata: Annotated[
        dict[MetadataName, MetadataValue],
        Field(
            default_factory=dict,
            max_length=MAX_METADATA,
            description="Kept with the task and given back.",
        ),
    ]
    files: Annotated[
        list[TaskFile],
        Field(
            default_factory=list,
            max_length=MAX_FILES,
            description="Files to put into the workspace first.",
        ),
    ]
    tags: Annotated[
        list[Name],
        Field(
            default_factory=list,
            max_length=MAX_TAGS,
            description="What the task's model calls are counted under, for budgets and reports;"
            " those of the header `x-stationmaster-tags` come first.",
        ),
    ]
    priority: Annotated[
        Literal["low", "normal", "high"] | None,
        Field(
            description="How soon it is served among its organisation's runs. Left out: `normal`,"
            " or less where the key's profile says so. `high` needs the scope `use:priority`,"
            " and one that the key may not use is refused with 403."
        ),
    ] = None


class PerformRequest(TaskRequest):
    """A task that its caller waits for."""

    on_disconnect: Annotated[
        Literal["continue", "cancel"],
        Field(description="What becomes of the task when its caller goes before it has ended."),
    ] = "cancel"


class TaskResult(Reply):
    """What a task led to."""

    summary: Annotated[str, Field(description="The beginning of `full_output`, or the error.")]
    full_output: Annotated[str, Field(description="The agent's last words.")]
    workspace_directory: Annotated[
        str, Field(description="Where the agent worked, by the path it had in the sandbox.")
    ]


class LogEntry(Reply):
    """A step of a task."""

    step: Annotated[int, Field(description="Counts from 1.")]
    timestamp: str
    action: Annotated[str, Field(description="Such as `tool_call` or `message`.")]
    details: Annotated[dict[str, Any], Field(description="Long texts are shortened.")]


class ArtifactEntry(Reply):
    """A file that the task made, changed or deleted."""

    type: Annotated[str, Field(description="`file`, `directory`, `link` or `other`.")]
    path: Annotated[str, Field(description="Relative to the task's directory.")]
    size_bytes: int
    created_at: Annotated[str, Field(description="When it was last changed.")]
    change: Annotated[str, Field(description="`created`, `modified` or `deleted`.")]


class ReportedUsage(Reply):
    """What an agent says that it used, where the server did not meter it."""

    input_tokens: int
    output_tokens: int
    cache_write_tokens: int
    cache_read_tokens: int
    total_cost: Annotated[
        float | None, Field(description="In dollars, at list prices; null where it does not say.")
    ]


class TaskUsage(Reply):
    """What a task used, by the ledger. All zero until the task has ended."""

    input_tokens: int
    output_tokens: int
    cache_write_tokens: int
    cache_read_tokens: int
    total_tokens: Annotated[int, Field(description="The sum of the four classes.")]
    total_cost: Annotated[float, Field(description="In dollars.")]
    model_calls: int
    model_used: str
    duration_seconds: Annotated[float | None, Field(description="Null until the task has ended.")]
    reported: Annotated[
        ReportedUsage | None,
        Field(
            description="The agent's own figures, of a task that ran with a subscription login and"
            " so past the ledger; null for every other."
        ),
    ] = None


class TaskError(Reply):
    """Why a task did not complete."""

    code: str
    message: str
    stderr_tail: Annotated[
        str | None, Field(description="The end of what the agent wrote to stderr.")
    ] = None


class TaskLinks(Reply):
    """Paths of what belongs to a task."""

    self: str
    events: str
    log: str
    cancel: str
    artifacts: str
    archive: str
    diff: str


class TaskHead(Reply):
    """A task as a list shows it."""

    task_id: str
    status: Annotated[
        Status,
        Field(
            description="`pending` and `running` go on; all others are final. A task that fails,"
            " times out or exceeds its cost is still answered with 200 and this status."
        ),
    ]
    description: str
    session_id: str
    created_at: str
    started_at: str | None
    completed_at: str | None
    model: Annotated[str, Field(description="As asked for.")]
    timeout: float
    max_cost: float
    priority: Literal["low", "normal", "high"]
    metadata: dict[str, str]
    usage: TaskUsage
    error: TaskError | None
    sandbox: Annotated[
        str | None,
        Field(description="How the agent was confined: `bubblewrap`, `user`, `limits` or `none`."),
    ]
    links: TaskLinks


class Task(TaskHead):
    """A task in full."""

    result: Annotated[TaskResult | None, Field(description="Null until the task has ended.")]
    execution_log: list[LogEntry]
    execution_log_truncated: Annotated[
        bool, Field(description="Whether there are more steps; the events have them all.")
    ]
    artifacts: list[ArtifactEntry]
    artifacts_truncated: Annotated[
        bool, Field(description="Whether there are more files; the archive has them all.")
    ]


class TaskAccepted(Reply):
    """A task that will run."""

    task_id: str
    session_id: str
    status: Status
    created_at: str
    links: TaskLinks


class TaskList(Reply):
    """Tasks, newest first."""

    tasks: list[TaskHead]
    has_more: bool
    next: Annotated[str | None, Field(description="The next page's `after`; null on the last.")]


class TaskLog(Reply):
    """The steps of a task."""

    task_id: str
    status: Status
    execution_log: list[LogEntry]
    execution_log_truncated: bool


class ArtifactList(Reply):
    """The files that a task made, changed or deleted."""

    task_id: str
    status: Status
    artifacts: list[ArtifactEntry]
    artifacts_truncated: bool
    archive: Annotated[str, Field(description="The path of all files as one tar.gz.")]
