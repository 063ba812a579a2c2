"""Who asks: whatever stands in a credential's header, on every route and on every way to refuse."""

import itertools
from typing import Any

import httpx
import pytest

from stationmaster.access.roles import ORGANIZATION_SCOPES
from stationmaster.kernel.errors import Unavailable
from tests.http.conftest import ADMIN, House, Open
from tests.http.test_authorization_matrix import OPEN, ROWS, new_key
from tests.threats.asking import ask

ATTACKS = (
    "' OR 1=1 --",
    "'; DROP TABLE api_keys; --",
    '" OR ""="',
    "x') UNION SELECT hash FROM api_keys --",
    "sm_live_' OR '1'='1",
    "%",
    "_" * 24,
    "{{7*7}}${7*7}",
    "../../../etc/passwd",
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",
    "eyJhbGciOiJIUzI1NiIsImtpZCI6IicgT1IgMT0xIn0.e30.x",
    "Bearer Bearer x",
    "null",
    "x" * 8000,
    "\xff\xfe\xfd",
    ADMIN[:-1],
    ADMIN.upper(),
)
HEADERS = ("authorization", "x-api-key", "api-key")
EACH = 2  # attacks on each route; over the routes every attack stands in every header

KNOWN_TO_ALL = (
    "admin", "password", "changeme", "change-me", "secret", "test", "default", "stationmaster",
    "sk-1234", "sk-test", "admin-key", "your-api-key", "your-secret-key-here", "dev-key", "0" * 32,
    "sm_live_", "test-key-1234567890",
)  # fmt: skip


def standing_in(header: str, secret: str) -> list[tuple[bytes, bytes]]:
    value = f"Bearer {secret}" if header == "authorization" else secret
    return [(header.encode(), value.encode("latin-1"))]


async def test_no_text_in_a_credential_opens_or_breaks_a_route(house: House) -> None:
    wrong = []
    attacks = itertools.cycle(itertools.product(ATTACKS, HEADERS))
    async with httpx.AsyncClient(base_url=house.url, timeout=30) as client:
        for name, row in ROWS.items():
            for secret, header in itertools.islice(attacks, EACH):
                answer = await ask(client, name, headers=standing_in(header, secret))
                refused = answer.status_code == 401 or (
                    row.scopes == OPEN and answer.status_code < 500
                )
                if not refused or (len(secret) > 6 and secret in answer.text):
                    wrong.append((name, header, secret[:40], answer.status_code, answer.text[:200]))
    assert wrong == []


@pytest.mark.parametrize("header", HEADERS)
async def test_nor_where_a_request_is_refused_for_another_reason(
    house: House, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flaw that was exploited stood in the handling of an error."""
    asked = [("GET", "/v1/nothing"), ("PUT", "/v1/tasks"), ("GET", "/v1/messages")]
    async with httpx.AsyncClient(base_url=house.url, timeout=30) as client:
        for secret in ATTACKS:
            raw = standing_in(header, secret)
            for method, path in asked:
                answer = await client.request(method, path, headers=raw)
                assert answer.status_code in {401, 404, 405}, (secret, answer.text)
            for other in HEADERS:  # two credentials
                if other != header:
                    two = [*raw, *standing_in(other, ADMIN)]
                    answer = await client.get("/v1/tasks", headers=two)
                    assert answer.status_code == 401, (secret, answer.text)

        async def away(*_: Any) -> Any:
            raise Unavailable("The database does not answer.", code="database_unavailable")

        monkeypatch.setattr(house.services.resolver._database, "read", away)
        for secret in ATTACKS:
            for path in ("/v1/tasks", "/v1/agents", "/v1/organizations/users"):
                answer = await client.get(path, headers=standing_in(header, secret))
                assert answer.status_code in {401, 503}, (secret, answer.text)
            answer = await client.post(
                "/v1/messages", headers=standing_in(header, secret), json={"model": "haiku"}
            )
            assert answer.status_code in {401, 503}, (secret, answer.text)


async def test_nor_where_there_were_too_many(open_house: Open) -> None:
    async with open_house(RATE_LIMIT_FAILURES="5/minute") as house:
        for secret in [f"wrong-key-{number:020}" for number in range(20)]:
            await house.client.get("/v1/tasks", headers=house.as_key(secret))
        async with httpx.AsyncClient(base_url=house.url) as client:
            for secret in ATTACKS:
                answer = await client.get("/v1/tasks", headers=standing_in("x-api-key", secret))
                assert answer.status_code in {401, 429}, (secret, answer.text)


ENDS_ITSELF = {"POST /api/v1/clients/regenerate-key", "DELETE /api/v1/clients/me"}


async def test_a_key_means_the_same_in_each_header_on_every_route(house: House) -> None:
    """A restriction that holds for one header alone is none."""
    key = (await new_key(house, ORGANIZATION_SCOPES["viewer"]))["key"]
    differing = []
    async with httpx.AsyncClient(base_url=house.url, timeout=30) as client:
        for name in ROWS.keys() - ENDS_ITSELF:
            told = {
                header: (await ask(client, name, headers=standing_in(header, key))).status_code
                for header in HEADERS
            }
            if len(set(told.values())) != 1:
                differing.append((name, told))
    assert differing == []


@pytest.mark.parametrize("name", ["api_key", "key", "token", "access_token", "x-api-key"])
async def test_a_key_in_the_url_is_none(house: House, name: str) -> None:
    """URLs stand in logs and histories."""
    async with httpx.AsyncClient(base_url=house.url) as client:
        for path in ("/v1/tasks", "/v1/agents", "/v1/organizations/users"):
            answer = await client.get(path, params={name: ADMIN})
            assert answer.status_code == 401
        answer = await client.post("/v1/messages", params={name: ADMIN}, json={})
        assert answer.status_code == 401


async def test_no_credential_that_everybody_knows_opens_anything(open_house: Open) -> None:
    """With nothing configured a key is asked for, and it is no known one."""
    async with (
        open_house(ADMIN_API_KEY="", API_KEYS="", RATE_LIMIT_ENABLED="false") as house,
        httpx.AsyncClient(base_url=house.url) as client,
    ):
        assert (await client.get("/v1/tasks")).status_code == 401
        for secret, header in itertools.product(KNOWN_TO_ALL, HEADERS):
            answer = await client.get("/v1/tasks", headers=standing_in(header, secret))
            assert answer.status_code == 401, secret
        login = {"email": "admin@example.org", "password": "admin"}
        answer = await client.post("/v1/auth/login", json=login)
        assert answer.status_code in {400, 401, 422}
