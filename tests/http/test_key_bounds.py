"""What a key is held to: its scopes' names, profile, models, addresses; changed and rotated."""

from typing import Any

import pytest

from stationmaster.agents.scripted import WaitFor
from stationmaster.kernel.clock import iso
from tests.http.conftest import House

CALL = {"model": "haiku", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello."}]}
DAY_S = 86_400


async def new_key(house: House, by: str | None = None, **fields: Any) -> Any:
    headers = house.as_key(by) if by else None
    body = {"name": "made", **fields}
    answer = await house.client.post("/api/admin/keys", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def status(house: House, key: str, path: str = "/v1/tasks") -> int:
    return (await house.client.get(path, headers=house.as_key(key))).status_code


# --- scopes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("write:task", "write:tasks"),
        ("read:session", "read:sessions"),
        ("read_message", "read:rooms"),
        ("Write:Messages", "write:messages"),
        ("admin:api_key", "admin:keys"),
        ("reed:*", "read:*"),
    ],
)
async def test_a_wrong_scope_is_refused_with_the_nearest(
    house: House, wrong: str, right: str
) -> None:
    body = {"name": "abc", "permissions": [wrong]}
    answer = await house.client.post("/api/admin/keys", json=body)
    assert answer.status_code == 400
    assert answer.json()["code"] == "unknown_scope"
    assert f"the nearest is {right!r}" in answer.json()["detail"]


async def test_names_of_the_guides_mean_ours(house: House) -> None:
    key = await new_key(
        house,
        permissions=["read:sessions", "read:api_keys", "send_messages", "read:security_events"],
    )
    assert key["permissions"] == ["admin:audit", "list:keys", "read:sessions", "write:rooms"]
    assert await status(house, key["key"], "/api/admin/keys") == 200
    made = await house.client.post(
        "/api/admin/keys", json={"name": "abc"}, headers=house.as_key(key["key"])
    )
    assert made.status_code == 403


# --- showing and changing ---------------------------------------------------------------------


async def test_a_key_is_shown_and_changed(house: House) -> None:
    key = await new_key(house, rate_limit=100, profile="pro", models=["haiku"])
    here = f"/api/admin/keys/{key['id']}"
    shown = (await house.client.get(here)).json()
    assert shown == {name: value for name, value in key.items() if name != "key"}
    assert shown["profile"]["allowed_tools"] == ["Read", "Grep", "Glob", "Bash"]
    assert shown["profile"]["max_cost_per_task"] == 1.0
    assert (shown["rate_limit"], shown["models"], shown["addresses"]) == (100, ["haiku"], None)

    changed = await house.client.patch(
        here,
        json={
            "name": "other",
            "models": None,
            "profile": "free",
            "profile_changes": {"max_memory_gb": 2, "network_access": True},
            "expires_in_days": 3,
        },
    )
    body = changed.json()
    assert changed.status_code == 200, changed.text
    assert (body["name"], body["models"], body["rate_limit"]) == ("other", None, 100)
    assert body["profile"]["name"] == "free"
    assert (body["profile"]["max_memory_gb"], body["profile"]["network_access"]) == (2.0, True)
    assert body["expires_at"] is not None
    cleared = (await house.client.patch(here, json={"expires_in_days": None})).json()
    assert (cleared["expires_at"], cleared["profile"]) == (None, body["profile"])
    assert (await house.client.patch(here, json={"limits": None})).json()["limits"] == {}

    assert await status(house, key["key"]) == 200
    await house.client.patch(here, json={"enabled": False})
    assert await status(house, key["key"]) == 401
    listed = (await house.client.get("/api/admin/keys")).json()
    assert listed["statistics"]["inactive"] == 1
    await house.client.patch(here, json={"enabled": True})
    assert await status(house, key["key"]) == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "ab"}, "validation_failed"),
        ({"permissions": ["write:task"]}, "unknown_scope"),
        ({"permissions": []}, "validation_failed"),
        ({"expires_in_days": 0}, "validation_failed"),
        ({"profile": "gold"}, "invalid_request"),
        ({"addresses": ["10.0.0.1/8"]}, "invalid_request"),
        ({"hash": "x"}, "validation_failed"),
    ],
)
async def test_a_wrong_change_changes_nothing(house: House, body: Any, code: str) -> None:
    key = await new_key(house)
    here = f"/api/admin/keys/{key['id']}"
    before = (await house.client.get(here)).json()
    answer = await house.client.patch(here, json=body)
    assert answer.status_code in {400, 422}
    assert answer.json()["code"] == code
    assert (await house.client.get(here)).json() == before


async def test_a_configured_key_keeps_its_name_but_may_be_bound(house: House) -> None:
    keys = (await house.client.get("/api/admin/keys")).json()["keys"]
    here = "/api/admin/keys/" + next(k["id"] for k in keys if k["name"] == "environment")
    for body in ({"name": "other"}, {"permissions": ["*"]}, {"enabled": False}):
        answer = await house.client.patch(here, json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "configured_key")
    bound = await house.client.patch(here, json={"models": ["haiku"]})
    assert bound.json()["models"] == ["haiku"]
    answer = await house.client.post(f"{here}/rotate", json={})
    assert (answer.status_code, answer.json()["code"]) == (400, "configured_key")


async def test_a_bound_key_makes_no_freer_one(house: House) -> None:
    bounds: Any = {"profile": "pro", "models": ["claude-haiku-*"], "addresses": ["127.0.0.0/8"]}
    bound = await new_key(house, permissions=["*"], rate_limit=50, **bounds)
    heir = await new_key(house, by=bound["key"])
    for name in ("profile", "models", "addresses", "rate_limit"):
        assert heir[name] == bound[name], name
    tighter = await new_key(house, by=bound["key"], models=["claude-haiku-5-5"])
    assert tighter["models"] == ["claude-haiku-5-5"]
    for wider in (
        {"profile": "enterprise"},
        {"models": ["*"]},
        {"models": ["claude-haiku-*", "claude-opus-5-5"]},
        {"addresses": ["0.0.0.0/0"]},
        {"rate_limit": 51},
    ):
        answer = await house.client.post(
            "/api/admin/keys",
            json={"name": "abc", **wider},
            headers=house.as_key(bound["key"]),
        )
        assert (answer.status_code, answer.json()["code"]) == (403, "looser_bounds"), wider
        here = f"/api/admin/keys/{heir['id']}"
        answer = await house.client.patch(here, json=wider, headers=house.as_key(bound["key"]))
        assert answer.status_code == 403, wider


# --- what is enforced -------------------------------------------------------------------------


async def test_models_hold_for_calls_and_tasks(house: House) -> None:
    key = (await new_key(house, models=["haiku"]))["key"]
    headers = house.as_key(key)
    for model, expected in (
        ("haiku", 200),
        ("claude-haiku-5-5", 200),
        ("sonnet", 403),
        ("claude-opus-5-5", 403),
    ):
        answer = await house.client.post(
            "/v1/messages", json={**CALL, "model": model}, headers=headers
        )
        assert answer.status_code == expected, answer.text
        body = {"model": model, "messages": CALL["messages"]}
        counted = await house.client.post("/v1/messages/count_tokens", json=body, headers=headers)
        assert counted.status_code == expected
        if expected == 403:
            assert answer.json()["error"]["type"] == "permission_error"
    # Nor by way of the provider's own second model.
    sneaky = {**CALL, "fallbacks": [{"model": "claude-opus-5-5"}]}
    answer = await house.client.post("/v1/messages", json=sneaky, headers=headers)
    assert answer.status_code == 403
    task = {"description": "x", "model": "opus"}
    answer = await house.client.post("/v1/task", json=task, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "model_not_allowed")


async def test_addresses_hold_on_every_way_in(house: House) -> None:
    elsewhere = (await new_key(house, addresses=["192.0.2.0/24", "2001:db8::/32"]))["key"]
    here = (await new_key(house, addresses=["127.0.0.1"]))["key"]
    for key, expected in ((elsewhere, 403), (here, 200)):
        headers = house.as_key(key)
        assert await status(house, key) == expected
        called = await house.client.post("/v1/messages", json=CALL, headers=headers)
        assert called.status_code == expected
        assert await status(house, key, "/v1/organizations/me") == expected
    headers = {**house.as_key(elsewhere), "x-forwarded-for": "192.0.2.7"}
    answer = await house.client.get("/v1/tasks", headers=headers)  # nobody's word is taken for it
    assert (answer.status_code, answer.json()["code"]) == (403, "address_not_allowed")


async def test_a_profile_holds_for_tasks(house: House) -> None:
    key = (await new_key(house, profile="free"))["key"]
    headers = house.as_key(key)

    async def task(**fields: Any) -> Any:
        body = {"description": "x", **fields}
        return await house.client.post("/v1/task", json=body, headers=headers)

    done = await task()
    assert done.status_code == 200, done.text
    spec = house.agent.launched[-1]
    assert spec.tools == ("Read",)
    assert spec.readonly
    assert spec.limits.disk_bytes == 50 * 1024**2
    assert spec.limits.memory_bytes <= 1024**3
    assert spec.limits.cpu_seconds == 30  # half a core for a minute
    for wrong, code in (
        ({"allow_tools": ["Bash"]}, "tool_not_allowed"),
        ({"allow_tools": ["Read", "Write"]}, "tool_not_allowed"),
        ({"timeout": 61}, "invalid_request"),
        ({"max_cost": 0.11}, "invalid_request"),
    ):
        answer = await task(**wrong)
        assert answer.status_code in {400, 403}, answer.text
        assert answer.json()["code"] == code
    assert (await task(allow_tools=["Read"], timeout=60, max_cost=0.1)).status_code == 200


async def test_a_high_priority_needs_a_scope_and_a_profile_that_allows_it(house: House) -> None:
    async def asked(priority: str, **fields: Any) -> Any:
        headers = house.as_key((await new_key(house, **fields))["key"])
        body = {"description": "x", "priority": priority}
        return await house.client.post("/v1/task", json=body, headers=headers)

    may: dict[str, Any] = {"permissions": ["read:tasks", "write:tasks", "use:priority"]}
    for priority, fields in (
        ("low", {}),
        ("high", may),
        ("high", {**may, "profile": "enterprise"}),
        ("normal", {"profile": "free"}),
    ):
        done = await asked(priority, **fields)
        assert done.status_code == 200, done.text
        assert done.json()["priority"] == priority
    for fields in (
        {},
        {**may, "profile": "pro"},
        {**may, "profile": "enterprise", "profile_changes": {"max_priority": "normal"}},
    ):
        refused = await asked("high", **fields)
        assert refused.status_code == 403, refused.text
        assert refused.json()["code"] == "priority_not_allowed"
    assert (await asked("urgent")).status_code == 422


async def test_a_key_has_no_more_tasks_at_once_than_its_profile_says(house: House) -> None:
    key = (await new_key(house, profile="free"))["key"]
    other = (await new_key(house, limits={"concurrent_runs": 0}))["key"]
    house.agent.script = [WaitFor()]

    async def start(of: str) -> Any:
        body = {"description": "x"}
        return await house.client.post("/v1/tasks", json=body, headers=house.as_key(of))

    first = await start(key)
    assert first.status_code == 202
    second = await start(key)
    assert (second.status_code, second.json()["code"]) == (429, "concurrent_tasks")
    assert int(second.headers["retry-after"]) > 0
    assert (await start(other)).status_code == 429
    task_id = first.json()["task_id"]
    await house.client.post(f"/v1/tasks/{task_id}/cancel", headers=house.as_key(key))
    await house.ended(task_id)
    assert (await start(key)).status_code == 202


# --- rotation ---------------------------------------------------------------------------------


async def test_a_key_is_replaced_with_an_overlap(house: House) -> None:
    key = await new_key(house, permissions=["read:tasks"], models=["haiku"], rate_limit=7)
    here = f"/api/admin/keys/{key['id']}"
    answer = await house.client.post(f"{here}/rotate", json={"overlap_days": 1})
    assert answer.status_code == 201, answer.text
    successor = answer.json()
    assert successor["key"] != key["key"]
    for name in ("name", "permissions", "models", "rate_limit", "project_id"):
        assert successor[name] == key[name]
    assert await status(house, key["key"]) == await status(house, successor["key"]) == 200
    old = (await house.client.get(here)).json()
    assert old["successor_id"] == successor["id"]
    assert old["expires_at"] <= iso(house.services.clock.now() + DAY_S * 1000)
    again = await house.client.post(f"{here}/rotate", json={})
    assert (again.status_code, again.json()["code"]) == (409, "key_rotated")
    at_once = await house.client.post(
        f"/api/admin/keys/{successor['id']}/rotate", json={"overlap_days": 0}
    )
    assert at_once.status_code == 201
    assert await status(house, successor["key"]) == 401
    collected = await house.client.post(f"/api/admin/keys/{at_once.json()['id']}/collect")
    assert (collected.status_code, collected.json()["code"]) == (409, "key_collected")
    for overlap in (-1, 91, "x", None):
        answer = await house.client.post(f"{here}/rotate", json={"overlap_days": overlap})
        assert answer.status_code == 422


async def test_nobody_takes_a_stronger_keys_rights_by_rotating_it(house: House) -> None:
    strong = await new_key(house, permissions=["*"])
    weak = await new_key(house, permissions=["admin:keys", "read:tasks"])
    headers = house.as_key(weak["key"])
    for path in ("rotate", "collect"):
        answer = await house.client.post(
            f"/api/admin/keys/{strong['id']}/{path}", json={}, headers=headers
        )
        assert answer.status_code == 403
    assert await status(house, strong["key"]) == 200
