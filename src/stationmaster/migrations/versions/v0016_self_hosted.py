"""Self-hosted environments: their work, their workers, their keys."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_COLUMNS = {
    "api_keys": (("environment_id", sa.String(64)),),
    "run_tokens": (
        ("environment_id", sa.String(64)),
        ("work_id", sa.String(64)),
        ("expires_at", sa.BigInteger()),
    ),
}
_FLAGS = {"sessions": "self_hosted", "approvals": "forwarded"}
_UNFINISHED = sa.text("state != 'stopped'")


def upgrade() -> None:
    """Make them."""
    for table, columns in _COLUMNS.items():
        for name, kind in columns:
            op.add_column(table, sa.Column(name, kind))
    for table, name in _FLAGS.items():
        op.add_column(
            table, sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false())
        )
    op.create_index("ix_run_tokens_work_id", "run_tokens", ["work_id"])
    op.create_table(
        "work",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("environment_id", sa.String(length=64), nullable=False),
        sa.Column("session_id", sa.String(length=64), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("queued_at", sa.BigInteger(), nullable=False),
        sa.Column("polled_at", sa.BigInteger()),
        sa.Column("acknowledged_at", sa.BigInteger()),
        sa.Column("started_at", sa.BigInteger()),
        sa.Column("heartbeat_at", sa.BigInteger()),
        sa.Column("ttl", sa.Integer(), nullable=False),
        sa.Column("leased_until", sa.BigInteger()),
        sa.Column("stop_requested_at", sa.BigInteger()),
        sa.Column("stopped_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_work")),
    )
    op.create_index("ix_work_environment_id_id", "work", ["environment_id", "id"])
    op.create_index("ix_work_leased_until", "work", ["leased_until"])
    op.create_index(
        "uq_work_session_id_unfinished",
        "work",
        ["session_id"],
        unique=True,
        sqlite_where=_UNFINISHED,
        postgresql_where=_UNFINISHED,
    )
    op.create_table(
        "pollers",
        sa.Column("environment_id", sa.String(length=64), nullable=False),
        sa.Column("worker", sa.String(length=64), nullable=False),
        sa.Column("polled_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "worker", name=op.f("pk_pollers")),
    )


def downgrade() -> None:
    """Take them away."""
    op.drop_table("pollers")
    op.drop_table("work")
    op.drop_index("ix_run_tokens_work_id", table_name="run_tokens")
    for table, name in _FLAGS.items():
        with op.batch_alter_table(table) as batch:
            batch.drop_column(name)
    for table, columns in _COLUMNS.items():
        with op.batch_alter_table(table) as batch:
            for name, _ in columns:
                batch.drop_column(name)
