"""The database: one way to read, one way to write, on SQLite and on PostgreSQL.

A verb's database work is a plain synchronous function over a `Transaction`. On SQLite it runs on
the one writer's thread, on PostgreSQL inside SQLAlchemy's asyncio bridge. It cannot await
anything but the database, so no transaction ever stays open across a network call, and a caller
that goes away cannot leave one half done.
"""

from stationmaster.storage.database import Database, Transaction, accompanied
from stationmaster.storage.listed import among, given, spread, spread_out
from stationmaster.storage.octets import octets
from stationmaster.storage.opening import beside, open_database
from stationmaster.storage.options import ServerOptions
from stationmaster.storage.prepared import Prepared
from stationmaster.storage.schema import Json, metadata
from stationmaster.storage.server import Survey, server_time, survey

__all__ = [
    "Database",
    "Json",
    "Prepared",
    "ServerOptions",
    "Survey",
    "Transaction",
    "accompanied",
    "among",
    "beside",
    "given",
    "metadata",
    "octets",
    "open_database",
    "server_time",
    "spread",
    "spread_out",
    "survey",
]
