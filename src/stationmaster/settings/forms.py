"""The forms a value can have: how it is read from text, and the words for what it must be.

A form's `parse` raises `ValueError` for anything else. The text of that error is not shown: the
form's own words are, so that a message tells what to write and never repeats a secret.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Generic, Literal, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import SecretStr

from stationmaster.kernel.money import MAX_DOLLARS, MicroDollars, to_micros

T = TypeVar("T")
Word = TypeVar("Word", bound=str)

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+|\d+(?:\.\d+)?", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([KMGT])(?:I?B)?|B)?", re.ASCII | re.IGNORECASE)
_BYTES = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}  # as Docker and the kernel count
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_KEY = re.compile(r"[!-+\--~]{16,512}")  # visible ASCII without the comma that separates a list
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,127}")

LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Form(Generic[T]):
    """How to read a value, and what to call it in "… must be …". None means: not decided here."""

    parse: Callable[[str], T | None]
    must_be: str


def _flag(text: str) -> bool:
    value = {"true": True, "yes": True, "on": True, "1": True}.get(text.lower())
    if value is None and text.lower() not in {"false", "no", "off", "0"}:
        raise ValueError(text)
    return bool(value)


FLAG: Form[bool] = Form(_flag, "true or false")


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if pattern.fullmatch(text) is None:
            raise ValueError(text)
        return text

    return parse


HOST: Form[str] = Form(_matching(_HOST), "an address or a host name, such as 127.0.0.1 or 0.0.0.0")
MODEL: Form[str] = Form(_matching(_MODEL), "the name of a model, such as sonnet")


def whole(least: int, most: int, *, noun: str = "a whole number") -> Form[int]:
    """A whole number from `least` to `most`."""

    def parse(text: str) -> int:
        if re.fullmatch(r"\d{1,12}", text, re.ASCII) is None or not least <= int(text) <= most:
            raise ValueError(text)
        return int(text)

    return Form(parse, f"{noun} from {least} to {most}")


def duration(least: str, most: str) -> Form[float]:
    """A time in seconds, from `least` to `most`."""
    shortest, longest = _seconds(least), _seconds(most)

    def parse(text: str) -> float:
        value = _seconds(text)
        if not shortest <= value <= longest:
            raise ValueError(text)
        return value

    return Form(parse, f"a duration from {least} to {most}, such as 30s or 5m (or plain seconds)")


def whole_seconds(least: str, most: str) -> Form[int]:
    """A time in seconds, rounded up to whole ones."""
    form = duration(least, most)
    return Form(lambda text: math.ceil(form.parse(text) or 0), form.must_be)


def _seconds(text: str) -> float:
    if _DURATION.fullmatch(text) is None:
        raise ValueError(text)
    parts = _DURATION_PART.findall(text)
    if not parts:
        return float(text)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def size(least: str, most: str) -> Form[int]:
    """A number of bytes, from `least` to `most`. Units are powers of 1024."""
    smallest, largest = _bytes(least), _bytes(most)

    def parse(text: str) -> int:
        value = _bytes(text)
        if not smallest <= value <= largest:
            raise ValueError(text)
        return value

    return Form(parse, f"a size from {least} to {most}, such as 256MB or 2GB (or plain bytes)")


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    number, unit = match.groups()
    return int(Decimal(number) * (_BYTES[unit.upper()] if unit else 1))


def _dollars(text: str) -> MicroDollars:
    try:
        amount = Decimal(text.removeprefix("$"))
    except InvalidOperation:
        raise ValueError(text) from None
    if not amount.is_finite() or not 0 <= amount <= MAX_DOLLARS:
        raise ValueError(text)
    return to_micros(amount)


DOLLARS: Form[MicroDollars] = Form(_dollars, "an amount of US dollars, such as 1.00")


def choice(*names: Word) -> Form[Word]:
    """One of a few words, in any case."""

    def parse(text: str) -> Word:
        found = {name.lower(): name for name in names}.get(text.lower())
        if found is None:
            raise ValueError(text)
        return found

    return Form(parse, "one of " + ", ".join(names))


def automatic(form: Form[T]) -> Form[T]:
    """`auto`, read as None, or what `form` reads."""
    return Form(
        lambda text: None if text.lower() == "auto" else form.parse(text),
        f"{form.must_be}, or auto",
    )


def _log_level(text: str) -> LogLevel | None:
    word = {"warn": "warning", "critical": "error"}.get(text.lower(), text)
    return choice(*get_args(LogLevel)).parse(word)


LOG_LEVEL: Form[LogLevel] = Form(_log_level, "one of debug, info, warning, error")


def _path(text: str) -> Path:
    if "\0" in text:
        raise ValueError(text)
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # no home directory to expand to
        raise ValueError(text) from error


PATH: Form[Path] = Form(_path, "a path")


def _paths(text: str) -> tuple[Path, ...]:
    paths = tuple(_path(part.strip()) for part in re.split(r"[,:\n]", text) if part.strip())
    if not all(path.is_absolute() for path in paths):
        raise ValueError(text)
    return paths


PATHS: Form[tuple[Path, ...]] = Form(_paths, "absolute paths, separated by commas or colons")


def _key(text: str) -> SecretStr:
    if _KEY.fullmatch(text) is None:
        raise ValueError
    return SecretStr(text)


KEY: Form[SecretStr] = Form(_key, "16 to 512 visible characters without spaces or commas")


def _keys(text: str) -> tuple[SecretStr, ...]:
    return tuple(_key(part.strip()) for part in re.split(r"[,\n]", text) if part.strip())


KEYS: Form[tuple[SecretStr, ...]] = Form(
    _keys, "keys of 16 to 512 visible characters each, separated by commas"
)


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    _ = parts.port  # raises ValueError for a port that is none
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not plain:
        raise ValueError(text)
    return text.rstrip("/")


BASE_URL: Form[str] = Form(_base_url, "an http:// or https:// address without credentials or query")


class Refused(ValueError):
    """A value of the right form that is refused. What it says, after the setting's name, is shown.

    It repeats nothing of the value that could be secret.
    """


_OTHER_DATABASES = {
    "mysql": "MySQL",
    "mariadb": "MariaDB",
    "oracle": "Oracle",
    "mssql": "SQL Server",
}


def _database_url(text: str) -> SecretStr:
    scheme, separator, rest = text.partition("://")
    dialect = scheme.partition("+")[0]
    if not separator or not rest:
        raise ValueError
    if other := _OTHER_DATABASES.get(dialect):
        raise Refused(
            f"names {other}, which is not supported: use PostgreSQL 13 or newer"
            " (postgresql://user:password@host/name) for several servers, or SQLite"
            " (sqlite:///path) for one"
        )
    if dialect in {"postgres", "postgresql"} and urlsplit(f"postgresql://{rest}").path.strip("/"):
        return SecretStr(f"postgresql://{rest}")
    if dialect == "sqlite" and rest.startswith("/") and rest.strip("/") and ":memory:" not in rest:
        return SecretStr(f"sqlite://{rest}")
    raise ValueError


DATABASE_URL: Form[SecretStr] = Form(
    _database_url, "postgresql://user:password@host/name or sqlite:///path"
)


def _replica_url(text: str) -> SecretStr:
    found = _database_url(text)
    if not found.get_secret_value().startswith("postgresql://"):
        raise ValueError
    return found


REPLICA_URL: Form[SecretStr] = Form(_replica_url, "postgresql://user:password@host/name")


def _redis_url(text: str) -> SecretStr:
    parts = urlsplit(text)
    _ = parts.port  # raises ValueError for a port that is none
    there = parts.path if parts.scheme == "unix" else parts.hostname
    if parts.scheme not in {"redis", "rediss", "unix"} or not there:
        raise ValueError
    return SecretStr(text)


REDIS_URL: Form[SecretStr] = Form(
    _redis_url, "redis://host:6379/0, rediss://:password@host or unix:///path"
)

PASSWORD: Form[SecretStr] = Form(SecretStr, "a password")


def _rabbitmq_url(text: str) -> SecretStr:
    parts = urlsplit(text)
    _ = parts.port  # raises ValueError for a port that is none
    if parts.scheme not in {"amqp", "amqps"} or not parts.hostname:
        raise ValueError
    return SecretStr(text)


RABBITMQ_URL: Form[SecretStr] = Form(
    _rabbitmq_url, "amqp://user:password@host:5672/%2F or amqps://user:password@host/name"
)

CredentialsKind = Literal["apiKey", "claudeAiOauth"]


def _credentials(text: str) -> SecretStr:
    if credentials_kind(text) is None:
        raise ValueError
    return SecretStr(text)


def credentials_kind(text: str) -> CredentialsKind | None:
    """What Claude Code credentials are: an API key, a subscription login, or not readable (None).

    Where both are there, the key counts: it is the way that Anthropic's terms allow for serving
    others.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    key, login = document.get("apiKey"), document.get("claudeAiOauth")
    if isinstance(key, str) and _KEY.fullmatch(key):
        return "apiKey"
    if key is None and isinstance(login, dict) and isinstance(login.get("accessToken"), str):
        return "claudeAiOauth"
    return None


CREDENTIALS: Form[SecretStr] = Form(
    _credentials, 'JSON with "apiKey" (an API key) or "claudeAiOauth" (a subscription login)'
)
