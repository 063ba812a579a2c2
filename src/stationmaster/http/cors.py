"""Pages of other origins: only those on the list may use the API from a browser."""

import re
from collections.abc import Sequence

from stationmaster.http.wire.exchange import RawHeaders, Scope
from stationmaster.kernel.errors import Denied

METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
EXPOSED = (
    b"request-id, x-request-id, retry-after, x-should-retry, idempotent-replayed,"
    b" content-disposition, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset,"
    b" x-cache, age, x-stationmaster-call, x-stationmaster-provider, x-stationmaster-model,"
    b" x-stationmaster-reason, x-stationmaster-cost-usd, x-stationmaster-tokens,"
    b" x-stationmaster-ignored"
)
MAX_AGE = b"600"  # seconds that a browser need not ask again
_MAX_REQUESTED = 2048
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:\s*,\s*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")

Headers = list[tuple[bytes, bytes]]


class Cors:
    """The allow-list. It holds exact origins: there is no wildcard, for credentials are sent."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)

    def headers(self, scope: Scope) -> Headers:
        """What to add to an answer. It differs by origin, and says so to caches."""
        if not self._origins:
            return []
        found: Headers = [(b"vary", b"origin")]
        origin = _one(scope["headers"], b"origin")
        if origin in self._origins:
            found += [
                (b"access-control-allow-origin", origin),
                (b"access-control-allow-credentials", b"true"),
                (b"access-control-expose-headers", EXPOSED),
            ]
        return found

    def check_socket(self, headers: RawHeaders, host: str) -> None:
        """Raise `Denied` where a page of an origin that is not listed opens a socket.

        Browsers let every page do that, and ask nobody before. `host` is the Host header.
        """
        given = [value.strip() for name, value in headers if name == b"origin"]
        if not given:
            return  # no browser
        if len(given) == 1:
            own = given[0].partition(b"://")[2].lower() == host.lower().encode()
            if (own and host) or given[0] in self._origins:
                return
        raise Denied("Pages of other origins may not use this server.", code="foreign_origin")

    def preflight(self, scope: Scope) -> Headers | None:
        """The headers that answer a browser's OPTIONS before a request; None where it is none."""
        headers: RawHeaders = scope["headers"]
        if not _one(headers, b"origin") or not _one(headers, b"access-control-request-method"):
            return None
        answer = self.headers(scope)
        if len(answer) > 1:
            answer.append((b"access-control-allow-methods", METHODS))
            answer.append((b"access-control-max-age", MAX_AGE))
            asked = _one(headers, b"access-control-request-headers")
            if len(asked) <= _MAX_REQUESTED and _HEADER_NAMES.fullmatch(asked):
                answer.append((b"access-control-allow-headers", asked))
        return answer


def _one(headers: RawHeaders, wanted: bytes) -> bytes:
    """The header's value; empty where it is not there, or more than once."""
    found = [value for name, value in headers if name == wanted]
    return found[0].strip() if len(found) == 1 else b""
