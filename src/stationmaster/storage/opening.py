"""From a URL to an open database."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from stationmaster.kernel.errors import Invalid
from stationmaster.storage.database import Database


def open_database(
    url: str,
    *,
    pool_size: int = 20,
    max_overflow: int = 30,
    synchronous: Literal["FULL", "NORMAL", "OFF"] = "FULL",
    on_batch: Callable[[int], None] | None = None,
) -> Database:
    """Open `sqlite:///path` or `postgresql://…`. Nothing is connected yet on PostgreSQL."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise Invalid(
            "DATABASE_URL must look like sqlite:///path or postgresql://user@host/name."
        ) from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        from stationmaster.storage.sqlite import SqliteDatabase

        if not parsed.database or parsed.database == ":memory:":
            raise Invalid("A SQLite URL must name a file: sqlite:///path.")
        path = Path(parsed.database)
        path.parent.mkdir(parents=True, exist_ok=True)
        return SqliteDatabase(path, synchronous=synchronous, on_batch=on_batch)
    if backend in {"postgresql", "postgres"}:
        from stationmaster.storage.postgresql import PostgresDatabase

        return PostgresDatabase(
            parsed.set(drivername="postgresql+asyncpg"),
            pool_size=pool_size,
            max_overflow=max_overflow,
        )
    raise Invalid(f"The database {backend!r} is not supported; use SQLite or PostgreSQL.")
