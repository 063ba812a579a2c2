"""What every line of the log says while a request is under way: its id, and who asks.

One variable holds all of it for the whole request. Tasks that a request begins keep it.
"""

from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar, Token

from structlog.contextvars import merge_contextvars
from structlog.typing import EventDict, WrappedLogger

Fields = MutableMapping[str, str]

_ABOUT: ContextVar[Fields] = ContextVar("stationmaster_about")
_NOTHING: Mapping[str, str] = {}


def begin(fields: Fields) -> Token[Fields]:
    """A request begins. `fields` are kept, and added to."""
    return _ABOUT.set(fields)


def end(token: Token[Fields]) -> None:
    """It is over."""
    _ABOUT.reset(token)


def add(name: str, value: str) -> None:
    """Say this too from now on. Without a request under way nothing happens."""
    fields = _ABOUT.get(None)
    if fields is not None:
        fields[name] = value


def fields() -> Mapping[str, str]:
    """What is said now."""
    return _ABOUT.get(_NOTHING)


def merge(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Structlog's processor: what was bound with `structlog.contextvars`, and then this."""
    event = merge_contextvars(logger, method, event)
    for name, value in _ABOUT.get(_NOTHING).items():
        event.setdefault(name, value)
    return event
