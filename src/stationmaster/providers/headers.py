"""Which headers pass between a client and a provider. One list each way, for every provider."""

from collections.abc import Iterable
from functools import lru_cache

from stationmaster.providers.base import Headers

_TO_PROVIDER = frozenset({"accept", "content-type", "openai-beta", "user-agent"})
_NAMES = 1024  # remembered, each way
_VENDOR_PREFIX = "anthropic-"

# Names under the vendor's prefix that would carry a credential, or choose whose account pays.
_CREDENTIAL_WORDS = ("key", "token", "auth", "secret", "cookie", "organization", "workspace")

_ANTHROPICS_ID = "request-id"
_OPENAIS_ID = "x-request-id"

_NOT_TO_CLIENT = frozenset(
    {
        # hop-by-hop, and what our own server says of the body it sends
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "content-encoding",
        # about the connection to the provider, not about the answer
        "alt-svc",
        "date",
        "nel",
        "report-to",
        "server",
        "strict-transport-security",
        "via",
        "www-authenticate",
        # would act on our origin, or tell a tenant whose account this is
        "set-cookie",
        "set-cookie2",
        "clear-site-data",
        "location",
        "refresh",
        "content-security-policy",
        "anthropic-organization-id",
        "anthropic-workspace-id",
        "openai-organization",
        "openai-project",
    }
)
# The last is ours: nobody else may say what a call cost.
_NOT_TO_CLIENT_PREFIXES = ("access-control-", "cf-", "x-envoy-", "x-stationmaster-")


def to_provider(headers: Iterable[tuple[str, str]]) -> Headers:
    """What of a client's headers may pass on. Names come out in lower case."""
    return tuple([(name.lower(), value) for name, value in headers if _passes_on(name)])


def to_client(headers: Iterable[tuple[str, str]]) -> Headers:
    """What of a provider's headers may pass on. Names come out in lower case.

    `x-request-id` is this server's own: OpenAI's, of that name, goes on as Anthropic's is called.
    """
    passing = [(name.lower(), value) for name, value in headers if _passes_back(name)]
    names = [name for name, _ in passing]
    if _OPENAIS_ID in names:
        theirs = [value for name, value in passing if name == _OPENAIS_ID]
        passing = [item for item in passing if item[0] != _OPENAIS_ID]
        if _ANTHROPICS_ID not in names:
            passing.append((_ANTHROPICS_ID, theirs[0]))
    return tuple(passing)


# The names are few and come with every call; a client that invents some pushes out others, no more.
@lru_cache(maxsize=_NAMES)
def _passes_on(name: str) -> bool:
    name = name.lower()
    if name in _TO_PROVIDER:
        return True
    return name.startswith(_VENDOR_PREFIX) and not any(word in name for word in _CREDENTIAL_WORDS)


@lru_cache(maxsize=_NAMES)
def _passes_back(name: str) -> bool:
    name = name.lower()
    return name not in _NOT_TO_CLIENT and not name.startswith(_NOT_TO_CLIENT_PREFIXES)
