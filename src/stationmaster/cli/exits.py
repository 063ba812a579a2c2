"""Exit codes by meaning, and the one sentence for each error.

  0  done
  1  the task failed, or was cancelled by somebody else
  2  the command line is wrong
  3  no API key, a wrong one, or one without the right
  4  there is no such object
  5  invalid input, or a conflict with how things are
  6  a limit: the task's budget or time, a rate limit, the queue
  7  the server, the agent or the model provider is not available
 70  a fault of Stationmaster
 78  the settings are wrong
130  interrupted
"""

from dataclasses import dataclass
from enum import IntEnum


class Exit(IntEnum):
    """What the process's exit code means."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    DENIED = 3
    NOT_FOUND = 4
    INVALID = 5
    LIMIT = 6
    UNAVAILABLE = 7
    FAULT = 70
    SETTINGS = 78
    INTERRUPTED = 130


class CommandError(Exception):
    """A command cannot go on. The message is for the person, one sentence."""

    def __init__(self, message: str, code: Exit) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Report:
    """What is told of an error, and with which code the process ends."""

    message: str
    code: Exit


_OF_TASK = {
    "completed": Exit.DONE,
    "failed": Exit.FAILED,
    "cancelled": Exit.FAILED,
    "timeout": Exit.LIMIT,
    "cost_exceeded": Exit.LIMIT,
    "interrupted": Exit.UNAVAILABLE,
}


def exit_of_task(status: str) -> Exit:
    """The exit code for how a task ended."""
    return _OF_TASK.get(status, Exit.FAILED)


def report(error: BaseException) -> Report:
    """The sentence and the code for anything that a command may raise."""
    if isinstance(error, CommandError):
        return Report(str(error), error.code)
    if isinstance(error, KeyboardInterrupt):
        return Report("Interrupted.", Exit.INTERRUPTED)
    found = _of_client(error) or _of_kernel(error)
    if found is not None:
        return found
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Report(f"{where}{error.strerror or error}.", Exit.INVALID)
    return Report(
        f"Something failed that should not have: {type(error).__name__}: {error}."
        " Run it again with --debug to see where, and please report it.",
        Exit.FAULT,
    )


def _of_client(error: BaseException) -> Report | None:
    from stationmaster.client import errors as client

    kinds: tuple[tuple[type[client.ClientError], Exit], ...] = (
        (client.AuthenticationFailed, Exit.DENIED),
        (client.PermissionDenied, Exit.DENIED),
        (client.NotFound, Exit.NOT_FOUND),
        (client.Conflict, Exit.INVALID),
        (client.InvalidRequest, Exit.INVALID),
        (client.LimitReached, Exit.LIMIT),
        (client.ClientError, Exit.UNAVAILABLE),
    )
    if not isinstance(error, client.ClientError):
        return None
    code = next(code for kind, code in kinds if isinstance(error, kind))
    if isinstance(error, client.ServerFailed) and error.code == "queue_full":
        code = Exit.LIMIT
    if code is Exit.DENIED and error.args and getattr(error, "status", 0) == client.UNAUTHENTICATED:
        return Report(f"{error} Set STATIONMASTER_API_KEY, or use --key-file.", code)
    return Report(str(error), code)


def _of_kernel(error: BaseException) -> Report | None:
    from stationmaster.kernel import errors as kernel

    kinds: tuple[tuple[type[kernel.StationmasterError], Exit], ...] = (
        (kernel.Invalid, Exit.INVALID),
        (kernel.Unauthenticated, Exit.DENIED),
        (kernel.Denied, Exit.DENIED),
        (kernel.NotFound, Exit.NOT_FOUND),
        (kernel.Conflict, Exit.INVALID),
        (kernel.Exhausted, Exit.LIMIT),
        (kernel.StationmasterError, Exit.UNAVAILABLE),
    )
    if not isinstance(error, kernel.StationmasterError):
        return None
    if error.error_code == "invalid_settings":
        return Report(error.message, Exit.SETTINGS)
    return Report(error.message, next(code for kind, code in kinds if isinstance(error, kind)))
