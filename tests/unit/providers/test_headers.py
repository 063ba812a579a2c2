import pytest

from stationmaster.providers.headers import to_client, to_provider


@pytest.mark.parametrize(
    "name",
    [
        "Anthropic-Version",
        "anthropic-beta",
        "anthropic-something-new",
        "Accept",
        "Content-Type",
        "User-Agent",
    ],
)
def test_what_the_provider_understands_passes_to_it(name: str) -> None:
    assert to_provider([(name, "value")]) == ((name.lower(), "value"),)


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "x-api-key",
        "API-Key",
        "Cookie",
        "Host",
        "Connection",
        "Content-Length",
        "Transfer-Encoding",
        "Accept-Encoding",
        "Proxy-Authorization",
        "X-Forwarded-For",
        "anthropic-api-key",
        "anthropic-auth-token",
        "anthropic-organization-id",
        "anthropic-workspace-id",
    ],
)
def test_credentials_and_the_connection_do_not_pass_to_the_provider(name: str) -> None:
    assert to_provider([(name, "value")]) == ()


@pytest.mark.parametrize(
    "name",
    [
        "Content-Type",
        "request-id",
        "Retry-After",
        "retry-after-ms",
        "x-should-retry",
        "anthropic-ratelimit-tokens-remaining",
        "x-vendor-something-new",
    ],
)
def test_what_tells_of_the_answer_passes_to_the_client(name: str) -> None:
    assert to_client([(name, "value")]) == ((name.lower(), "value"),)


@pytest.mark.parametrize(
    "name",
    [
        "Set-Cookie",
        "Content-Length",
        "Content-Encoding",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "WWW-Authenticate",
        "Location",
        "anthropic-organization-id",
        "Access-Control-Allow-Origin",
        "CF-Ray",
        "X-Stationmaster-Cost-USD",
    ],
)
def test_what_tells_of_the_connection_or_the_account_does_not(name: str) -> None:
    assert to_client([(name, "value")]) == ()


def test_a_providers_id_of_the_request_has_one_name() -> None:
    assert to_client([("X-Request-Id", "theirs"), ("a", "b")]) == (
        ("a", "b"),
        ("request-id", "theirs"),
    )
    both = [("request-id", "theirs"), ("x-request-id", "another")]
    assert to_client(both) == (("request-id", "theirs"),)
