"""Sign-in over HTTP."""

from collections.abc import Mapping
from typing import Any

import httpx
import jwt
import pytest
from sqlalchemy import insert

from stationmaster.access.tables import users
from stationmaster.kernel.ids import new_id
from stationmaster.storage import open_database
from tests.http.conftest import ADMIN, House, Open

EMAIL, PASSWORD = "ada@example.com", "correct horse battery"


async def person(
    house: House, email: str = EMAIL, *, role: str = "member", organization: str = "org_default"
) -> str:
    user_id = new_id("user")
    row = {
        "id": user_id,
        "organization_id": organization,
        "email": email,
        "name": "Ada",
        "role": role,
        "status": "active",
        "created_at": 1,
    }
    database = open_database(house.settings.database_url.get_secret_value())
    await database.write(lambda tx: tx.execute(insert(users), row))
    await database.close()
    answer = await house.client.put(
        f"/v1/auth/users/{user_id}/password", json={"password": PASSWORD}
    )
    assert answer.status_code == 200, answer.text
    return user_id


async def login(house: House, **fields: Any) -> httpx.Response:
    body = {"email": EMAIL, "password": PASSWORD, **fields}
    return await house.client.post("/v1/auth/login", json=body, headers=house.as_key(None))


async def tokens(house: House) -> Any:
    return (await login(house)).raise_for_status().json()


def bearer(grant: Mapping[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {grant['access_token']}"}


async def test_a_user_signs_in_works_and_signs_out(house: House) -> None:
    user_id = await person(house)
    answer = await login(house)
    assert answer.headers["cache-control"] == "no-store"
    grant = answer.json()
    assert grant["token_type"] == "Bearer"
    assert (grant["expires_in"], grant["refresh_expires_in"]) == (3600, 30 * 86400)
    assert (grant["user_id"], grant["project_id"]) == (user_id, "proj_default")
    me = (await house.client.get("/v1/auth/me", headers=bearer(grant))).json()
    assert (me["kind"], me["id"], me["permissions"]) == (
        "user",
        user_id,
        ["invite:*", "read:*", "write:*"],
    )
    assert (await house.client.get("/v1/tasks", headers=bearer(grant))).status_code == 200
    assert (await house.client.get("/api/admin/keys", headers=bearer(grant))).status_code == 403
    assert (await house.client.get("/v1/audit", headers=bearer(grant))).status_code == 403
    out = await house.client.post("/v1/auth/logout", headers=bearer(grant))
    assert out.status_code == 200
    assert (await house.client.get("/v1/tasks", headers=bearer(grant))).status_code == 401
    again = await house.client.post(
        "/v1/auth/refresh", json={"refresh_token": grant["refresh_token"]}
    )
    assert again.status_code == 401


async def test_a_user_runs_a_task_and_calls_a_model(house: House) -> None:
    await person(house)
    grant = await tokens(house)
    task = await house.client.post("/v1/task", json={"description": "x"}, headers=bearer(grant))
    assert task.status_code == 200, task.text
    assert task.json()["status"] == "completed"
    call = await house.client.post(
        "/v1/messages",
        json={"model": "haiku", "max_tokens": 10, "messages": [{"role": "user", "content": "x"}]},
        headers={"x-api-key": grant["access_token"], "authorization": ""},
    )
    assert call.status_code == 200, call.text


async def test_refresh_rotates_and_reuse_ends_it(house: House) -> None:
    await person(house)
    first = await tokens(house)
    body = {"refresh_token": first["refresh_token"]}
    second = (await house.client.post("/v1/auth/refresh", json=body)).raise_for_status().json()
    assert (await house.client.get("/v1/tasks", headers=bearer(second))).status_code == 200
    answer = await house.client.post("/v1/auth/refresh", json=body)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    assert (await house.client.get("/v1/tasks", headers=bearer(second))).status_code == 401


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"password": "wrong password here"}, 401),
        ({"email": "nobody@example.com"}, 401),
        ({"organization_id": "org_none"}, 401),
        ({"project_id": "proj_none"}, 404),
        ({"password": 5}, 422),
        ({"password": "x" * 2000}, 422),
        ({"email": None}, 422),
        ({"more": 1}, 422),
    ],
)
async def test_a_wrong_sign_in(house: House, fields: dict[str, Any], status: int) -> None:
    await person(house)
    answer = await login(house, **fields)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert PASSWORD not in answer.text
    assert "x" * 100 not in answer.text


async def test_sign_ins_are_limited_by_address(open_house: Open) -> None:
    async with open_house(RATE_LIMIT_AUTH="3/hour") as house:
        for n in range(3):
            assert (await login(house, email=f"n{n}@example.com")).status_code == 401
        answer = await login(house, email="n4@example.com")
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limit_exceeded")
        assert int(answer.headers["retry-after"]) > 0
        answer = await house.client.get("/v1/auth/oidc/callback", headers=house.as_key(None))
        assert answer.status_code == 429


async def test_lockout_says_when_to_come_back(house: House) -> None:
    await person(house)
    for _ in range(5):
        assert (await login(house, password="wrong password here")).status_code == 401
    answer = await login(house)
    assert (answer.status_code, answer.json()["code"]) == (429, "locked_out")
    assert answer.headers["retry-after"] == "1"


async def test_a_password_is_changed_by_its_owner(house: House) -> None:
    await person(house)
    grant = await tokens(house)
    wrong = {"current_password": "not this at all", "new_password": "another good one"}
    answer = await house.client.post("/v1/auth/password", json=wrong, headers=bearer(grant))
    assert (answer.status_code, answer.json()["param"]) == (400, "current_password")
    right = {"current_password": PASSWORD, "new_password": "another good one"}
    answer = await house.client.post("/v1/auth/password", json=right, headers=bearer(grant))
    assert answer.status_code == 200
    assert (await house.client.get("/v1/tasks", headers=bearer(grant))).status_code == 401
    assert (await login(house)).status_code == 401
    assert (await login(house, password="another good one")).status_code == 200
    assert (await house.client.post("/v1/auth/password", json=right)).status_code == 400  # a key


async def test_another_organisations_user_is_not_there(
    house: House, stranger: dict[str, str]
) -> None:
    user_id = await person(house)
    answer = await house.client.put(
        f"/v1/auth/users/{user_id}/password", json={"password": PASSWORD}, headers=stranger
    )
    assert answer.status_code == 404
    answer = await house.client.put("/v1/auth/users/nonsense/password", json={"password": PASSWORD})
    assert answer.status_code == 404


async def test_anybody_verifies_tokens_with_the_published_keys(house: House) -> None:
    await person(house)
    grant = await tokens(house)
    answer = await house.client.get("/.well-known/jwks.json", headers=house.as_key(None))
    key = jwt.PyJWKSet.from_dict(answer.json())[
        jwt.get_unverified_header(grant["access_token"])["kid"]
    ]
    claims = jwt.decode(grant["access_token"], key, algorithms=["ES256"], audience="stationmaster")
    assert (claims["sub"], claims["iss"]) == (grant["user_id"], "stationmaster")


async def test_tokens_and_their_users_outlive_a_restart(open_house: Open) -> None:
    async with open_house() as house:
        await person(house)
        grant = await tokens(house)
    async with open_house() as house:
        assert (await house.client.get("/v1/tasks", headers=bearer(grant))).status_code == 200
        body = {"refresh_token": grant["refresh_token"]}
        assert (await house.client.post("/v1/auth/refresh", json=body)).status_code == 200


async def test_the_settings_say_how_long_tokens_live_and_who_issues_them(open_house: Open) -> None:
    async with open_house(
        ACCESS_TOKEN_EXPIRE_MINUTES="5",
        REFRESH_TOKEN_EXPIRE_DAYS="2",
        PUBLIC_URL="https://station.example",
    ) as house:
        await person(house)
        grant = await tokens(house)
        assert (grant["expires_in"], grant["refresh_expires_in"]) == (300, 2 * 86400)
        claims = jwt.decode(grant["access_token"], options={"verify_signature": False})
        assert claims["iss"] == "https://station.example"


async def test_no_secret_of_a_sign_in_is_logged(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    await person(house)
    grant = await tokens(house)
    await house.client.get("/v1/auth/me", headers=bearer(grant))
    seen = capsys.readouterr()
    for secret in (PASSWORD, grant["access_token"], grant["refresh_token"], ADMIN):
        assert secret not in seen.out + seen.err
