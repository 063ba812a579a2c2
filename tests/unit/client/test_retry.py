import httpx
import pytest

from stationmaster.client.retry import RetryPolicy, backoff

POLICY = RetryPolicy(max_retries=2)


def answer(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(
        status, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


@pytest.mark.parametrize(
    ("status", "repeatable", "again"),
    [
        (500, True, True),
        (502, True, True),
        (503, True, True),
        (408, True, True),
        (429, True, True),
        (400, True, False),
        (401, True, False),
        (404, True, False),
        (409, True, False),
        (500, False, False),
        (502, False, False),
        (503, False, True),
        (429, False, True),
    ],
)
def test_which_answers_are_worth_another_try(status: int, repeatable: bool, again: bool) -> None:
    pause = POLICY.after_answer(1, answer(status), repeatable=repeatable)
    assert (pause is not None) is again


def test_the_server_knows_better() -> None:
    assert POLICY.after_answer(1, answer(429, x_should_retry="false"), repeatable=True) is None
    assert POLICY.after_answer(1, answer(409, x_should_retry="true"), repeatable=False) is not None


def test_retry_after_is_kept() -> None:
    assert POLICY.after_answer(1, answer(503, retry_after="7"), repeatable=True) == 7.0


@pytest.mark.parametrize("value", ["3600", "-1", "nan", "inf", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_strange_retry_after_does_not_hang(value: str) -> None:
    pause = POLICY.after_answer(1, answer(503, retry_after=value), repeatable=True)
    assert pause is None or pause <= 8.0


def test_it_gives_up() -> None:
    assert POLICY.after_answer(2, answer(500), repeatable=True) is not None
    assert POLICY.after_answer(3, answer(500), repeatable=True) is None
    assert POLICY.after_error(3, httpx.ConnectError("no"), repeatable=True) is None


@pytest.mark.parametrize(
    ("error", "repeatable", "again"),
    [
        (httpx.ConnectError("no"), False, True),
        (httpx.ConnectTimeout("no"), False, True),
        (httpx.ReadTimeout("no"), False, False),
        (httpx.RemoteProtocolError("cut"), False, False),
        (httpx.ReadTimeout("no"), True, True),
        (httpx.UnsupportedProtocol("ftp"), True, False),
    ],
)
def test_which_failures_are_worth_another_try(
    error: httpx.TransportError, repeatable: bool, again: bool
) -> None:
    assert (POLICY.after_error(1, error, repeatable=repeatable) is not None) is again


def test_pauses_double_up_to_a_bound() -> None:
    assert all(0.25 <= backoff(1) <= 0.5 for _ in range(50))
    assert all(1.0 <= backoff(3) <= 2.0 for _ in range(50))
    assert all(backoff(40) <= 8.0 for _ in range(50))
