"""Tables of batches."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from stationmaster.storage.schema import Json, metadata

batches = Table(
    "batches",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),  # whose rights it has while it runs
    Column("operation", String(32), nullable=False),  # a wire format, as providers name them
    Column("headers", Json, nullable=False),  # those of the request that may go to a provider
    # entering | in_progress | canceling | ended
    Column("state", String(16), nullable=False),
    Column("details", Json),  # what its vendor's API says of it besides
    Column("total", Integer, nullable=False),
    Column("succeeded", Integer, nullable=False),
    Column("errored", Integer, nullable=False),
    Column("canceled", Integer, nullable=False),
    Column("expired", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("cancel_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("archived_at", BigInteger),  # when its results were deleted
    Column("output_file_id", String(64)),
    Column("error_file_id", String(64)),
    Column("output_at", BigInteger),  # when these were made, where its API has files
    Column("turn_at", BigInteger, nullable=False),  # when a request of it was last begun
    Index("ix_batches_project_id_id", "project_id", "id"),
    Index("ix_batches_state_turn_at", "state", "turn_at"),
)

batch_requests = Table(
    "batch_requests",
    metadata,
    Column("batch_id", String(64), ForeignKey("batches.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("custom_id", String(512), nullable=False),
    Column("body", Text, nullable=False),  # JSON as it came; empty once it is done
    # waiting | running | succeeded | errored | canceled | expired
    Column("state", String(16), nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("instance_id", String(64)),  # who runs it
    Column("status", Integer),
    Column("reply", Text),  # JSON, of a request that was answered
    UniqueConstraint("batch_id", "custom_id"),
    Index("ix_batch_requests_batch_id_state_due_at", "batch_id", "state", "due_at"),
    Index("ix_batch_requests_instance_id", "instance_id"),
)
