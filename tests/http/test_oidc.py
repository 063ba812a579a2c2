"""Signing in at an identity provider."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from stationmaster.access import oidc_provider
from tests.http.conftest import House, Open
from tests.http.test_sign_in import bearer, person
from tests.support.identity_provider import Forger, consent, provider_process

ADA = {"sub": "ada-1", "email": "ada@example.com", "email_verified": True, "name": "Ada"}
EVE = {"sub": "eve-1", "email": "ada@example.com", "email_verified": False, "name": "Eve"}


def settings(issuer: str, **more: str) -> dict[str, str]:
    return {
        "OIDC_ISSUER": issuer,
        "OIDC_CLIENT_ID": "station",
        "OIDC_CLIENT_SECRET": "the-secret-of-the-client",
        "PUBLIC_URL": "http://localhost",
        "RATE_LIMIT_ENABLED": "false",
        **more,
    }


async def begin(house: House) -> tuple[str, str]:
    """Where the browser is sent, and its cookie."""
    answer = await house.client.get("/v1/auth/oidc/login", headers=house.as_key(None))
    assert answer.status_code == 303, answer.text
    cookie = answer.headers["set-cookie"]
    for part in ("sm_oidc=", "HttpOnly", "SameSite=lax", "Path=/v1/auth/oidc", "Max-Age=600"):
        assert part in cookie
    house.client.cookies.clear()
    return answer.headers["location"], cookie.partition(";")[0]


async def finish(house: House, cookie: str, **query: str) -> httpx.Response:
    headers = {**house.as_key(None), "cookie": cookie}
    return await house.client.get("/v1/auth/oidc/callback", params=query, headers=headers)


# --- a real provider --------------------------------------------------------------------------


async def test_a_known_user_signs_in_at_a_real_provider(open_house: Open) -> None:
    async with provider_process(ADA, EVE) as issuer, open_house(**settings(issuer)) as house:
        user_id = await person(house)
        for _ in range(2):  # found by email, then by the provider's own name for her
            there, cookie = await begin(house)
            back = urlsplit(await consent(there, "ada-1"))
            assert f"{back.scheme}://{back.netloc}" == "http://localhost"
            assert back.path == "/v1/auth/oidc/callback"
            query = {name: values[0] for name, values in parse_qs(back.query).items()}
            answer = await finish(house, cookie, **query)
            assert answer.status_code == 200, answer.text
            grant = answer.json()
            assert grant["user_id"] == user_id
            assert (await house.client.get("/v1/tasks", headers=bearer(grant))).status_code == 200
            again = await finish(house, cookie, **query)
            assert (again.status_code, again.json()["code"]) == (401, "oidc_state")
        # An address that was not verified opens nobody's door.
        there, cookie = await begin(house)
        back = urlsplit(await consent(there, "eve-1"))
        query = {name: values[0] for name, values in parse_qs(back.query).items()}
        answer = await finish(house, cookie, **query)
        assert (answer.status_code, answer.json()["code"]) == (401, "unknown_user")
        found = (await house.client.get("/v1/audit", params={"action": "user.*"})).json()["entries"]
        told = [(e["action"], e["outcome"]) for e in found]
        assert told.count(("user.sign_in", "success")) == 2
        assert told.count(("user.link_identity", "success")) == 1
        assert told[0] == ("user.sign_in", "refused")


# --- one that can be wrong --------------------------------------------------------------------


async def signing_in(house: House, forger: Forger) -> httpx.Response:
    there, cookie = await begin(house)
    state = parse_qs(urlsplit(there).query)["state"][0]
    return await finish(house, cookie, state=state, code=forger.authorize(there))


async def test_the_code_flow_with_pkce_and_the_clients_secret(open_house: Open) -> None:
    forger = Forger()
    async with forger.running() as issuer, open_house(**settings(issuer)) as house:
        user_id = await person(house)
        answer = await signing_in(house, forger)
        assert answer.status_code == 200, answer.text
        assert answer.json()["user_id"] == user_id
        assert 'sm_oidc=""' in answer.headers["set-cookie"]
        forger.claims = {"email": "another@example.com"}  # the same person with a new address
        assert (await signing_in(house, forger)).json()["user_id"] == user_id


async def test_the_providers_keys_may_change(
    open_house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc_provider, "REREAD_S", 0.0)
    forger = Forger()
    async with forger.running() as issuer, open_house(**settings(issuer)) as house:
        await person(house)
        assert (await signing_in(house, forger)).status_code == 200
        forger.rotate()
        assert (await signing_in(house, forger)).status_code == 200
        assert forger.key_reads == 2


WRONG: dict[str, dict[str, Any]] = {
    "another client": {"claims": {"aud": "somebody-else"}},
    "several clients": {"claims": {"aud": ["station", "somebody-else"]}},
    "given to another": {"claims": {"azp": "somebody-else"}},
    "another issuer": {"claims": {"iss": "https://elsewhere.example"}},
    "no nonce": {"claims": {"nonce": None}},
    "another nonce": {"claims": {"nonce": "x" * 43}},
    "expired": {"claims": {"exp": 1_000_000_000}},
    "of the future": {"claims": {"iat": 9_000_000_000}},
    "no time": {"claims": {"exp": None}},
    "no subject": {"claims": {"sub": None}},
    "an empty subject": {"claims": {"sub": ""}},
    "a long subject": {"claims": {"sub": "x" * 300}},
    "an unknown key": {"header": {"kid": "k9"}},
    "no email": {"claims": {"email": None, "sub": "new"}},
    "an email not verified": {"claims": {"email_verified": False, "sub": "new"}},
    "an email said to be verified": {"claims": {"email_verified": "true", "sub": "new"}},
    "nobody we know": {"claims": {"email": "bob@example.com", "sub": "new"}},
    "no token": {"answer": {"access_token": "x"}},
    "a token that is none": {"answer": {"id_token": "nonsense"}},
    "a token of another kind": {"answer": {"id_token": 5}},
    "a huge token": {"answer": {"id_token": "x" * 20_000}},
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_wrong_answer_signs_nobody_in(open_house: Open, wrong: str) -> None:
    forger = Forger()
    async with forger.running() as issuer, open_house(**settings(issuer)) as house:
        await person(house)
        for name, value in WRONG[wrong].items():
            setattr(forger, name, value)
        answer = await signing_in(house, forger)
        assert answer.status_code == 401, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert "access_token" not in answer.text


async def test_a_token_signed_by_others_or_with_a_shared_secret_is_refused(
    open_house: Open,
) -> None:
    forger = Forger()
    async with forger.running() as issuer, open_house(**settings(issuer)) as house:
        await person(house)
        honest = forger.key
        forger.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        assert (await signing_in(house, forger)).status_code == 401
        # A published symmetric key, as in the confusion of algorithms.
        forger.key, forger.algorithm = b"a shared secret that is long enough", "HS256"
        forger.published.append({"kty": "oct", "kid": "k1", "k": "YSBzaGFyZWQgc2VjcmV0"})
        assert (await signing_in(house, forger)).status_code == 401
        forger.key, forger.algorithm = None, "none"
        assert (await signing_in(house, forger)).status_code == 401
        forger.key, forger.algorithm = honest, "RS256"
        assert (await signing_in(house, forger)).status_code == 200


async def test_unknown_keys_do_not_make_us_ask_for_ever(open_house: Open) -> None:
    forger = Forger()
    async with forger.running() as issuer, open_house(**settings(issuer)) as house:
        await person(house)
        forger.header = {"kid": "k9"}
        for _ in range(5):
            assert (await signing_in(house, forger)).status_code == 401
        assert forger.key_reads == 1


async def test_a_state_is_good_once_in_its_browser_and_for_minutes(open_house: Open) -> None:
    forger = Forger()
    async with forger.running() as issuer, open_house(**settings(issuer)) as house:
        await person(house)
        there, cookie = await begin(house)
        state = parse_qs(urlsplit(there).query)["state"][0]
        code = forger.authorize(there)
        for wrong in ("", "sm_oidc=another", "other=1"):
            answer = await finish(house, wrong, state=state, code=code)
            assert (answer.status_code, answer.json()["code"]) == (401, "oidc_state")
            # Whoever guesses has used it up.
            there, cookie = await begin(house)
            state = parse_qs(urlsplit(there).query)["state"][0]
            code = forger.authorize(there)
        assert (await finish(house, cookie, state="x" * 43, code=code)).status_code == 401
        assert (await finish(house, cookie, state=state, code="another")).status_code == 401
        assert (await finish(house, cookie, state=state, code=code)).status_code == 401


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 400),
        ({"state": "x"}, 400),
        ({"code": "x"}, 400),
        ({"state": "x" * 5000, "code": "x"}, 400),
        ({"error": "access_denied", "state": "x"}, 401),
    ],
)
async def test_wrong_ways_back(open_house: Open, query: dict[str, str], status: int) -> None:
    forger = Forger()
    async with forger.running() as issuer, open_house(**settings(issuer)) as house:
        assert (await finish(house, "sm_oidc=x", **query)).status_code == status


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://elsewhere.example"},
        {"token_endpoint": None},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": 5},
    ],
)
async def test_a_provider_that_is_set_up_wrongly_is_not_used(
    open_house: Open, document: dict[str, Any]
) -> None:
    forger = Forger()
    forger.document = document
    async with forger.running() as issuer, open_house(**settings(issuer)) as house:
        answer = await house.client.get("/v1/auth/oidc/login")
        assert (answer.status_code, answer.json()["code"]) == (503, "oidc_misconfigured")


async def test_a_provider_that_is_away_is_503(open_house: Open) -> None:
    async with open_house(**settings("http://127.0.0.1:9")) as house:
        answer = await house.client.get("/v1/auth/oidc/login")
        assert (answer.status_code, answer.json()["code"]) == (503, "oidc_unavailable")
        assert (await house.client.get("/v1/tasks")).status_code == 200


async def test_new_people_are_made_users_where_the_operator_says_so(open_house: Open) -> None:
    forger = Forger()
    env = settings("", OIDC_NEW_USERS="viewer")
    async with forger.running() as issuer, open_house(**{**env, "OIDC_ISSUER": issuer}) as house:
        answer = await signing_in(house, forger)
        assert answer.status_code == 200, answer.text
        me = (await house.client.get("/v1/auth/me", headers=bearer(answer.json()))).json()
        assert me["permissions"] == ["read:*"]
        assert (await signing_in(house, forger)).json()["user_id"] == answer.json()["user_id"]


async def test_without_a_provider_there_is_nothing(house: House) -> None:
    for path in ("login", "callback"):
        assert (await house.client.get(f"/v1/auth/oidc/{path}")).status_code == 404
