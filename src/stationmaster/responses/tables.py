"""Tables of kept responses."""

from sqlalchemy import BigInteger, Column, Index, String, Table, Text

from stationmaster.storage.schema import Json, metadata

kept_responses = Table(
    "kept_responses",
    metadata,
    # A hash of the tenant, who asked, and the response's id: see `_row_id`.
    Column("id", String(64), primary_key=True),
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("ancestors", Json, nullable=False),  # rows of the turns before it, the first one first
    Column("sealed", Text, nullable=False),  # its own input, and the response
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("ix_kept_responses_expires_at", "expires_at"),
)
