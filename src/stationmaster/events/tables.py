"""Tables of the book."""

from sqlalchemy import BigInteger, Column, Integer, String, Table, Text

from stationmaster.storage.schema import Json, metadata

streams = Table(
    "streams",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("organization_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("head", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("stream_id", String(64), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("type", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("data", Json, nullable=False),
)
