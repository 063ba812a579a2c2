"""Session resources, the model of a session, and threads that are archived."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

AT_ONCE = 500  # sessions read together: each has a whole agent

_SESSIONS = sa.table(
    "sessions", sa.column("id", sa.String), sa.column("agent", sa.Text), sa.column("model")
)


def upgrade() -> None:
    """Sessions that are there have no resources, and the model of their agent."""
    op.add_column(
        "sessions", sa.Column("resources", sa.Text(), nullable=False, server_default="[]")
    )
    op.add_column("sessions", sa.Column("model", sa.String(128)))
    op.add_column("threads", sa.Column("archived_at", sa.BigInteger()))
    _fill_models()


def _fill_models() -> None:
    # Not by the database's own functions: PostgreSQL's refuse JSON that holds a NUL's escape.
    connection, last, row = op.get_bind(), "", _SESSIONS.c
    batch = sa.select(row.id, row.agent).where(row.agent.is_not(None)).order_by(row.id)
    while found := connection.execute(batch.where(row.id > last).limit(AT_ONCE)).all():
        for each in found:
            model = json.loads(each.agent)["model"]["id"]
            named = sa.update(_SESSIONS).where(row.id == each.id).values(model=model)
            connection.execute(named)
        last = found[-1].id


def downgrade() -> None:
    """Forget all of it; the files stay where they are."""
    with op.batch_alter_table("threads") as table:
        table.drop_column("archived_at")
    with op.batch_alter_table("sessions") as table:
        table.drop_column("model")
        table.drop_column("resources")
