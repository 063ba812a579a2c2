"""The audit log over HTTP, and what is put on it."""

import asyncio
import csv
import io
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from stationmaster.bootstrap.offline import vault
from stationmaster.http.gatekeeper import Gatekeeper
from stationmaster.telemetry import about
from tests.http.conftest import ADMIN, House, Open
from tests.http.test_sign_in import EMAIL, login, person


async def entries(house: House, **query: Any) -> Any:
    answer = await house.client.get("/v1/audit", params={"limit": 100, **query})
    return answer.raise_for_status().json()["entries"]


async def test_what_a_key_does_is_listed(house: House) -> None:
    made = (await house.client.post("/api/admin/keys", json={"name": "second"})).json()
    answer = await house.client.delete(f"/api/admin/keys/{made['id']}")
    assert answer.status_code == 200
    found = await entries(house, action="key.*", target=made["id"])
    assert [entry["action"] for entry in found] == ["key.revoke", "key.create"]
    for entry in found:
        assert entry["actor_kind"] == "key"
        assert entry["actor_hint"] == ADMIN[-4:]
        assert entry["address"] == "127.0.0.1"
        assert entry["request_id"].startswith("req_")
        assert entry["outcome"] == "success"
    assert found[0]["request_id"] == answer.headers["request-id"]
    text = json.dumps(await entries(house))
    assert made["key"] not in text
    assert ADMIN not in text


async def test_refused_access_is_on_record_and_counted(house: House) -> None:
    for _ in range(3):
        await house.client.get("/v1/tasks", headers=house.as_key("no-such-key-0123456789"))
    made = (
        await house.client.post(
            "/api/admin/keys", json={"name": "reader", "permissions": ["read:tasks"]}
        )
    ).json()
    answer = await house.client.get("/v1/usage", headers=house.as_key(made["key"]))
    assert answer.status_code == 403
    await house.services.refusals.flush()
    found = await entries(house, action="access.refused")
    told = {(e["actor_kind"], e["target"], e["details"]["status"]): e for e in found}
    assert told["anonymous", "/v1/tasks", 401]["details"]["count"] == 3
    denied = told["key", "/v1/usage", 403]
    assert (denied["actor_id"], denied["actor_hint"]) == (made["id"], made["key"][-4:])
    assert {e["outcome"] for e in found} == {"refused"}


async def test_what_waits_on_a_connection_is_its_own_senders(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[Any] = []
    finding = Gatekeeper.__call__

    async def looked_on(gatekeeper: Gatekeeper, scope: Any) -> Any:
        known.append(about.fields().get("principal"))
        return await finding(gatekeeper, scope)

    monkeypatch.setattr(Gatekeeper, "__call__", looked_on)
    place = urlsplit(house.url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    head = b"GET /v1/tasks HTTP/1.1\r\nhost: here\r\n"
    last = head + b"x-api-key: no-such-key-0123456789\r\nconnection: close\r\n\r\n"
    writer.write(head + f"x-api-key: {ADMIN}\r\n\r\n".encode() + last)
    answers = await reader.read()
    writer.close()
    assert (answers.count(b"HTTP/1.1 200"), answers.count(b"HTTP/1.1 401")) == (1, 1)
    assert known == [None, None], "neither knows the other's"
    await house.services.refusals.flush()
    [refused] = await entries(house, action="access.refused")
    assert refused["actor_kind"] == "anonymous"


async def test_a_flood_of_refusals_does_not_flood_the_log(open_house: Open) -> None:
    async with open_house(RATE_LIMIT_ENABLED="false") as house:
        for n in range(40):
            await house.client.get("/v1/tasks", headers=house.as_key(f"no-such-key-{n:010}"))
        await house.services.refusals.flush()
        found = await entries(house, action="access.refused")
        assert sum(entry["details"]["count"] for entry in found) == 40
        assert len(found) == 1


async def test_a_sign_in_is_on_record(house: House) -> None:
    user_id = await person(house)
    await login(house)
    await login(house, password="wrong password here")
    found = await entries(house, action="user.sign_in")
    assert [(e["actor_id"], e["outcome"]) for e in found] == [
        (user_id, "refused"),
        (user_id, "success"),
    ]
    assert EMAIL not in json.dumps(found)


async def test_the_export_holds_everything_in_order(house: House) -> None:
    for n in range(5):
        await house.client.post("/api/admin/keys", json={"name": f"key-{n}"})
    answer = await house.client.get("/v1/audit/export", params={"action": "key.create"})
    assert answer.headers["content-disposition"] == 'attachment; filename="audit.json"'
    found = answer.json()["entries"]
    assert [entry["seq"] for entry in found] == sorted(entry["seq"] for entry in found)
    assert len(found) == 5
    answer = await house.client.get(
        "/v1/audit/export", params={"format": "csv", "action": "key.create"}
    )
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [int(row["seq"]) for row in rows] == [entry["seq"] for entry in found]
    assert [row["hash"] for row in rows] == [entry["hash"] for entry in found]
    assert len(await entries(house, action="audit.export")) == 2
    nothing = await house.client.get("/v1/audit/export", params={"action": "no.such"})
    assert nothing.json() == {"entries": []}


async def test_a_spreadsheet_finds_no_formula(house: House) -> None:
    answer = await house.client.get("/v1/audit/export", params={"format": "csv"})
    from stationmaster.http.routes.audit import _cell

    assert answer.status_code == 200
    assert [_cell(text) for text in ("=1+1", "@x", "+x", "-x", "x=", None)] == [
        "'=1+1",
        "'@x",
        "'+x",
        "'-x",
        "x=",
        "",
    ]


async def test_another_organisation_sees_nothing_of_ours(
    house: House, stranger: dict[str, str]
) -> None:
    await house.client.post("/api/admin/keys", json={"name": "second"})
    answer = await house.client.get("/v1/audit", headers=stranger)
    assert answer.json()["entries"] == []
    answer = await house.client.get("/v1/audit/export", headers=stranger)
    assert [entry["action"] for entry in answer.json()["entries"]] == ["audit.export"]


@pytest.mark.parametrize(
    "query",
    [
        {"outcome": "perhaps"},
        {"limit": 0},
        {"after": "x"},
        {"since": "yesterday"},
        {"since": -1},
        {"action": "x" * 65},
        {"more": 1},
    ],
)
async def test_wrong_questions(house: House, query: dict[str, Any]) -> None:
    answer = await house.client.get("/v1/audit", params=query)
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_lowered_sandbox_is_on_record(house: House) -> None:
    (entry,) = await entries(house, action="sandbox.lower")
    assert (entry["actor_kind"], entry["details"]) == ("server", {"rung": "none"})


async def test_tasks_and_budgets_are_on_record(house: House) -> None:
    task_id = await house.submit()
    await house.client.post(f"/v1/tasks/{task_id}/cancel")
    await house.ended(task_id)
    found = await entries(house, target=task_id)
    assert found[-1]["action"] == "task.start"
    assert {entry["action"] for entry in found} <= {"task.start", "task.cancel"}
    body = {
        "subject": {"type": "project", "id": "proj_default"},
        "limit_usd": "5",
        "period": "total",
        "mode": "hard",
    }
    made = (await house.client.post("/v1/budgets", json=body)).raise_for_status().json()
    await house.client.delete(f"/v1/budgets/{made['id']}")
    found = await entries(house, target=made["id"])
    assert [entry["action"] for entry in found] == ["budget.delete", "budget.create"]


async def test_a_changed_scope_is_on_record(house: House) -> None:
    made = (await house.client.post("/api/admin/keys", json={"name": "second"})).json()
    answer = await house.client.patch(
        f"/api/admin/keys/{made['id']}", json={"permissions": ["read:tasks"]}
    )
    assert answer.status_code == 200, answer.text
    (entry,) = await entries(house, action="key.update")
    assert entry["details"]["scopes"] == ["read:tasks"]


async def test_the_chain_of_a_server_at_work_is_whole(house: House) -> None:
    await person(house)
    await login(house)
    await house.client.get("/v1/tasks", headers=house.as_key("no-such-key-0123456789"))
    await house.services.refusals.flush()
    async with vault(house.settings) as opened:
        verdicts = await opened.chains.verify()
    assert [verdict.faults for verdict in verdicts] == [()]
    assert verdicts[0].entries >= 3
