"""Tables of transcripts."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from stationmaster.storage.schema import Json, metadata

transcripts = Table(
    "transcripts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("session_id", String(255), nullable=False),  # ours; what the agent's SDK calls project
    Column("history_id", String(255), nullable=False),  # the agent's own id of its session
    Column("subpath", String(512), nullable=False),  # empty for the conversation itself
    Column("head", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("closed", Boolean, nullable=False),
    # The SDK's own, kept as it is: what it lists sessions by.
    Column("summary", Json),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    UniqueConstraint(
        "organization_id",
        "project_id",
        "session_id",
        "history_id",
        "subpath",
        name="uq_transcripts_key",
    ),
)

transcript_entries = Table(
    "transcript_entries",
    metadata,
    Column("transcript_id", ForeignKey("transcripts.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("uuid", String(64)),
    # JSON in ASCII, as Python writes it: whatever the agent wrote comes back the same.
    Column("data", Text, nullable=False),
    Index("uq_transcript_entries_uuid", "transcript_id", "uuid", unique=True),
)
