"""Batches through providers' own interfaces for them."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Batches that are there are made of calls, as before."""
    op.create_table(
        "batch_submissions",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("batch_id", sa.String(length=64), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("prices", sa.String(length=64), nullable=False),
        sa.Column("share", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("instance_id", sa.String(length=64), nullable=False),
        sa.Column("upstream_id", sa.String(length=256), nullable=True),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("counts", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch_submissions")),
    )
    op.create_index("ix_batch_submissions_state_next_at", "batch_submissions", ["state", "next_at"])
    op.create_index("ix_batch_submissions_batch_id", "batch_submissions", ["batch_id"])
    op.add_column("batches", sa.Column("native", sa.Integer(), nullable=True))
    op.add_column("batches", sa.Column("destinations", sa.Text(), nullable=True))
    op.add_column("batch_requests", sa.Column("destination", sa.Integer(), nullable=True))
    op.add_column("batch_requests", sa.Column("submission_id", sa.String(length=64), nullable=True))


def downgrade() -> None:
    """Forget them."""
    with op.batch_alter_table("batch_requests") as table:
        table.drop_column("submission_id")
        table.drop_column("destination")
    with op.batch_alter_table("batches") as table:
        table.drop_column("destinations")
        table.drop_column("native")
    op.drop_table("batch_submissions")
