"""Errors by meaning. Transports map a meaning to a status, an exit code or a close code.

StationmasterError
├── Invalid            the request can never succeed as written
│   └── TooLarge       ... because a size limit is passed
├── Unauthenticated    no credential, or one that is not valid
├── Denied             a valid credential without the right
├── NotFound           no such object, or another owner's
├── Conflict           the object's state forbids it
│   └── NotAsExpected      ... because it is not what the caller took it for
├── Exhausted          a limit is reached; retry after a while
│   └── BudgetExceeded     money is used up; retrying cannot help
├── Unavailable        this server cannot do it now
└── Upstream           a model provider failed or answered with an error
    └── UpstreamTimeout    ... by not answering in time
"""

from typing import Any, ClassVar


class StationmasterError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        param: str | None = None,
        **details: Any,
    ) -> None:
        """`code` is stable and machine readable; `param` names the offending input field."""
        self.message = message or (type(self).__doc__ or "").strip()
        self.error_code = code or type(self).code
        self.param = param
        self.details = details
        super().__init__(self.message)


class Invalid(StationmasterError):
    """The request is not valid."""

    code = "invalid_request"


class TooLarge(Invalid):
    """The request is too large."""

    code = "too_large"


class Unauthenticated(StationmasterError):
    """A valid API key is required."""

    code = "unauthenticated"


class Denied(StationmasterError):
    """The credential does not permit this."""

    code = "permission_denied"


class NotFound(StationmasterError):
    """There is no such object."""

    code = "not_found"


class Conflict(StationmasterError):
    """The object's state does not allow this."""

    code = "conflict"


class NotAsExpected(Conflict):
    """The object is not in the state that the caller expects."""

    code = "not_as_expected"


class Exhausted(StationmasterError):
    """A limit is reached."""

    code = "limit_reached"

    def __init__(
        self, message: str | None = None, *, retry_after: float | None = None, **kwargs: Any
    ) -> None:
        """`retry_after` is in seconds; None means that retrying cannot help."""
        super().__init__(message, **kwargs)
        self.retry_after = retry_after


class BudgetExceeded(Exhausted):
    """The budget does not cover this."""

    code = "budget_exceeded"


class Unavailable(StationmasterError):
    """The server cannot do this now."""

    code = "unavailable"

    def __init__(
        self, message: str | None = None, *, retry_after: float = 5.0, **kwargs: Any
    ) -> None:
        """`retry_after` is in seconds."""
        super().__init__(message, **kwargs)
        self.retry_after = retry_after


class Upstream(StationmasterError):
    """The model provider failed."""

    code = "upstream_error"

    def __init__(
        self,
        message: str | None = None,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        **kwargs: Any,
    ) -> None:
        """`status` is the provider's HTTP status, None where it never answered."""
        super().__init__(message, **kwargs)
        self.status = status
        self.retry_after = retry_after


class UpstreamTimeout(Upstream):
    """The model provider did not answer in time."""

    code = "upstream_timeout"
