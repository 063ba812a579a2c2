"""The address of a PostgreSQL server: from a URL to what the driver takes, and to words."""

from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from stationmaster.kernel.errors import Invalid

_KNOWN = frozenset({"host", "port", "ssl", "sslmode"})
INSTEAD = (
    "Use PostgreSQL 13 or newer (postgresql://user:password@host/name) for several servers, or"
    " SQLite (sqlite:///path) for one."
)


def parse(url: str) -> URL:
    """A database's URL. Raises `Invalid`, without a word of what is secret in it."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise Invalid(
            "DATABASE_URL must look like sqlite:///path or postgresql://user@host/name."
        ) from None
    backend = parsed.get_backend_name()
    if backend in {"postgresql", "postgres"}:
        return _postgresql(parsed)
    if backend != "sqlite":
        raise Invalid(
            f"The database {backend!r} is not supported. {INSTEAD}", code="database_not_supported"
        )
    return parsed


def _postgresql(parsed: URL) -> URL:
    unknown = sorted(set(parsed.query) - _KNOWN)
    if unknown:
        raise Invalid(
            f"DATABASE_URL has the option {unknown[0]!r}, which is not known here; those that are:"
            f" {', '.join(sorted(_KNOWN))}."
        )
    # libpq's word for it; the driver has its own.
    ssl = {"ssl": parsed.query["sslmode"]} if "sslmode" in parsed.query else {}
    query = {name: value for name, value in parsed.query.items() if name != "sslmode"}
    return parsed.set(drivername="postgresql+asyncpg", query={**query, **ssl})


def arguments(url: URL) -> dict[str, Any]:
    """What asyncpg's `connect` takes for this address."""
    [_, found] = url.get_dialect()().create_connect_args(url)
    return dict(found)


def place(url: URL) -> str:
    """Where the server is, for people: no user, no password."""
    host = url.query.get("host") or url.host or "localhost"
    shown = host if isinstance(host, str) else ", ".join(host)
    return f"{shown}:{url.port or 5432}" if not shown.startswith("/") else shown
