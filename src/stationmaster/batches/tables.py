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
    Column("native", Integer),  # how many of its requests go into batches of their providers
    Column("destinations", Json),  # where those go, each place once
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
    # waiting | running | submitted | succeeded | errored | canceled | expired
    Column("state", String(16), nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("instance_id", String(64)),  # who runs it
    Column("status", Integer),
    Column("reply", Text),  # JSON, of a request that was answered
    Column("destination", Integer),  # in the batch's; null where it is made as a call
    Column("submission_id", String(64)),  # with which it has gone there
    UniqueConstraint("batch_id", "custom_id"),
    Index("ix_batch_requests_batch_id_state_due_at", "batch_id", "state", "due_at"),
    Index("ix_batch_requests_instance_id", "instance_id"),
)

# What is handed over to a provider at once: requests of one batch for one model. It may outlive its
# batch, until the provider has deleted what it keeps of it.
batch_submissions = Table(
    "batch_submissions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("batch_id", String(64), nullable=False),
    Column("provider", String(64), nullable=False),
    Column("model", String(256), nullable=False),
    Column("prices", String(64), nullable=False),  # the price list
    Column("share", String(32), nullable=False),  # what part of these prices is paid
    # preparing | submitting | in_progress | ended
    Column("state", String(16), nullable=False),
    Column("size", Integer, nullable=False),  # requests that were sent
    Column("instance_id", String(64), nullable=False),  # who prepared it, and sent it
    Column("upstream_id", String(256)),  # the provider's name for it, once that is known
    Column("sent_at", BigInteger),  # when its sending was begun
    Column("next_at", BigInteger, nullable=False),  # when to look at it next
    Column("failures", Integer, nullable=False),  # in a row
    Column("counts", Json),  # by state, as the provider last said
    Column("note", Text),  # what is wrong, for its owner
    Column("created_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Index("ix_batch_submissions_state_next_at", "state", "next_at"),
    Index("ix_batch_submissions_batch_id", "batch_id"),
)
