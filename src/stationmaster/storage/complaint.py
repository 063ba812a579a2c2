"""Why a PostgreSQL server cannot be used, and what to do: a sentence for an operator.

Told by the kind of the exception and by PostgreSQL's code for it, never by its words.
"""

import os
import socket
import ssl

from sqlalchemy import URL

from stationmaster.kernel.distrust import distrust
from stationmaster.kernel.errors import Invalid, StationmasterError, Unavailable
from stationmaster.storage.address import FILES, place

_CORRECT = "Correct DATABASE_URL."
_CLOSED = (
    "the connection to {where} was closed at once. Is PostgreSQL there, and does it speak TLS if"
    " sslmode asks for it?"
)


def explain(error: BaseException, url: URL) -> StationmasterError:
    """The error to raise in the place of what the driver raised while it connected to `url`."""
    if isinstance(error, StationmasterError):
        return error
    where, orig = place(url), getattr(error, "orig", None) or error
    code, sentence = (
        _refused(str(sqlstate), where, url)
        if (sqlstate := getattr(orig, "sqlstate", None))
        else _unreached(orig, where, url)
    )
    kind = Invalid if code == "database_url" else Unavailable
    return kind(f"The database cannot be used: {sentence}", code=code)


def _refused(sqlstate: str, where: str, url: URL) -> tuple[str, str]:
    """PostgreSQL's own refusal."""
    user = url.username or "the system's user"
    if sqlstate[:2] == "08":
        return "database_unavailable", _CLOSED.format(where=where)
    if sqlstate[:2] == "28":
        return "database_denied", (
            f"PostgreSQL at {where} refuses the user {user!r}: the password is wrong, or"
            f" pg_hba.conf does not let it in. {_CORRECT}"
        )
    known = {
        "3D000": (
            "database_missing",
            f"there is no database {url.database!r} at {where}. Make it"
            f" (createdb --owner {user} {url.database}), or correct DATABASE_URL.",
        ),
        "42501": (
            "database_denied",
            f"the user {user!r} may not use the database {url.database!r} at {where}. Make it the"
            f" database's owner.",
        ),
        "53300": (
            "database_full",
            f"PostgreSQL at {where} takes no more connections. Lower DATABASE_POOL_SIZE and"
            " DATABASE_MAX_OVERFLOW, raise max_connections there, or put PgBouncer between.",
        ),
        "57P03": (
            "database_unavailable",
            f"PostgreSQL at {where} is starting up or shutting down. Try again shortly.",
        ),
    }
    fallback = (
        "database_unavailable",
        f"PostgreSQL at {where} refused with the code {sqlstate}; its log says more.",
    )
    return known.get(sqlstate, fallback)


def _unreached(error: BaseException, where: str, url: URL) -> tuple[str, str]:
    """PostgreSQL was not reached, or what answered is something else."""
    if isinstance(error, socket.gaierror):
        sentence = f"the host of {where} has no address. {_CORRECT}"
    elif isinstance(error, TimeoutError):
        sentence = f"{where} does not answer. Is it up, and does a firewall let this host through?"
    elif isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError):
        sentence = _CLOSED.format(where=where)
    elif isinstance(error, ssl.SSLError):
        sentence = _untrusted(error, where)
    elif isinstance(error, FileNotFoundError | PermissionError) and (name := _unreadable(url)):
        sentence = f"the file that {name} names in DATABASE_URL cannot be read. {_CORRECT}"
    elif isinstance(error, OSError):
        sentence = f"nothing listens at {where}. Start PostgreSQL, or correct DATABASE_URL."
    elif str(url.query.get("sslmode")).startswith("verify-") and "sslrootcert" not in url.query:
        return "database_url", (
            "to verify PostgreSQL's certificate its authority must be known. Name it in"
            " DATABASE_URL: sslrootcert=/path/of/authority.pem."
        )
    elif isinstance(error, TypeError | ValueError):
        return "database_url", f"DATABASE_URL cannot be understood. {_CORRECT}"
    else:
        sentence = _CLOSED.format(where=where)
    return "database_unavailable", sentence


def _untrusted(error: ssl.SSLError, where: str) -> str:
    """The handshake failed, or was never begun for want of what it needs."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the TLS connection to {where} failed ({error.reason or 'no reason given'})."
            " Correct sslmode and the files that DATABASE_URL names, or the server's certificate."
        )
    match distrust(error):
        case "name":
            return (
                f"the certificate of PostgreSQL at {where} is for another name. Name the host in"
                " DATABASE_URL as the certificate does, or correct that."
            )
        case "expired":
            return f"the certificate of PostgreSQL at {where} has expired. Replace it."
        case "authority":
            return (
                f"the certificate of PostgreSQL at {where} is not trusted. Name its authority in"
                " DATABASE_URL: sslrootcert=/path/of/authority.pem."
            )


def _unreadable(url: URL) -> str | None:
    """The option that names a file which is not there or may not be read."""
    for name in FILES:
        path = url.query.get(name)
        if path is not None and not os.access(str(path), os.R_OK):
            return name
    return None
