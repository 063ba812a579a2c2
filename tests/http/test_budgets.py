"""Budgets and usage over HTTP."""

import asyncio
import csv
import io
from typing import Any

import pytest

from tests.http.conftest import House

CALL = {
    "model": "haiku",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Hello."}],
}


async def a_key(house: House, *permissions: str) -> tuple[str, dict[str, str]]:
    body = {"name": "spender", "permissions": list(permissions or ("read:*", "write:*"))}
    made = (await house.client.post("/api/admin/keys", json=body)).json()
    return made["id"], house.as_key(made["key"])


async def a_budget(house: House, **body: Any) -> Any:
    answer = await house.client.post("/v1/budgets", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def shown(house: House, budget: Any) -> Any:
    return (await house.client.get(f"/v1/budgets/{budget['id']}")).raise_for_status().json()


async def test_a_keys_budget_is_set_spent_and_refuses(house: House) -> None:
    key_id, headers = await a_key(house)
    subject = {"type": "key", "id": key_id}
    made = await a_budget(house, subject=subject, limit_usd="0.05", period="total", mode="hard")
    assert (made["limit_usd"], made["limit_tokens"]) == ("0.05", None)
    assert (made["spent"], made["held"], made["remaining"]) == ("0.00", "0.00", "0.05")
    assert (made["subject"], made["period"], made["mode"]) == (subject, "total", "hard")
    assert await shown(house, made) == made
    answer = await house.client.post("/v1/messages", json=CALL, headers=headers)
    assert answer.status_code == 200
    after = await shown(house, made)
    assert 0 < float(after["spent"]) < 0.05
    assert after["held"] == "0.00"
    assert round(float(after["spent"]) + float(after["remaining"]), 6) == 0.05
    await house.client.patch(f"/v1/budgets/{made['id']}", json={"limit_usd": "0"})
    refused = await house.client.post("/v1/messages", json=CALL, headers=headers)
    assert refused.status_code == 402
    assert refused.json()["error"]["type"] == "billing_error"
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers
    # Other keys go on.
    assert (await house.client.post("/v1/messages", json=CALL)).status_code == 200
    listed = (await house.client.get("/v1/budgets")).json()
    assert [each["id"] for each in listed["budgets"]] == [made["id"]]
    gone = await house.client.delete(f"/v1/budgets/{made['id']}")
    assert (gone.status_code, gone.json()["id"]) == (200, made["id"])
    assert (await house.client.get(f"/v1/budgets/{made['id']}")).status_code == 404
    again = await house.client.post("/v1/messages", json=CALL, headers=headers)
    assert again.status_code == 200


async def test_a_projects_tokens_are_guide_zeros_limit_and_remaining(house: House) -> None:
    await a_budget(house, subject={"type": "project"}, limit_tokens=100_000, period="month")
    before = (await house.client.get("/v1/usage")).json()
    assert (before["limit"], before["remaining"]) == (100_000, 100_000)
    await house.client.post("/v1/messages", json=CALL)
    after = (await house.client.get("/v1/usage")).json()
    assert after["total_tokens"] > 0
    assert (after["limit"], after["remaining"]) == (100_000, 100_000 - after["total_tokens"])


async def test_a_limit_of_zero_blocks(house: House) -> None:
    made = await a_budget(house, subject={"type": "project"}, limit_tokens=0)
    assert made["remaining"] == 0
    assert (await house.client.post("/v1/messages", json=CALL)).status_code == 402
    assert (await house.client.get("/v1/usage")).json()["remaining"] == 0


async def test_tags_are_told_apart_and_have_budgets(house: House) -> None:
    budget = await a_budget(house, subject={"type": "tag", "id": "red"}, limit_usd="0")
    red = {"x-stationmaster-tags": "blue, red"}
    assert (await house.client.post("/v1/messages", json=CALL, headers=red)).status_code == 402
    blue = {"x-stationmaster-tags": "blue"}
    assert (await house.client.post("/v1/messages", json=CALL, headers=blue)).status_code == 200
    found = (await house.client.get("/v1/usage", params={"group_by": "tag"})).json()
    assert [(each["by"], each["calls"]) for each in found["groups"]] == [({"tag": "blue"}, 1)]
    assert (await shown(house, budget))["spent"] == "0.00"
    for wrong in ("a b", "x" * 65, "a,b,c,d,e", ",", "ü"):
        headers = {b"x-stationmaster-tags": wrong.encode()}
        answer = await house.client.post("/v1/messages", json=CALL, headers=headers)
        assert answer.status_code == 400, wrong


async def test_a_degrading_budget_has_a_cheaper_model_answer(house: House) -> None:
    await a_budget(house, subject={"type": "project"}, limit_usd="0.0001", mode="degrade")
    answer = await house.client.post("/v1/messages", json={**CALL, "model": "opus"})
    assert answer.status_code == 200
    assert "haiku" in answer.json()["model"]
    used = (await house.client.get("/v1/usage")).json()["by_model"]
    assert all("haiku" in model for model in used)


async def test_alerts_are_listed_once(house: House) -> None:
    budget = await a_budget(
        house,
        subject={"type": "project"},
        limit_usd="0.001",
        mode="soft",
        alerts={"percent": [1], "remaining_usd": ["0.000001"]},
    )
    for _ in range(3):
        await house.client.post("/v1/messages", json={**CALL, "max_tokens": 5000})
    found = (await house.client.get("/v1/budget-alerts")).json()
    (alert,) = found["alerts"]
    assert (alert["type"], alert["data"]["budget_id"]) == ("budget.alert", budget["id"])
    assert alert["data"]["threshold"] == {"percent": 1}
    later = (await house.client.get("/v1/budget-alerts", params={"after": found["next"]})).json()
    assert later == {"alerts": [], "next": found["next"]}


async def test_a_tasks_own_budget_is_seen_by_its_id_alone(house: House) -> None:
    task = await house.perform(max_cost=0.5)
    listed = (await house.client.get("/v1/budgets")).json()
    assert listed["budgets"] == []
    only = {"subject_type": "run", "subject_id": task["task_id"]}
    assert (await house.client.get("/v1/budgets", params=only)).json()["budgets"] == []


async def test_a_task_is_refused_where_nothing_is_left(house: House) -> None:
    await a_budget(house, subject={"type": "project"}, limit_usd="0")
    for path in ("/v1/task", "/v1/tasks"):
        answer = await house.client.post(path, json={"description": "Do it."})
        assert (answer.status_code, answer.json()["code"]) == (429, "budget_exceeded")
        assert answer.headers["x-should-retry"] == "false"
    assert (await house.client.get("/v1/tasks")).json()["tasks"] == []


GOOD: dict[str, Any] = {"subject": {"type": "project"}, "limit_usd": "1"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"subject": {"type": "project"}},
        {**GOOD, "limit_tokens": 5},
        {**GOOD, "limit_usd": "-1"},
        {**GOOD, "limit_usd": "a lot"},
        {**GOOD, "limit_usd": "0.0000001"},
        {**GOOD, "limit_usd": "1e99"},
        {**GOOD, "limit_usd": None},
        {**GOOD, "limit_usd": True},
        {"subject": {"type": "project"}, "limit_tokens": -1},
        {"subject": {"type": "project"}, "limit_tokens": 1.5},
        {"subject": {"type": "project"}, "limit_tokens": 10**16},
        {**GOOD, "subject": {"type": "planet"}},
        {**GOOD, "subject": {"type": "tag"}},
        {**GOOD, "subject": {"type": "tag", "id": "a tag"}},
        {**GOOD, "subject": {"type": "user"}},
        {**GOOD, "subject": {"type": "key", "id": "x" * 65}},
        {**GOOD, "subject": "project"},
        {**GOOD, "period": "year"},
        {**GOOD, "mode": "hardly"},
        {**GOOD, "time_zone": "Nowhere/At_All"},
        {**GOOD, "time_zone": "../../etc/passwd"},
        {**GOOD, "alerts": {"percent": [0]}},
        {**GOOD, "alerts": {"percent": [101]}},
        {**GOOD, "alerts": {"percent": list(range(1, 12))}},
        {**GOOD, "alerts": {"remaining_tokens": [5]}},
        {**GOOD, "alerts": {"remaining_usd": ["x"]}},
        {**GOOD, "soft_limit": 5},
    ],
)
async def test_a_wrong_budget_is_not_set(house: House, body: Any) -> None:
    answer = await house.client.post("/v1/budgets", json=body)
    assert answer.status_code in {400, 422}, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await house.client.get("/v1/budgets")).json()["budgets"] == []


@pytest.mark.parametrize(
    "subject",
    [
        {"type": "key", "id": "key_01jd3k00000000000000000000"},  # the stranger's
        {"type": "key", "id": "nonsense"},
        {"type": "project", "id": "proj_2"},
        {"type": "organization", "id": "org_2"},
        {"type": "user", "id": "user_nobody"},
        {"type": "session", "id": "sesn_nobody"},
        {"type": "run", "id": "run_01jd3k00000000000000000000"},
        {"type": "run", "id": "' OR 1=1"},
    ],
)
async def test_what_is_not_there_has_no_budget(
    house: House, stranger: dict[str, str], subject: Any
) -> None:
    answer = await house.client.post("/v1/budgets", json={**GOOD, "subject": subject})
    assert answer.status_code == 404, answer.text


async def test_another_organisations_budget_is_not_there(
    house: House, stranger: dict[str, str]
) -> None:
    made = await a_budget(house, **GOOD)
    path = f"/v1/budgets/{made['id']}"
    for method, body in (("GET", None), ("PATCH", {"limit_usd": "9"}), ("DELETE", None)):
        answer = await house.client.request(method, path, json=body, headers=stranger)
        assert answer.status_code == 404, answer.text
    listed = await house.client.get("/v1/budgets", headers=stranger)
    assert listed.json()["budgets"] == []
    assert await shown(house, made) == made


@pytest.mark.parametrize(
    "change",
    [{"limit_tokens": 5}, {"limit_usd": "-1"}, {"mode": "x"}, {"period": "day"}, {"id": "bud_1"}],
)
async def test_a_wrong_change_changes_nothing(house: House, change: Any) -> None:
    made = await a_budget(house, **GOOD)
    answer = await house.client.patch(f"/v1/budgets/{made['id']}", json=change)
    assert answer.status_code in {400, 422}
    assert await shown(house, made) == made


async def test_who_may_use_the_server_may_not_raise_its_own_limit(house: House) -> None:
    made = await a_budget(house, **GOOD)
    _, headers = await a_key(house)
    assert (await house.client.get("/v1/budgets", headers=headers)).status_code == 200
    for method, path in (("POST", ""), ("PATCH", f"/{made['id']}"), ("DELETE", f"/{made['id']}")):
        body = {"POST": GOOD, "PATCH": {"limit_usd": "9"}}.get(method)
        answer = await house.client.request(
            method, f"/v1/budgets{path}", json=body, headers=headers
        )
        assert answer.status_code == 403
    assert await shown(house, made) == made


# --- usage --------------------------------------------------------------------------------------


async def test_usage_is_told_apart_as_asked(house: House) -> None:
    key_id, headers = await a_key(house)
    await asyncio.gather(
        *(house.client.post("/v1/messages", json=CALL, headers=headers) for _ in range(3)),
        house.client.post("/v1/messages", json=CALL),
    )
    whole = (await house.client.get("/v1/usage")).json()
    assert whole["groups"] == []
    for by in ("key", "model", "user,key", "day,key", "hour", "session", "project,provider"):
        found = (await house.client.get("/v1/usage", params={"group_by": by})).json()
        assert sum(each["calls"] for each in found["groups"]) == 4, by
        assert sum(each["tokens"] for each in found["groups"]) == whole["total_tokens"]
        assert round(sum(each["cost"] for each in found["groups"]), 6) == whole["total_cost"]
        assert {name: whole[name] for name in whole if name not in {"groups", "since"}} == {
            name: found[name] for name in found if name not in {"groups", "since"}
        }
    by_key = (await house.client.get("/v1/usage", params={"group_by": "key"})).json()["groups"]
    assert {each["by"]["key"]: each["calls"] for each in by_key}[key_id] == 3
    only = (await house.client.get("/v1/usage", params={"key_id": key_id})).json()
    assert only["total_calls"] == 3


async def test_an_export_is_the_ledger_in_both_forms(house: House) -> None:
    for _ in range(3):
        await house.client.post("/v1/messages", json=CALL)
    usage = (await house.client.get("/v1/usage")).json()
    exported = await house.client.get("/v1/usage/export", params={"format": "csv"})
    assert exported.headers["content-type"] == "text/csv; charset=utf-8"
    lines = list(csv.DictReader(io.StringIO(exported.text)))
    as_json = await house.client.get("/v1/usage/export", params={"format": "json"})
    records = as_json.json()
    assert len(lines) == len(records) == usage["total_calls"] == 3
    assert round(sum(float(line["cost"]) for line in lines), 6) == usage["total_cost"]
    assert round(sum(record["cost"] for record in records), 6) == usage["total_cost"]
    classes = ("input_tokens", "output_tokens", "cache_write_tokens", "cache_read_tokens")
    tokens = sum(int(line[name]) for line in lines for name in classes)
    assert tokens == usage["total_tokens"]
    assert [line["call_id"] for line in lines] == [record["call_id"] for record in records]


async def test_an_empty_export_is_whole(house: House) -> None:
    assert (await house.client.get("/v1/usage/export", params={"format": "json"})).json() == []
    exported = await house.client.get("/v1/usage/export")
    assert len(exported.text.splitlines()) == 1


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/v1/usage", {"group_by": "colour"}),
        ("/v1/usage", {"group_by": "day,hour"}),
        ("/v1/usage", {"group_by": "key,key"}),
        ("/v1/usage", {"group_by": "tag,model"}),
        ("/v1/usage", {"group_by": "key,model,user,project,session"}),
        ("/v1/usage", {"period": "year"}),
        ("/v1/usage", {"scope": "galaxy"}),
        ("/v1/usage", {"from": "0"}),
        ("/v1/usage/export", {"format": "xml"}),
        ("/v1/usage/export", {"period": "year"}),
    ],
)
async def test_wrong_questions(house: House, path: str, params: Any) -> None:
    answer = await house.client.get(path, params=params)
    assert answer.status_code in {400, 422}, answer.text


async def test_another_organisations_usage_is_not_there(
    house: House, stranger: dict[str, str]
) -> None:
    await house.client.post("/v1/messages", json=CALL)
    for params in ({}, {"scope": "organization", "group_by": "project"}):
        found = await house.client.get("/v1/usage", params=params, headers=stranger)
        assert (found.json()["total_calls"], found.json()["groups"]) == (0, [])
    exported = await house.client.get("/v1/usage/export?format=json", headers=stranger)
    assert exported.json() == []


async def test_the_whole_organisation_is_for_who_manages_it(house: House) -> None:
    _, headers = await a_key(house)
    for path in ("/v1/usage", "/v1/usage/export"):
        params = {"scope": "organization"}
        answer = await house.client.get(path, params=params, headers=headers)
        assert answer.status_code == 403
        assert (await house.client.get(path, params=params)).status_code == 200
