"""Tables of audit."""

from sqlalchemy import BigInteger, Column, Index, String, Table, Text

from stationmaster.storage.schema import metadata

# The end of each organisation's chain. Locked by whoever appends, so the chain does not fork.
audit_chains = Table(
    "audit_chains",
    metadata,
    Column("organization_id", String(64), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("organization_id", String(64), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("project_id", String(64)),
    Column("actor_kind", String(16), nullable=False),
    Column("actor_id", String(64), nullable=False),
    Column("actor_hint", String(32), nullable=False),  # the last four characters of its key
    Column("address", String(64)),
    Column("request_id", String(64)),
    Column("action", String(64), nullable=False),
    Column("target", String(128)),
    Column("outcome", String(16), nullable=False),
    Column("details", Text, nullable=False),  # JSON, kept to the byte: it is part of the hash
    Column("key_id", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("ix_audit_entries_organization_id_action_seq", "organization_id", "action", "seq"),
    Index("ix_audit_entries_organization_id_actor_id_seq", "organization_id", "actor_id", "seq"),
    Index("ix_audit_entries_at", "at"),
)

# What retention has deleted: the entries of a chain up to and with `seq`.
audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("organization_id", String(64), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("from_seq", BigInteger, nullable=False),
    Column("entry_hash", String(64), nullable=False),  # of the last entry that was deleted
    Column("at", BigInteger, nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

# What the hashes are keyed with, sealed: a stolen or edited database cannot make new ones.
audit_keys = Table(
    "audit_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("sealed", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
