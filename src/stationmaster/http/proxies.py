"""Who a request comes from, where proxies stand in front: believed from our own proxies alone.

`X-Forwarded-For` and `X-Forwarded-Proto` are read, and RFC 7239's `Forwarded` is not: a proxy that
writes the ones passes on what its client wrote in the other, and that must not be believed.
"""

import ipaddress
from collections.abc import Sequence

from stationmaster.http.wire.exchange import RawHeaders, Scope

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_HOPS = 20  # addresses looked at in one header
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class Proxies:
    """Reads what trusted proxies say of the client."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)

    def apply(self, scope: Scope) -> None:
        """Set the scope's client and scheme to the real ones.

        The client is the last address that is not a trusted proxy's: what stands before it was
        written by the client, and may be anything.
        """
        peer = scope.get("client")
        if not self._trusted or peer is None or not self._knows(_address(peer[0])):
            return
        headers: RawHeaders = scope["headers"]
        for value in _values(headers, b"x-forwarded-for"):
            address = _address(value)
            if address is None:
                break
            scope["client"] = (str(address), 0)
            if not self._knows(address):
                break
        for value in _values(headers, b"x-forwarded-proto")[:1]:  # the nearest proxy's word
            if (scheme := _SCHEMES.get(value.lower())) is not None:
                scope["scheme"] = _like(scope, scheme)

    def _knows(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


def secure(scope: Scope) -> bool:
    """Whether the client speaks TLS, to us or to a trusted proxy."""
    return scope.get("scheme") in {"https", "wss"}


def _like(scope: Scope, scheme: str) -> str:
    if scope["type"] != "websocket":
        return scheme
    return "wss" if scheme == "https" else "ws"


def _values(headers: RawHeaders, wanted: bytes) -> list[str]:
    """The header's values, all its lines together, the nearest proxy's first."""
    lines = [value.decode("latin-1") for name, value in headers if name == wanted]
    parts = [part.strip() for part in ",".join(lines).split(",")] if lines else []
    return parts[::-1][:MAX_HOPS]


def _address(text: str) -> Address | None:
    bare = text.strip()
    if bare.startswith("["):  # [2001:db8::1]:443
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:  # 192.0.2.1:443
        bare = bare.partition(":")[0]
    try:
        found = ipaddress.ip_address(bare)
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped or found
