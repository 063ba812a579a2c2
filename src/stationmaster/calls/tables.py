"""Tables of calls that are kept."""

from sqlalchemy import BigInteger, Column, Index, String, Table, Text

from stationmaster.storage.schema import Json, metadata

call_policies = Table(
    "call_policies",
    metadata,
    Column("project_id", String(64), primary_key=True),
    Column("organization_id", String(64), nullable=False),
    Column("policy", Json, nullable=False),  # see `Policy`
    Column("changed_at", BigInteger, nullable=False),
)

kept_calls = Table(
    "kept_calls",
    metadata,
    Column("id", String(128), primary_key=True),  # the call's in the ledger
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("user_id", String(64)),
    Column("session_id", String(64)),
    Column("run_id", String(64)),
    Column("operation", String(32), nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("sealed", Text, nullable=False),  # request and answer, redacted
    Index("ix_kept_calls_project_id_created_at_id", "project_id", "created_at", "id"),
)
