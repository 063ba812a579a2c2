"""Which requests are for this app. Asked of every request, so nothing heavy is imported here."""

from stationmaster.http.wire.exchange import Scope

BATCHES = "/v1/batches"
FILES = "/v1/files"
RESPONSES = "/v1/responses"
_OF_ANTHROPIC = b"anthropic-"


def is_openai(scope: Scope) -> bool:
    """Whether a request is for this app. Files are Anthropic's to clients that speak its language.

    Its SDKs send `anthropic-version` and `anthropic-beta` with every request.
    """
    path: str = scope["path"]
    if _below(path, BATCHES) or path.startswith(RESPONSES + "/"):
        return True
    if not _below(path, FILES):
        return False
    return not any(name.startswith(_OF_ANTHROPIC) for name, _ in scope["headers"])


def _below(path: str, place: str) -> bool:
    return path == place or path.startswith(place + "/")
