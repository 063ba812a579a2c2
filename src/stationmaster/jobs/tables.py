"""Tables of background work."""

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table

from stationmaster.storage.schema import Json, metadata

instances = Table(
    "instances",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("started_at", BigInteger, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("held_until", BigInteger, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("payload", Json, nullable=False),
    Column("state", String(16), nullable=False),  # waiting | running | parked
    Column("run_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("instance_id", String(64)),
    Column("error", Json),  # text that may hold what PostgreSQL's text cannot
    Column("created_at", BigInteger, nullable=False),
    Index("ix_jobs_state_run_at", "state", "run_at"),
)
