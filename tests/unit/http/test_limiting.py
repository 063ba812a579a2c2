"""What routes count as, and how a caller's standing is told."""

import pytest

from stationmaster.http.answer import SECURITY_HEADERS, Answer
from stationmaster.http.limiting import STANDING, duration, kind_of, lines_of
from stationmaster.http.routes.app import stationmaster_api
from stationmaster.http.wire.exchange import Message, RawHeaders
from stationmaster.limits import Quota, Standing

AT = 1_800_000_000_000  # 2027-01-15T08:00:00Z


@pytest.mark.parametrize(
    ("methods", "path", "kind"),
    [
        ({"POST"}, "/v1/task", "tasks"),
        ({"POST"}, "/v1/tasks", "tasks"),
        ({"GET"}, "/v1/tasks", "read"),
        ({"GET", "HEAD"}, "/v1/tasks/{task_id}", "read"),
        ({"POST"}, "/v1/tasks/{task_id}/cancel", "write"),
        ({"GET"}, "/v1/tasks/{task_id}/events", "read"),
        ({"POST"}, "/api/admin/keys", "admin"),
        ({"GET"}, "/api/admin/keys", "admin"),
        ({"DELETE"}, "/api/admin/keys/{key_id}", "admin"),
        ({"GET"}, "/v1/usage", "analytics"),
        ({"GET"}, "/v1/usage/export", "analytics"),
        ({"GET"}, "/v1/usages", "read"),
        ({"POST"}, "/auth/user-login", "auth"),
        ({"POST"}, "/v1/auth/login", "auth"),
        ({"GET"}, "/v1/auth/oidc/callback", "auth"),
        ({"GET"}, "/v1/authors", "read"),
        ({"POST"}, "/api/v1/rooms/{room_id}/messages", "room_messages"),
        ({"GET"}, "/api/v1/rooms/{room_id}/messages", "read"),
        ({"POST"}, "/api/v1/notifications", "notifications"),
        ({"POST"}, "/v1/sessions/{session_id}/events", "write"),
    ],
)
def test_what_a_route_counts_as(methods: set[str], path: str, kind: str) -> None:
    assert kind_of(path, methods) == kind


def test_the_routes_of_the_server_count_as_they_should() -> None:
    kinds = {
        (path, method): kind_of(path, {method})
        for route in stationmaster_api().routes
        for path in [str(getattr(route, "path", ""))]
        for method in getattr(route, "methods", None) or ()
    }
    assert {key for key, kind in kinds.items() if kind == "tasks"} >= {
        ("/v1/task", "POST"),
        ("/v1/tasks", "POST"),
    }
    assert kinds["/api/admin/keys", "POST"] == "admin"


def headers_of(standing: Standing) -> dict[bytes, bytes]:
    """The headers that an answer has for it."""
    return dict(with_standing([], standing))


def with_standing(given: RawHeaders, standing: Standing) -> RawHeaders:
    answer = Answer(nowhere, state={"request_id": "req_1", STANDING: standing})
    ours = {b"request-id", b"x-request-id", *dict(SECURITY_HEADERS)}
    return [header for header in answer._with_all(200, given) if header[0] not in ours]


async def nowhere(_message: Message) -> None: ...


def test_every_vendor_is_told_in_its_own_words() -> None:
    requests = Quota(100, 42, AT + 59_001, AT)
    tokens = Quota(50_000, 7, AT + 360_000, AT)
    told = headers_of((requests, tokens, None))
    assert told == {
        b"x-ratelimit-limit": b"100",
        b"x-ratelimit-remaining": b"42",
        b"x-ratelimit-reset": b"1800000060",
        b"x-ratelimit-limit-requests": b"100",
        b"x-ratelimit-remaining-requests": b"42",
        b"x-ratelimit-reset-requests": b"1m0s",
        b"anthropic-ratelimit-requests-limit": b"100",
        b"anthropic-ratelimit-requests-remaining": b"42",
        b"anthropic-ratelimit-requests-reset": b"2027-01-15T08:01:00Z",
        b"x-ratelimit-limit-tokens": b"50000",
        b"x-ratelimit-remaining-tokens": b"7",
        b"x-ratelimit-reset-tokens": b"6m0s",
        b"anthropic-ratelimit-tokens-limit": b"50000",
        b"anthropic-ratelimit-tokens-remaining": b"7",
        b"anthropic-ratelimit-tokens-reset": b"2027-01-15T08:06:00Z",
        b"anthropic-ratelimit-input-tokens-limit": b"50000",
        b"anthropic-ratelimit-input-tokens-remaining": b"7",
        b"anthropic-ratelimit-input-tokens-reset": b"2027-01-15T08:06:00Z",
    }


def test_the_tokens_are_those_of_which_the_least_is_left() -> None:
    many, few = Quota(100, 90, AT, AT), Quota(1000, 5, AT, AT)
    for standing in ((None, many, few), (None, few, many)):
        told = headers_of(standing)
        assert told[b"x-ratelimit-remaining-tokens"] == b"5"
        assert told[b"anthropic-ratelimit-tokens-limit"] == b"1000"
        assert b"x-ratelimit-limit" not in told


def test_without_limits_there_is_nothing_to_tell() -> None:
    given = [(b"anthropic-ratelimit-requests-limit", b"4000")]
    assert lines_of((None, None, None)) == b""
    assert with_standing(given, (None, None, None)) == given


def test_a_providers_own_limits_are_not_its_clients_business() -> None:
    given = [
        (b"content-type", b"application/json"),
        (b"anthropic-ratelimit-requests-limit", b"4000"),
        (b"anthropic-ratelimit-unified-status", b"allowed"),
        (b"x-ratelimit-limit-requests", b"4000"),
    ]
    told = with_standing(given, (Quota(5, 4, AT, AT), None, None))
    assert (b"content-type", b"application/json") in told
    assert {value for name, value in told if name.endswith(b"limit")} == {b"5"}
    assert b"anthropic-ratelimit-unified-status" not in dict(told)


@pytest.mark.parametrize(
    ("millis", "text"),
    [
        (0, b"0ms"),
        (12, b"12ms"),
        (999, b"999ms"),
        (1_000, b"1s"),
        (1_001, b"2s"),
        (59_001, b"1m0s"),
        (360_000, b"6m0s"),
        (3_600_000, b"1h0m0s"),
    ],
)
def test_a_time_to_wait(millis: int, text: bytes) -> None:
    assert duration(millis) == text
