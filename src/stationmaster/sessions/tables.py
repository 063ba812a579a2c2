"""Tables of sessions and their runs."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    SmallInteger,
    String,
    Table,
    Text,
    false,
    text,
)

from stationmaster.storage.schema import Json, metadata

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(64), primary_key=True),  # also the id of its stream
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),
    # Paths below WORKSPACE_DIR; see `Place`.
    Column("workspace", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("directory", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # What it was made as; never changes. A task is a session made by the Task API.
    Column("kind", String(16), nullable=False, server_default="task"),
    Column("agent_id", String(64)),
    Column("agent_version", Integer),
    Column("model", String(128)),
    Column("environment_id", String(64)),
    # Its environment is self-hosted: a worker elsewhere runs its tools.
    Column("self_hosted", Boolean, nullable=False, server_default=false()),
    Column("on_crash", String(16), nullable=False, server_default="interrupt"),
    Column("forked_from", Json),
    # The fold of the session's events, kept here to be queried. See `state.py`.
    Column("status", String(16), nullable=False, server_default="idle"),
    Column("stop_reason", Json),
    Column("title", Text),
    Column("metadata", Json, nullable=False, server_default="{}"),
    Column("agent", Json),
    Column("budget", BigInteger),
    Column("queue", Json, nullable=False, server_default="[]"),
    Column("always", Json, nullable=False, server_default="[]"),
    Column("rules", Json, nullable=False, server_default="[]"),
    Column("resources", Json, nullable=False, server_default="[]"),
    Column("run_id", String(64)),
    Column("usage", Json, nullable=False, server_default="{}"),
    Column("cost", BigInteger, nullable=False, server_default="0"),
    Column("active_ms", BigInteger, nullable=False, server_default="0"),
    Column("running_since", BigInteger),
    Column("history", String(64)),
    Column("position", String(64)),
    Column("updated_at", BigInteger, nullable=False, server_default="0"),
    Column("archived_at", BigInteger),
    Column("deleted_at", BigInteger),
    Index("ix_sessions_project_id_id", "project_id", "id"),
    Index("ix_sessions_environment_id", "environment_id"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("session_id", String(64), nullable=False),
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),
    # What was asked for; never changes.
    Column("options", Json, nullable=False),
    # The fold of the run's events, kept here to be queried. See `state.py`.
    Column("state", String(16), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("queued_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("cancel_requested", Boolean, nullable=False),
    Column("agent", Json),
    Column("turns", Integer, nullable=False),
    Column("result", Json),  # text that may hold what PostgreSQL's text cannot
    Column("error", Json),
    Column("usage", Json, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("model_calls", Integer, nullable=False),
    Column("artifacts", Json, nullable=False),
    Column("lost", Integer, nullable=False, server_default="0"),
    Column("interrupt_requested", Boolean, nullable=False, server_default=false()),
    Column("structured", Json),
    Column("history", String(64)),
    Column("position", String(64)),
    # The message that this is the turn of; None for a task.
    Column("message_id", String(64)),
    # Who is at work on it, or is to be. Not in the fold: it changes without an event.
    Column("instance_id", String(64)),
    # As in the options, by its number: see `priority.py`.
    Column("priority", SmallInteger, nullable=False, server_default="0"),
    Index("ix_runs_project_id_id", "project_id", "id"),
    Index("ix_runs_state_key_id", "state", "key_id"),
    Index("ix_runs_key_id_started_at", "key_id", "started_at"),
    Index("ix_runs_instance_id", "instance_id"),
    Index("ix_runs_session_id_id", "session_id", "id"),
    Index("uq_runs_message_id", "message_id", unique=True),  # a message has one turn
    # Whose turn it is, however many wait and have been: see `fairness.py`.
    Index(
        "ix_runs_waiting",
        "organization_id",
        "priority",
        "key_id",
        "id",
        sqlite_where=text("state = 'queued'"),
        postgresql_where=text("state = 'queued'"),
    ),
    Index(
        "ix_runs_at_work",
        "organization_id",
        "key_id",
        sqlite_where=text("state = 'running'"),
        postgresql_where=text("state = 'running'"),
    ),
    Index(
        "ix_runs_served",
        "organization_id",
        "started_at",
        sqlite_where=text("started_at IS NOT NULL"),
        postgresql_where=text("started_at IS NOT NULL"),
    ),
    # One run of a session at a time, whatever the code above this does.
    Index(
        "uq_runs_session_id_unfinished",
        "session_id",
        unique=True,
        sqlite_where=text("state IN ('queued', 'running')"),
        postgresql_where=text("state IN ('queued', 'running')"),
    ),
)

agents = Table(
    "agents",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("version", Integer, nullable=False),  # the latest
    Column("created_at", BigInteger, nullable=False),
    Column("archived_at", BigInteger),
    Index("ix_agents_project_id_id", "project_id", "id"),
)

agent_versions = Table(
    "agent_versions",
    metadata,
    Column("agent_id", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("definition", Json, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

environments = Table(
    "environments",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("config", Json, nullable=False),
    Column("metadata", Json, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("archived_at", BigInteger),
    Index("ix_environments_project_id_id", "project_id", "id"),
)

work = Table(
    "work",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("environment_id", String(64), nullable=False),
    Column("session_id", String(64), nullable=False),
    Column("metadata", Json, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # When it was last put into the queue, and when a worker took it from there.
    Column("queued_at", BigInteger, nullable=False),
    Column("polled_at", BigInteger),
    Column("acknowledged_at", BigInteger),
    Column("started_at", BigInteger),
    Column("heartbeat_at", BigInteger),
    Column("ttl", Integer, nullable=False),  # seconds
    Column("leased_until", BigInteger),
    Column("stop_requested_at", BigInteger),
    Column("stopped_at", BigInteger),
    Index("ix_work_environment_id_id", "environment_id", "id"),
    Index("ix_work_leased_until", "leased_until"),
    # A session has one piece of work at a time, whatever the code above this does.
    Index(
        "uq_work_session_id_unfinished",
        "session_id",
        unique=True,
        sqlite_where=text("state != 'stopped'"),
        postgresql_where=text("state != 'stopped'"),
    ),
)

pollers = Table(
    "pollers",
    metadata,
    Column("environment_id", String(64), primary_key=True),
    Column("worker", String(64), primary_key=True),  # a hash of the id that it gives itself
    Column("polled_at", BigInteger, nullable=False),
)

approvals = Table(
    "approvals",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("session_id", String(64), nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("event_id", String(64), nullable=False),  # of its agent.tool_use or the like
    Column("tool_use_id", Json, nullable=False),  # the agent's own id of the call
    Column("name", Json, nullable=False),
    Column("input", Json, nullable=False),
    Column("thread_id", String(64)),
    Column("state", String(16), nullable=False),
    Column("answer", Json),
    Column("decided_by", String(64)),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("decided_at", BigInteger),
    # Under which its run asked last. See `Claims`.
    Column("epoch", BigInteger, nullable=False),
    # The agent has been told: whether the call happened is not known to a later attempt.
    Column("told", Boolean, nullable=False),
    # A worker elsewhere runs the tool; once it is permitted, its result is waited for.
    Column("forwarded", Boolean, nullable=False, server_default=false()),
    Index("ix_approvals_project_id_id", "project_id", "id"),
    Index("ix_approvals_state_expires_at", "state", "expires_at"),
    Index("ix_approvals_run_id", "run_id"),
    Index("uq_approvals_event_id", "event_id", unique=True),
)

threads = Table(
    "threads",
    metadata,
    Column("id", String(64), primary_key=True),  # also the id of its stream
    Column("session_id", String(64), nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("agent_name", Json, nullable=False),
    Column("tool_use_id", Json, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("archived_at", BigInteger),
    Index("ix_threads_session_id_id", "session_id", "id"),
)

# One row, locked by whoever lets a run in: see `runs/queue.py`.
admission = Table(
    "admission",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
)
