"""The address of a PostgreSQL server: from a URL to what the driver takes, and to words."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from stationmaster.kernel.errors import Invalid

_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
FILES = ("sslrootcert", "sslcert", "sslkey")
_TLS = ("sslmode", *FILES)
_KNOWN = frozenset({"host", "port", "ssl", *_TLS})
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
    if parsed.query.get("sslmode", "prefer") not in _MODES:
        raise Invalid(f"The sslmode in DATABASE_URL must be one of: {', '.join(_MODES)}.")
    ports = str(parsed.query.get("port", parsed.port or 5432)).split(",")
    if not all(each.isdecimal() and 0 < int(each) < 65536 for each in ports):
        raise Invalid("The port in DATABASE_URL must be a number from 1 to 65535.")
    return parsed.set(drivername="postgresql+asyncpg")


def arguments(url: URL) -> dict[str, Any]:
    """What asyncpg's `connect` takes for this address."""
    [_, found] = url.get_dialect()().create_connect_args(url)
    return for_driver(found)


def for_driver(found: Mapping[str, Any]) -> dict[str, Any]:
    """What SQLAlchemy finds in a URL, as asyncpg takes it: libpq's words for TLS in a URL alone."""
    rest = {name: value for name, value in found.items() if name not in _TLS}
    tls = {name: found[name] for name in _TLS if name in found}
    return {**rest, "dsn": f"postgresql://?{urlencode(tls)}"} if tls else rest


def place(url: URL) -> str:
    """Where the server is, for people: no user, no password."""
    host = url.query.get("host") or url.host or "localhost"
    shown = host if isinstance(host, str) else ", ".join(host)
    return f"{shown}:{url.port or 5432}" if not shown.startswith("/") else shown
