"""Clients with users of their own."""

from typing import Any

import pytest

from tests.http.conftest import House


async def ask(house: House, method: str, path: str, key: str, **body: Any) -> Any:
    answer = await house.client.request(
        method,
        f"/api/v1{path}",
        headers=house.as_key(key),
        json=body if method in {"POST", "PUT"} else None,
    )
    assert answer.is_success, answer.text
    view = answer.json()
    assert view["status"] == "success"
    assert set(view) == {"status", "data", "timestamp"}
    return view["data"]


async def status(house: House, method: str, path: str, key: str, **body: Any) -> int:
    answer = await house.client.request(
        method,
        f"/api/v1{path}",
        headers=house.as_key(key),
        json=body if method in {"POST", "PUT"} else None,
    )
    if not answer.is_success:
        assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code


@pytest.fixture
async def master(house: House) -> str:
    """A client's master key."""
    answer = await house.client.post(
        "/api/v1/clients", json={"name": "Acme", "description": "Rockets"}
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["data"]["master_api_key"])


async def test_a_client_is_made_shown_changed_and_ended(house: House, master: str) -> None:
    me = await ask(house, "GET", "/clients/me", master)
    assert (me["name"], me["description"]) == ("Acme", "Rockets")
    assert "key" not in str(me)
    assert (await ask(house, "PUT", "/clients/me", master, name="Acme 2"))["name"] == "Acme 2"
    assert (await ask(house, "GET", "/clients/me", master))["description"] == "Rockets"
    user = await ask(house, "POST", "/auth/user-login", master, user_id="u1")
    await ask(house, "DELETE", "/clients/me", master)
    for key in (master, user["api_key"]):
        assert await status(house, "GET", "/clients/me", key) == 401


async def test_the_servers_own_organisation_cannot_be_ended(house: House) -> None:
    answer = await house.client.delete("/api/v1/clients/me")
    assert (answer.status_code, answer.json()["code"]) == (400, "own_server")
    assert (await house.client.get("/v1/tasks")).status_code == 200


async def test_a_client_makes_no_clients(house: House, master: str) -> None:
    assert await status(house, "POST", "/clients", master, name="Other") == 403


async def test_a_new_master_key_replaces_the_old_one_at_once(house: House, master: str) -> None:
    new = (await ask(house, "POST", "/clients/regenerate-key", master))["master_api_key"]
    assert new != master
    assert await status(house, "GET", "/clients/me", master) == 401
    assert (await ask(house, "GET", "/clients/me", new))["name"] == "Acme"


async def test_a_configured_key_is_not_replaced(house: House) -> None:
    answer = await house.client.post("/api/v1/clients/regenerate-key")
    assert (answer.status_code, answer.json()["code"]) == (400, "key_of_settings")


async def test_logging_a_user_in_rotates_the_key(house: House, master: str) -> None:
    first = await ask(house, "POST", "/auth/user-login", master, user_id="u1", display_name="Una")
    assert (first["user_id"], first["display_name"]) == ("u1", "Una")
    assert first["permissions"] == ["read:rooms", "write:rooms"]
    valid = await ask(house, "GET", "/auth/validate-token", first["api_key"])
    assert (valid["valid"], valid["user_id"], valid["display_name"]) == (True, "u1", "Una")
    assert valid["permissions"] == ["read:rooms", "write:rooms"]
    second = await ask(house, "POST", "/auth/user-login", master, user_id="u1")
    assert await status(house, "GET", "/auth/validate-token", first["api_key"]) == 401
    other = await ask(house, "POST", "/auth/user-login", master, user_id="u2")
    assert await status(house, "GET", "/auth/validate-token", second["api_key"]) == 200
    assert await status(house, "GET", "/auth/validate-token", other["api_key"]) == 200


async def test_a_user_has_the_permissions_given_and_no_more(house: House, master: str) -> None:
    user = await ask(
        house,
        "POST",
        "/auth/user-login",
        master,
        user_id="u1",
        permissions=["manage_rooms", "invite_users", "read_messages"],
    )
    valid = await ask(house, "GET", "/auth/validate-token", user["api_key"])
    assert valid["permissions"] == ["admin:rooms", "invite:rooms", "read:rooms"]
    key = user["api_key"]
    assert await status(house, "POST", "/auth/user-login", key, user_id="u2") == 403
    assert await status(house, "POST", "/auth/user-logout", key, user_id="u1") == 403
    assert await status(house, "POST", "/clients/regenerate-key", key) == 403
    assert await status(house, "DELETE", "/clients/me", key) == 403
    assert await status(house, "PUT", "/clients/me", key, name="Mine") == 403
    answer = await house.client.get("/v1/tasks", headers=house.as_key(key))
    assert answer.status_code == 403


async def test_logging_out_ends_the_key(house: House, master: str) -> None:
    user = await ask(house, "POST", "/auth/user-login", master, user_id="u1")
    await ask(house, "POST", "/auth/user-logout", user["api_key"])
    assert await status(house, "GET", "/auth/validate-token", user["api_key"]) == 401
    user = await ask(house, "POST", "/auth/user-login", master, user_id="u1")
    await ask(house, "POST", "/auth/user-logout", master, user_id="u1")
    await ask(house, "POST", "/auth/user-logout", master, user_id="u1")
    assert await status(house, "GET", "/auth/validate-token", user["api_key"]) == 401


async def test_another_clients_user_is_not_there(house: House, master: str) -> None:
    mine = await ask(house, "POST", "/auth/user-login", master, user_id="u1")
    made = await house.client.post("/api/v1/clients", json={"name": "Other"})
    other = made.json()["data"]["master_api_key"]
    assert await status(house, "POST", "/auth/user-logout", other, user_id="u1") == 404
    theirs = await ask(house, "POST", "/auth/user-login", other, user_id="u1")
    mine_now = await ask(house, "GET", "/auth/validate-token", mine["api_key"])
    theirs_now = await ask(house, "GET", "/auth/validate-token", theirs["api_key"])
    assert mine_now["client_id"] != theirs_now["client_id"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user_id": ""},
        {"user_id": "x" * 256},
        {"user_id": 5},
        {"user_id": "u1", "permissions": []},
        {"user_id": "u1", "permissions": ["fly"]},
        {"user_id": "u1", "permissions": ["*"]},
        {"user_id": "u1", "display_name": ""},
        {"user_id": "u1", "more": 1},
    ],
)
async def test_wrong_logins_change_nothing(house: House, master: str, body: dict[str, Any]) -> None:
    before = await ask(house, "POST", "/auth/user-login", master, user_id="u1")
    assert await status(house, "POST", "/auth/user-login", master, **body) in {400, 422}
    assert await status(house, "GET", "/auth/validate-token", before["api_key"]) == 200


async def test_what_clients_do_is_on_their_own_record(house: House, master: str) -> None:
    user = await ask(house, "POST", "/auth/user-login", master, user_id="u1")
    await ask(house, "POST", "/auth/user-logout", master, user_id="u1")
    answer = await house.client.get("/v1/audit", headers=house.as_key(master))
    entries = answer.json()["entries"]
    assert [entry["action"] for entry in entries] == ["user.log_out", "user.log_in"]
    assert entries[1]["details"]["hint"] == user["api_key"][-4:]
    assert user["api_key"] not in answer.text
    ours = (await house.client.get("/v1/audit", params={"action": "organization.*"})).json()
    assert [entry["action"] for entry in ours["entries"]] == ["organization.create"]
