"""Who opens a socket, as the handshake says: by a header, a sub-protocol, or a ticket.

A program sets a header, as on any request. A browser's page cannot: it offers the sub-protocols
`stationmaster` and `bearer.KEY`, or asks for a ticket and shows it in the URL. A key in the URL is
not read: proxies write URLs to their logs.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import parse_qs

from stationmaster.http.gatekeeper import Gatekeeper, credential
from stationmaster.http.wire.exchange import RawHeaders, Scope
from stationmaster.kernel.errors import Invalid, Unauthenticated
from stationmaster.kernel.principal import Principal

PROTOCOL = "stationmaster"
_BEARER = "bearer."
_MAX_PROTOCOLS = 8

Who = Callable[[], Awaitable[Principal]]
"""Asks anew who it is: a key may be revoked while the socket is open. Raises `Unauthenticated`."""


def offered(scope: Scope) -> str | None:
    """The sub-protocol to choose. Never one that carries a key: the answer is for anybody."""
    return PROTOCOL if PROTOCOL in scope.get("subprotocols", ()) else None


async def by_handshake(gatekeeper: Gatekeeper, scope: Scope, *, keyless: bool) -> Who | None:
    """Who opens it; None where the handshake does not say. A ticket is used up by this.

    Raises `Unauthenticated` where it says so twice, or a ticket is not good, and `Invalid` for a
    handshake that is none of ours.
    """
    header = credential(scope["headers"])
    protocol, ticket = _of_protocols(scope), _of_query(scope)
    if [header, protocol, ticket].count(None) < 2:
        raise Unauthenticated(
            "The handshake carries two credentials.", code="conflicting_credentials"
        )
    if ticket is not None:
        reference = await gatekeeper.take_ticket(scope, ticket)
        return partial(gatekeeper.recall, scope, reference)
    if protocol is not None:
        return partial(gatekeeper, with_key(scope, protocol))
    return partial(gatekeeper, scope) if keyless or header is not None else None


def with_key(scope: Scope, key: str) -> Scope:
    """The scope as if a header had carried the key."""
    headers: RawHeaders = [(b"x-api-key", key.encode("utf-8", "surrogatepass"))]
    return {**scope, "headers": headers}


def _of_protocols(scope: Scope) -> str | None:
    given: list[str] = list(scope.get("subprotocols", ()))
    if len(given) > _MAX_PROTOCOLS:
        raise Invalid("The handshake offers too many sub-protocols.")
    keys = [name.removeprefix(_BEARER) for name in given if name.startswith(_BEARER)]
    if not keys:
        return None
    if len(keys) > 1:
        raise Unauthenticated(
            "The handshake carries two credentials.", code="conflicting_credentials"
        )
    if PROTOCOL not in given:
        # A browser fails a handshake of which no sub-protocol was chosen.
        raise Invalid(f"Offer the sub-protocol `{PROTOCOL}` beside the key.")
    return keys[0]


def _of_query(scope: Scope) -> str | None:
    found = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("ticket", [])
    if len(found) > 1:
        raise Unauthenticated(
            "The handshake carries two credentials.", code="conflicting_credentials"
        )
    return found[0] if found else None
