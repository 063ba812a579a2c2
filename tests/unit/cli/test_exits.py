import pytest

from stationmaster.cli.exits import CommandError, Exit, exit_of_task, report
from stationmaster.client import (
    ApiError,
    AuthenticationFailed,
    BudgetExceeded,
    ClientError,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    LimitReached,
    NotFound,
    PermissionDenied,
    ServerFailed,
    UnexpectedAnswer,
)
from stationmaster.kernel import errors as kernel
from stationmaster.settings import Problem, SettingsError


def api(kind: type[ApiError], status: int, code: str = "") -> ApiError:
    return kind("No.", status=status, code=code)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CommandError("No.", Exit.USAGE), 2),
        (api(AuthenticationFailed, 401), 3),
        (api(PermissionDenied, 403), 3),
        (api(NotFound, 404), 4),
        (api(Conflict, 409), 5),
        (api(InvalidRequest, 422), 5),
        (api(LimitReached, 429), 6),
        (api(BudgetExceeded, 402), 6),
        (api(ServerFailed, 503, "queue_full"), 6),
        (api(ServerFailed, 502), 7),
        (ConnectionFailed("No."), 7),
        (UnexpectedAnswer("No."), 7),
        (ClientError("No."), 7),
        (kernel.Invalid("No."), 5),
        (kernel.TooLarge("No."), 5),
        (kernel.Unauthenticated("No."), 3),
        (kernel.Denied("No."), 3),
        (kernel.NotFound("No."), 4),
        (kernel.Conflict("No."), 5),
        (kernel.Exhausted("No."), 6),
        (kernel.BudgetExceeded("No."), 6),
        (kernel.Unavailable("No."), 7),
        (kernel.UpstreamTimeout("No."), 7),
        (FileNotFoundError(2, "No such file or directory", "x"), 5),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("x"), 70),
    ],
)
def test_each_error_has_its_code(error: BaseException, code: int) -> None:
    found = report(error)
    assert found.code == code
    assert found.message.endswith((".", "--key-file."))


def test_wrong_settings_have_a_code_of_their_own() -> None:
    error = SettingsError((Problem("PORT", "PORT must be a port number", "from .env line 3"),))
    found = report(error)
    assert found.code == 78
    assert "PORT must be a port number (from .env line 3)" in found.message


def test_a_missing_key_says_what_to_do() -> None:
    assert "STATIONMASTER_API_KEY" in report(api(AuthenticationFailed, 401)).message
    assert "STATIONMASTER_API_KEY" not in report(api(PermissionDenied, 403)).message


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("completed", 0),
        ("failed", 1),
        ("cancelled", 1),
        ("timeout", 6),
        ("cost_exceeded", 6),
        ("interrupted", 7),
        ("something new", 1),
    ],
)
def test_each_end_of_a_task_has_its_code(status: str, code: int) -> None:
    assert exit_of_task(status) == code
