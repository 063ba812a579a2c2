"""Where the request under way comes from, for what is written far from any transport."""

from contextvars import ContextVar, Token
from dataclasses import dataclass

from stationmaster.kernel.principal import Principal


@dataclass(slots=True)
class Origin:
    """A request from outside. `principal` is filled in once it is known who asks."""

    address: str | None = None
    request_id: str | None = None
    principal: Principal | None = None


_CURRENT: ContextVar[Origin] = ContextVar("stationmaster_origin")
_NOWHERE = Origin()  # the server itself: nothing writes to this one


def current() -> Origin:
    """The origin of what goes on now. In a thread of the database it is not known: ask before."""
    return _CURRENT.get(_NOWHERE)


def begin(origin: Origin) -> Token[Origin]:
    """A request begins."""
    return _CURRENT.set(origin)


def end(token: Token[Origin]) -> None:
    """It is over."""
    _CURRENT.reset(token)


def identify(principal: Principal) -> None:
    """It is known who asks. Without a request under way nothing happens."""
    origin = _CURRENT.get(None)
    if origin is not None:
        origin.principal = principal
