"""Tables of idempotency keys."""

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text

from stationmaster.storage.schema import metadata

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    # A hash of the tenant, its credential, the path and the key: see `Place`.
    Column("id", String(64), primary_key=True),
    Column("organization_id", String(64), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("state", String(16), nullable=False),  # running | begun | done
    Column("attempt", String(64), nullable=False),  # who runs it: a late one changes nothing
    Column("instance_id", String(64)),  # NULL once it has given up
    Column("status", Integer),
    Column("reply", Text),  # sealed
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("ix_idempotency_keys_expires_at", "expires_at"),
)
