"""Priorities of runs, and indexes by which whose turn it is is found however many wait."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs that are there have the usual one."""
    op.add_column(
        "runs", sa.Column("priority", sa.SmallInteger(), nullable=False, server_default="0")
    )
    for name, columns, where in (
        ("ix_runs_waiting", ["organization_id", "priority", "key_id", "id"], "state = 'queued'"),
        ("ix_runs_at_work", ["organization_id", "key_id"], "state = 'running'"),
        ("ix_runs_served", ["organization_id", "started_at"], "started_at IS NOT NULL"),
    ):
        op.create_index(
            name, "runs", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
        )


def downgrade() -> None:
    """Forget them."""
    for name in ("ix_runs_served", "ix_runs_at_work", "ix_runs_waiting"):
        op.drop_index(name, table_name="runs")
    with op.batch_alter_table("runs") as table:
        table.drop_column("priority")
