"""Which server issued a run's token."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Of the tokens that are there nobody knows."""
    op.add_column("run_tokens", sa.Column("instance_id", sa.String(64)))


def downgrade() -> None:
    """Forget it."""
    with op.batch_alter_table("run_tokens") as table:
        table.drop_column("instance_id")
