"""Calls that are kept, and which projects keep theirs."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "call_policies",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_call_policies")),
    )
    op.create_table(
        "kept_calls",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=64)),
        sa.Column("session_id", sa.String(length=64)),
        sa.Column("run_id", sa.String(length=64)),
        sa.Column("operation", sa.String(length=32), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_kept_calls")),
    )
    op.create_index(
        "ix_kept_calls_project_id_created_at_id",
        "kept_calls",
        ["project_id", "created_at", "id"],
        unique=False,
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("kept_calls")
    op.drop_table("call_policies")
