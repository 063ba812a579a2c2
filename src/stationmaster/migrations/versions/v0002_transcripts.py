"""Tables of transcripts."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "transcripts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("session_id", sa.String(length=255), nullable=False),
        sa.Column("history_id", sa.String(length=255), nullable=False),
        sa.Column("subpath", sa.String(length=512), nullable=False),
        sa.Column("head", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transcripts")),
        sa.UniqueConstraint(
            "organization_id",
            "project_id",
            "session_id",
            "history_id",
            "subpath",
            name="uq_transcripts_key",
        ),
    )
    op.create_table(
        "transcript_entries",
        sa.Column("transcript_id", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("organization_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("uuid", sa.String(length=64), nullable=True),
        sa.Column("data", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["transcript_id"],
            ["transcripts.id"],
            name=op.f("fk_transcript_entries_transcript_id"),
        ),
        sa.PrimaryKeyConstraint("transcript_id", "seq", name=op.f("pk_transcript_entries")),
    )
    op.create_index(
        "uq_transcript_entries_uuid", "transcript_entries", ["transcript_id", "uuid"], unique=True
    )


def downgrade() -> None:
    """Drop them, and every history that agents have."""
    op.drop_index("uq_transcript_entries_uuid", table_name="transcript_entries")
    op.drop_table("transcript_entries")
    op.drop_table("transcripts")
