"""Tables of files."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, String, Table, Text

from stationmaster.storage.schema import metadata

files = Table(
    "files",
    metadata,
    Column("id", String(64), primary_key=True),  # also the name of its bytes in the depot
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("media_type", String(255), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("scope_id", String(64)),  # the session that made it
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Index("ix_files_project_id_id", "project_id", "id"),
    Index("ix_files_scope_id", "scope_id"),
    Index("ix_files_expires_at", "expires_at"),
)

# What a project's files take together. Raised and lowered with them, so that two uploads at once
# cannot both fit into what is left for one.
file_usage = Table(
    "file_usage",
    metadata,
    Column("project_id", String(64), primary_key=True),
    Column("organization_id", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    CheckConstraint("size >= 0", name="size_not_negative"),
)
