"""Keys and usage over HTTP."""

from typing import Any

import pytest

from tests.http.conftest import House

CALL = {
    "model": "haiku",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Hello."}],
}


async def test_a_key_is_made_shown_once_listed_and_revoked(house: House) -> None:
    made = await house.client.post(
        "/api/admin/keys",
        json={"name": "build-server", "permissions": ["write:*"], "expires_in_days": 30},
    )
    assert made.status_code == 201
    key = made.json()
    assert key["key"].startswith("sm_live_")
    assert key["key"].endswith(key["hint"])
    assert key["permissions"] == ["write:*"]
    listed = await house.client.get("/api/admin/keys")
    assert key["key"] not in listed.text
    assert listed.json()["keys"][0] == {name: key[name] for name in key if name != "key"}
    for _ in range(2):
        revoked = await house.client.delete(f"/api/admin/keys/{key['id']}")
        assert revoked.status_code == 200
        assert revoked.json()["enabled"] is False
    assert (await house.client.get("/api/admin/keys")).json()["keys"][0]["enabled"] is False


async def test_a_new_key_may_use_the_server_unless_told(house: House) -> None:
    made = await house.client.post("/api/admin/keys", json={"name": "plain"})
    assert made.json()["permissions"] == ["read:*", "write:*"]
    assert made.json()["expires_at"] is None


async def test_a_key_cannot_revoke_itself(house: House) -> None:
    keys = (await house.client.get("/api/admin/keys")).json()["keys"]
    own = next(key["id"] for key in keys if key["name"] == "admin")
    answer = await house.client.delete(f"/api/admin/keys/{own}")
    assert (answer.status_code, answer.json()["code"]) == (400, "own_key")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "ab"},
        {"name": "a b c"},
        {"name": "abc\n"},
        {"name": "abc", "permissions": []},
        {"name": "abc", "permissions": "*"},
        {"name": "abc", "permissions": ["fly:rocket"]},
        {"name": "abc", "permissions": ["' OR 1=1"]},
        {"name": "abc", "expires_in_days": 0},
        {"name": "abc", "expires_in_days": 366},
        {"name": "abc", "expires_in_days": 1.5},
        {"name": "abc", "rate_limit": 0},
        {"name": "abc", "rate_limit": 10_001},
        {"name": "abc", "rate_limit": 5, "limits": {"requests_per_minute": 6}},
        {"name": "abc", "limits": {"requests_per_hour": 6}},
        {"name": "abc", "limits": {"burst": -1}},
        {"name": "abc", "profile": "gold"},
        {"name": "abc", "profile_changes": {"network_access": True}},
        {"name": "abc", "profile": "pro", "profile_changes": {"max_cpu_cores": 0}},
        {"name": "abc", "profile": "pro", "profile_changes": {"allowed_tools": ["*x"]}},
        {"name": "abc", "profile": "pro", "profile_changes": {"allowed_toys": []}},
        {"name": "abc", "models": ["*-haiku"]},
        {"name": "abc", "models": [""]},
        {"name": "abc", "addresses": ["nowhere"]},
        {"name": "abc", "addresses": ["10.0.0.1/8"]},
        {"name": "abc", "addresses": ["::/129"]},
        {"name": "abc", "project_id": "proj_nowhere"},
        {"name": "abc", "user_id": "user_nobody"},
        {"name": "abc", "service_account_id": "svac_nobody"},
        {"name": "abc", "user_id": "a", "service_account_id": "b"},
        {"name": "abc", "no_such_field": 1},
    ],
)
async def test_a_wrong_key_is_not_made(house: House, body: Any) -> None:
    before = (await house.client.get("/api/admin/keys")).json()
    answer = await house.client.post("/api/admin/keys", json=body)
    assert answer.status_code in {400, 404, 422}, answer.text
    assert (await house.client.get("/api/admin/keys")).json() == before


async def test_nobody_gives_a_right_that_he_lacks(house: House) -> None:
    made = await house.client.post(
        "/api/admin/keys", json={"name": "keymaster", "permissions": ["admin:keys"]}
    )
    headers = house.as_key(made.json()["key"])
    for wanted, status in (["*"], 403), (["write:tasks"], 403), (["admin:keys"], 201):
        answer = await house.client.post(
            "/api/admin/keys", json={"name": "more", "permissions": wanted}, headers=headers
        )
        assert answer.status_code == status, answer.text


async def test_keys_are_listed_in_pages(house: House) -> None:
    first = (await house.client.get("/api/admin/keys", params={"limit": 1})).json()
    assert first["has_more"]
    params = {"limit": 1, "after": first["next"]}
    second = (await house.client.get("/api/admin/keys", params=params)).json()
    assert not second["has_more"]
    assert second["next"] is None
    assert {first["keys"][0]["name"], second["keys"][0]["name"]} == {"admin", "environment"}


@pytest.mark.parametrize("period", ["day", "week", "month", None])
async def test_usage_is_what_the_ledger_says(house: House, period: str | None) -> None:
    answer = await house.client.post("/v1/messages", json=CALL)
    told = answer.json()["usage"]
    params = {} if period is None else {"period": period}
    usage = (await house.client.get("/v1/usage", params=params)).json()
    assert usage["project_id"] == "proj_default"
    assert usage["period"] == (period or "month")
    assert (usage["limit"], usage["remaining"], usage["total_calls"]) == (None, None, 1)
    ((_, part),) = usage["by_model"].items()
    assert part["input_tokens"] == told["input_tokens"]
    assert part["output_tokens"] == told["output_tokens"]
    assert (
        usage["total_tokens"]
        == part["tokens"]
        == sum(
            part[name]
            for name in ("input_tokens", "output_tokens", "cache_write_tokens", "cache_read_tokens")
        )
    )
    assert usage["total_cost"] == part["cost"] > 0
