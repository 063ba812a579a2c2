"""What each error becomes on the wire."""

import json

import pytest

from stationmaster.http.problems import MEANINGS, respond
from stationmaster.idempotency import KeyReused
from stationmaster.kernel import errors


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (errors.Invalid("x"), 400, {}),
        (errors.TooLarge("x"), 413, {}),
        (errors.Unauthenticated("x"), 401, {"www-authenticate": "Bearer"}),
        (errors.Denied("x"), 403, {}),
        (errors.NotFound("x"), 404, {}),
        (errors.Conflict("x"), 409, {"x-should-retry": "false"}),
        (errors.BudgetExceeded("x"), 429, {"x-should-retry": "false"}),
        (errors.Exhausted("x", retry_after=2.5), 429, {"retry-after": "3"}),
        (errors.Exhausted("x"), 429, {"x-should-retry": "false"}),
        (errors.Unavailable("x", retry_after=0.2), 503, {"retry-after": "1"}),
        (errors.Upstream("x"), 502, {}),
        (errors.Upstream("x", retry_after=7), 502, {"retry-after": "7"}),
        (errors.UpstreamTimeout("x"), 504, {}),
        (errors.StationmasterError("x"), 500, {}),
        (ValueError("a secret"), 500, {}),
    ],
)
def test_every_meaning_has_a_status(error: Exception, status: int, headers: dict[str, str]) -> None:
    answer = respond(error, "req_1")
    assert answer.status_code == status
    problem = json.loads(bytes(answer.body))
    assert problem["status"] == status
    assert problem["request_id"] == "req_1"
    assert "secret" not in problem["detail"]
    told = {"retry-after", "x-should-retry", "www-authenticate"} & set(answer.headers)
    assert {name: answer.headers[name] for name in told} == headers


def test_every_class_of_errors_is_in_the_table() -> None:
    def below(kind: type[errors.StationmasterError]) -> set[type[errors.StationmasterError]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    of_the_kernel = {
        kind for kind in below(errors.StationmasterError) if kind.__module__ == errors.__name__
    }
    listed = [meaning.kind for meaning in MEANINGS]
    # Of the parts' own only those that mean something else than what they are a kind of.
    assert of_the_kernel - {errors.StationmasterError} | {KeyReused} == set(listed)
    for place, kind in enumerate(listed):  # the more special class is asked for first
        assert not any(issubclass(later, kind) for later in listed[place + 1 :])


def test_what_a_client_chose_is_bounded_and_is_text() -> None:
    answer = respond(errors.Invalid("There is no \ud800.", param="x" * 10_000), "req_1")
    problem = json.loads(bytes(answer.body))
    assert problem["detail"] == "There is no ?."
    assert len(problem["param"]) == 128
