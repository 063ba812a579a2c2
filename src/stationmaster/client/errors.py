"""What can go wrong between a client and the server.

ClientError
├── ConnectionFailed         no answer: nobody listens, a cut connection, a timeout
├── UnexpectedAnswer         an answer that is not Stationmaster's
└── ApiError                 an error the server describes
    ├── InvalidRequest           400, 413, 422 and other 4xx: it can never succeed as written
    ├── AuthenticationFailed     401
    ├── PermissionDenied         403
    ├── NotFound                 404
    ├── Conflict                 409
    ├── LimitReached             429: retry later
    │   └── BudgetExceeded           ... but money is used up, and retrying cannot help
    └── ServerFailed             5xx: the server, or the model provider behind it
"""

from typing import Any

import httpx

UNAUTHENTICATED = 401
_SHOWN = 500  # characters of an answer that is not ours


class ClientError(Exception):
    """The request failed."""


class ConnectionFailed(ClientError):
    """The server did not answer."""


class UnexpectedAnswer(ClientError):
    """The answer is not one of Stationmaster's."""


class ApiError(ClientError):
    """The server refused or failed. `retry_after` is in seconds, None where it does not say."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        """`code` is stable and machine readable; `param` names the offending field."""
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id
        self.retry_after = retry_after


class InvalidRequest(ApiError):
    """The request can never succeed as written."""


class AuthenticationFailed(ApiError):
    """There is no API key, or it is not valid."""


class PermissionDenied(ApiError):
    """The API key does not permit this."""


class NotFound(ApiError):
    """There is no such object."""


class Conflict(ApiError):
    """The object's state does not allow this."""


class LimitReached(ApiError):
    """A limit is reached."""


class BudgetExceeded(LimitReached):
    """The budget does not cover this."""


class ServerFailed(ApiError):
    """The server cannot do this now."""


_BY_STATUS: dict[int, type[ApiError]] = {
    UNAUTHENTICATED: AuthenticationFailed,
    402: BudgetExceeded,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    429: LimitReached,
}
_SERVER_FAULT = 500
_REQUEST_FAULT = 400


def error_of(response: httpx.Response) -> ClientError:
    """The error that an answer stands for. The answer's body has been read."""
    if response.status_code < _REQUEST_FAULT:
        return UnexpectedAnswer(f"The server answered {response.status_code}, which is no answer.")
    problem = _problem(response)
    code = str(problem.get("code") or problem.get("type") or "unknown")
    kind = _BY_STATUS.get(response.status_code)
    if kind is None:
        kind = ServerFailed if response.status_code >= _SERVER_FAULT else InvalidRequest
    if code == "budget_exceeded":
        kind = BudgetExceeded
    param = problem.get("param")
    return kind(
        str(
            problem.get("detail")
            or problem.get("message")
            or problem.get("title")
            or f"The server answered {response.status_code}."
        ),
        status=response.status_code,
        code=code,
        param=param if isinstance(param, str) else None,
        request_id=response.headers.get("x-request-id"),
        retry_after=retry_after(response),
    )


def _problem(response: httpx.Response) -> dict[str, Any]:
    """The body of a problem (RFC 9457) or of an Anthropic-shaped error, as one flat object."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return {"detail": response.text.strip()[:_SHOWN]}
    if not isinstance(body, dict):
        return {}
    inner = body.get("error")
    return inner if isinstance(inner, dict) else body


def retry_after(response: httpx.Response) -> float | None:
    """The seconds that the answer asks to wait; None where it says nothing sensible."""
    try:
        seconds = float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return seconds if 0 <= seconds < float("inf") else None
