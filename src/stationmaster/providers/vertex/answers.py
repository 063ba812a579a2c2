"""Vertex's refusals, told as Anthropic's own API would. The model's own pass as they are."""

from typing import Literal

import msgspec

from stationmaster.providers.anthropic.errors import error_body
from stationmaster.providers.upstream import WholeBody

_TOLD_AS = {499: 504, 503: 529}


class _Status(msgspec.Struct):
    message: str = ""


class _GoogleError(msgspec.Struct):
    error: _Status


class _AnthropicError(msgspec.Struct):
    type: Literal["error"]
    error: _Status


_anthropic = msgspec.json.Decoder(_AnthropicError)
_google = msgspec.json.Decoder(_GoogleError | list[_GoogleError])


class ErrorAnswer(WholeBody):
    """A refusal."""

    LIMIT = 1024 * 1024

    def __init__(self, status: int) -> None:
        """`status` is Vertex's."""
        super().__init__()
        self._vertex = status
        self.status = _TOLD_AS.get(status, status)

    def told(self, body: bytes) -> bytes:
        """See `WholeBody.told`."""
        if self._vertex in {401, 403}:
            # Their words name the project and the account.
            return error_body(self.status, "Vertex refused this server, or its use of the model.")
        try:
            _anthropic.decode(body)
            return body
        except (msgspec.DecodeError, ValueError, RecursionError):
            return error_body(self.status, _words(body) or f"Vertex answered {self._vertex}.")


def _words(body: bytes) -> str:
    try:
        told = _google.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ""
    first = told if isinstance(told, _GoogleError) else (told or [None])[0]
    return first.error.message if first else ""
