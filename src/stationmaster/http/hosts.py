"""Which names of this server a request may use."""

import re
from collections.abc import Sequence
from functools import lru_cache

from stationmaster.http.wire.exchange import RawHeaders
from stationmaster.kernel.errors import Invalid

# A host that is none of these could make a URL mean something else than the path that was routed.
_FORM = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
_ALWAYS = ("localhost", "127.0.0.1", "[::1]")


class Hosts:
    """The allow-list."""

    def __init__(self, allowed: Sequence[str]) -> None:
        """Names without ports; `*.example.com` is every name below it, `*` is any."""
        self._any = "*" in allowed
        self._names = frozenset({*_ALWAYS, *(name for name in allowed if "*" not in name)})
        self._below = tuple(name[1:] for name in allowed if name.startswith("*."))
        self._known = lru_cache(maxsize=64)(self._check)  # nearly all requests use one of a few

    def check(self, headers: RawHeaders) -> str:
        """The Host header. Raises `Invalid` where it is none, or not one of ours."""
        given: bytes | None = None
        for name, value in headers:
            if name == b"host":
                if given is not None:
                    raise Invalid("The Host header is not valid.", code="invalid_host")
                given = value
        if given is None:
            if self._any:
                return ""  # HTTP/1.0
            raise Invalid("The Host header is not valid.", code="invalid_host")
        return self._known(given)

    def _check(self, given: bytes) -> str:
        match = _FORM.fullmatch(given.decode("latin-1"))
        if match is None:
            raise Invalid("The Host header is not valid.", code="invalid_host")
        name = match[1].lower()
        if not (self._any or name in self._names or name.endswith(self._below)):
            raise Invalid("This server has no such name.", code="unknown_host")
        return match[0]
