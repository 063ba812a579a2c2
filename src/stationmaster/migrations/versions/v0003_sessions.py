"""Tables of sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make them."""
    op.add_column(
        "sessions", sa.Column("kind", sa.String(length=16), nullable=False, server_default="task")
    )
    op.add_column("sessions", sa.Column("agent_id", sa.String(length=64), nullable=True))
    op.add_column("sessions", sa.Column("agent_version", sa.Integer(), nullable=True))
    op.add_column("sessions", sa.Column("environment_id", sa.String(length=64), nullable=True))
    op.add_column(
        "sessions",
        sa.Column("on_crash", sa.String(length=16), nullable=False, server_default="interrupt"),
    )
    op.add_column("sessions", sa.Column("forked_from", sa.Text(), nullable=True))
    op.add_column(
        "sessions", sa.Column("status", sa.String(length=16), nullable=False, server_default="idle")
    )
    op.add_column("sessions", sa.Column("stop_reason", sa.Text(), nullable=True))
    op.add_column("sessions", sa.Column("title", sa.Text(), nullable=True))
    op.add_column("sessions", sa.Column("metadata", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("sessions", sa.Column("agent", sa.Text(), nullable=True))
    op.add_column("sessions", sa.Column("budget", sa.BigInteger(), nullable=True))
    op.add_column("sessions", sa.Column("queue", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("sessions", sa.Column("always", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("sessions", sa.Column("rules", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("sessions", sa.Column("run_id", sa.String(length=64), nullable=True))
    op.add_column("sessions", sa.Column("usage", sa.Text(), nullable=False, server_default="{}"))
    op.add_column(
        "sessions", sa.Column("cost", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.add_column(
        "sessions", sa.Column("active_ms", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.add_column("sessions", sa.Column("running_since", sa.BigInteger(), nullable=True))
    op.add_column("sessions", sa.Column("history", sa.String(length=64), nullable=True))
    op.add_column("sessions", sa.Column("position", sa.String(length=64), nullable=True))
    op.add_column(
        "sessions", sa.Column("updated_at", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.add_column("sessions", sa.Column("archived_at", sa.BigInteger(), nullable=True))
    op.add_column("sessions", sa.Column("deleted_at", sa.BigInteger(), nullable=True))
    op.add_column("runs", sa.Column("lost", sa.Integer(), nullable=False, server_default="0"))
    op.add_column(
        "runs",
        sa.Column("interrupt_requested", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.add_column("runs", sa.Column("structured", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("history", sa.String(length=64), nullable=True))
    op.add_column("runs", sa.Column("position", sa.String(length=64), nullable=True))
    op.add_column("runs", sa.Column("message_id", sa.String(length=64), nullable=True))
    op.create_index("ix_sessions_environment_id", "sessions", ["environment_id"], unique=False)
    op.create_index("ix_runs_session_id_id", "runs", ["session_id", "id"], unique=False)
    op.create_index("uq_runs_message_id", "runs", ["message_id"], unique=True)
    # What the fold of the events that are there already gives.
    op.execute(
        "UPDATE sessions SET status = coalesce((SELECT 'running' FROM runs WHERE"
        " runs.session_id = sessions.id AND runs.state = 'running'), 'idle'),"
        " run_id = (SELECT id FROM runs WHERE runs.session_id = sessions.id"
        " AND runs.state IN ('queued', 'running')),"
        ' stop_reason = (SELECT \'{"type":"end_turn"}\' FROM runs WHERE'
        " runs.session_id = sessions.id AND runs.state NOT IN ('queued', 'running')),"
        " usage = coalesce((SELECT usage FROM runs WHERE runs.session_id = sessions.id), '{}'),"
        " cost = coalesce((SELECT cost FROM runs WHERE runs.session_id = sessions.id), 0),"
        " active_ms = coalesce((SELECT ended_at - started_at FROM runs WHERE"
        " runs.session_id = sessions.id), 0),"
        " running_since = (SELECT started_at FROM runs WHERE"
        " runs.session_id = sessions.id AND runs.state = 'running'),"
        " updated_at = coalesce((SELECT coalesce(ended_at, started_at, queued_at) FROM runs WHERE"
        " runs.session_id = sessions.id), created_at)"
    )
    op.create_table(
        "agents",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("archived_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agents")),
    )
    op.create_index("ix_agents_project_id_id", "agents", ["project_id", "id"], unique=False)
    op.create_table(
        "agent_versions",
        sa.Column("agent_id", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "version", name=op.f("pk_agent_versions")),
    )
    op.create_table(
        "environments",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("archived_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_environments")),
    )
    op.create_index(
        "ix_environments_project_id_id", "environments", ["project_id", "id"], unique=False
    )
    op.create_table(
        "approvals",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("session_id", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("event_id", sa.String(length=64), nullable=False),
        sa.Column("tool_use_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("input", sa.Text(), nullable=False),
        sa.Column("thread_id", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("decided_by", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("told", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approvals")),
    )
    op.create_index("ix_approvals_project_id_id", "approvals", ["project_id", "id"], unique=False)
    op.create_index(
        "ix_approvals_state_expires_at", "approvals", ["state", "expires_at"], unique=False
    )
    op.create_index("ix_approvals_run_id", "approvals", ["run_id"], unique=False)
    op.create_index("uq_approvals_event_id", "approvals", ["event_id"], unique=True)
    op.create_table(
        "threads",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("session_id", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("agent_name", sa.Text(), nullable=False),
        sa.Column("tool_use_id", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_threads")),
    )
    op.create_index("ix_threads_session_id_id", "threads", ["session_id", "id"], unique=False)

    op.create_table(
        "admission",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admission")),
    )
    op.execute("INSERT INTO admission (id) VALUES (1)")


def downgrade() -> None:
    """Drop them."""
    op.drop_table("admission")
    op.drop_table("threads")
    op.drop_table("approvals")
    op.drop_table("environments")
    op.drop_table("agent_versions")
    op.drop_table("agents")
    op.drop_index("uq_runs_message_id", "runs")
    op.drop_index("ix_runs_session_id_id", "runs")
    op.drop_index("ix_sessions_environment_id", "sessions")
    op.drop_column("runs", "message_id")
    op.drop_column("runs", "position")
    op.drop_column("runs", "history")
    op.drop_column("runs", "structured")
    op.drop_column("runs", "interrupt_requested")
    op.drop_column("runs", "lost")
    op.drop_column("sessions", "deleted_at")
    op.drop_column("sessions", "archived_at")
    op.drop_column("sessions", "updated_at")
    op.drop_column("sessions", "position")
    op.drop_column("sessions", "history")
    op.drop_column("sessions", "running_since")
    op.drop_column("sessions", "active_ms")
    op.drop_column("sessions", "cost")
    op.drop_column("sessions", "usage")
    op.drop_column("sessions", "run_id")
    op.drop_column("sessions", "rules")
    op.drop_column("sessions", "always")
    op.drop_column("sessions", "queue")
    op.drop_column("sessions", "budget")
    op.drop_column("sessions", "agent")
    op.drop_column("sessions", "metadata")
    op.drop_column("sessions", "title")
    op.drop_column("sessions", "stop_reason")
    op.drop_column("sessions", "status")
    op.drop_column("sessions", "forked_from")
    op.drop_column("sessions", "on_crash")
    op.drop_column("sessions", "environment_id")
    op.drop_column("sessions", "agent_version")
    op.drop_column("sessions", "agent_id")
    op.drop_column("sessions", "kind")
