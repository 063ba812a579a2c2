"""From a URL to an open database."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Unpack

from stationmaster.kernel.errors import Invalid
from stationmaster.storage.address import parse
from stationmaster.storage.database import Database
from stationmaster.storage.options import ServerOptions


def open_database(
    url: str,
    *,
    synchronous: Literal["FULL", "NORMAL", "OFF"] = "FULL",
    on_batch: Callable[[int], None] | None = None,
    **options: Unpack[ServerOptions],
) -> Database:
    """Open `sqlite:///path` or `postgresql://…`. Nothing is connected yet on PostgreSQL.

    `options` are PostgreSQL's, the others SQLite's. Raises `Invalid` for any other URL.
    """
    parsed = parse(url)
    if options.get("echo", False):  # an engine asks for the level when it is made
        logging.getLogger("sqlalchemy.engine").setLevel(logging.INFO)
    if parsed.get_backend_name() == "sqlite":
        from stationmaster.storage.sqlite import SqliteDatabase

        if not parsed.database or parsed.database == ":memory:":
            raise Invalid("A SQLite URL must name a file: sqlite:///path.")
        path = Path(parsed.database)
        path.parent.mkdir(parents=True, exist_ok=True)
        return SqliteDatabase(path, synchronous=synchronous, on_batch=on_batch)
    from stationmaster.storage.postgresql import PostgresDatabase

    return PostgresDatabase(parsed, **options)


def beside(primary: Database, standby: Database, *, staleness: float) -> Database:
    """A primary with a standby for `Database.browse`, which may be `staleness` seconds old."""
    from stationmaster.storage.replica import ReplicatedDatabase

    return ReplicatedDatabase(primary, standby, staleness=staleness)
