"""Background jobs over HTTP: seen, tried again, thrown away, by whom and on record."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import insert

from stationmaster.batches.batches import BATCH_JOB
from stationmaster.bootstrap.operators import OPERATOR
from stationmaster.client import AsyncClient, ClientError
from stationmaster.client.jobs import AsyncJobClient
from stationmaster.jobs.tables import jobs
from stationmaster.kernel.ids import new_id
from stationmaster.storage import open_database
from tests.http.conftest import ADMIN, SECRET, House

HERE = "/v1/jobs"
NOBODYS = "work.of.nobody"  # a kind that no worker here does


async def parked(house: House, kind: str = NOBODYS, state: str = "parked", **other: Any) -> str:
    """A job that was given up; its id."""
    row = {
        "id": new_id("job"),
        "kind": kind,
        "state": state,
        "payload": {"run_id": "run_a"},
        "run_at": 1_000,
        "attempts": 8,
        "error": "It broke.",
        "created_at": 1_000,
        **other,
    }
    database = open_database(house.settings.database_url.get_secret_value())
    await database.write(lambda tx: tx.execute(insert(jobs), row))
    await database.close()
    return str(row["id"])


async def new_key(house: House, *scopes: str) -> dict[str, str]:
    """Headers of a key."""
    body = {"name": "made", "permissions": scopes}
    made = await house.client.post("/api/admin/keys", json=body)
    return house.as_key(made.raise_for_status().json()["key"])


async def on_record(house: House) -> list[tuple[str, str, Any]]:
    found = await house.client.get("/v1/audit", params={"action": "job.*"})
    return [
        (entry["action"], entry["target"], (entry["actor_kind"], entry["details"]))
        for entry in found.raise_for_status().json()["entries"]
    ]


async def test_one_is_shown_as_it_stands(house: House) -> None:
    shaped = "sk-ant-api03-abcdefghijklmnopqrst"
    job_id = await parked(house, error=f"Refused: {shaped}", payload={"run_id": "r", "k": [SECRET]})
    answer = await house.client.get(f"{HERE}/{job_id}")
    assert answer.json() == {
        "id": job_id,
        "kind": NOBODYS,
        "state": "parked",
        "attempts": 8,
        "created_at": "1970-01-01T00:00:01.000Z",
        "due_at": "1970-01-01T00:00:01.000Z",
        "instance_id": None,
        "error": "Refused: [redacted]",
        "payload": {"run_id": "r", "k": ["[redacted]"]},
    }
    listed = (await house.client.get(HERE)).json()
    assert listed == {"jobs": [answer.json()], "has_more": False, "next": None}


async def test_lists_have_pages_and_filters(house: House) -> None:
    made = [await parked(house, created_at=1_000 + n // 2) for n in range(5)]
    other = await parked(house, kind="other", state="waiting", created_at=1)
    found, after = [], None
    while True:
        query = {"limit": 2, **({"after": after} if after else {})}
        page = (await house.client.get(HERE, params=query)).raise_for_status().json()
        found += [job["id"] for job in page["jobs"]]
        assert page["has_more"] == (page["next"] is not None)
        if (after := page["next"]) is None:
            break
    assert found[0] == other
    assert sorted(found[1:]) == sorted(made)
    for query, ids in (({"kind": "other"}, [other]), ({"state": "running"}, [])):
        page = (await house.client.get(HERE, params=query)).json()
        assert [job["id"] for job in page["jobs"]] == ids
    for wrong in ({"limit": 0}, {"limit": 101}, {"state": "done"}, {"after": "x"}, {"job": "x"}):
        answer = await house.client.get(HERE, params=wrong)
        assert answer.status_code in {400, 422}, wrong


async def test_one_that_is_tried_again_is_done(house: House) -> None:
    job_id = await parked(house, kind=BATCH_JOB, payload={"batch_id": "msgbatch_a"})
    answer = await house.client.post(f"{HERE}/{job_id}/replay")
    assert answer.status_code == 200
    told = answer.json()
    assert (told["id"], told["state"]) == (job_id, "waiting")
    assert (told["attempts"], told["error"]) == (0, None)
    async with asyncio.timeout(30):
        while (await house.client.get(f"{HERE}/{job_id}")).status_code != 404:
            await asyncio.sleep(0.05)
    details = {"kind": BATCH_JOB, "attempts": 8}
    assert await on_record(house) == [("job.replay", job_id, ("key", details))]


async def test_one_is_thrown_away_and_no_other(house: House) -> None:
    gone, left = await parked(house), await parked(house)
    answer = await house.client.delete(f"{HERE}/{gone}")
    assert (answer.status_code, answer.json()["id"]) == (200, gone)
    assert (await house.client.delete(f"{HERE}/{gone}")).status_code == 404
    page = (await house.client.get(HERE)).json()
    assert [job["id"] for job in page["jobs"]] == [left]
    details = {"kind": NOBODYS, "attempts": 8}
    assert await on_record(house) == [("job.discard", gone, ("key", details))]


@pytest.mark.parametrize("state", ["waiting", "running"])
async def test_one_that_is_not_parked_is_left_alone(house: House, state: str) -> None:
    job_id = await parked(house, state=state)
    for method, path in (("POST", f"{HERE}/{job_id}/replay"), ("DELETE", f"{HERE}/{job_id}")):
        answer = await house.client.request(method, path)
        assert answer.status_code == 409
        assert answer.json()["code"] == "job_not_parked"
    assert await on_record(house) == []


async def test_what_never_was_is_not_there(house: House) -> None:
    for name in ("job_01jd3k00000000000000000000", "x", "%00", "a" * 64):
        for method, path in (("GET", ""), ("POST", "/replay"), ("DELETE", "")):
            answer = await house.client.request(method, f"{HERE}/{name}{path}")
            assert answer.status_code == 404, (method, name)
            assert answer.json()["code"] == "job_not_found"


async def test_of_two_replays_at_once_one_is_done(house: House) -> None:
    job_id = await parked(house)
    both = [house.client.post(f"{HERE}/{job_id}/replay") for _ in range(2)]
    answers = await asyncio.gather(*both)
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert len(await on_record(house)) == 1


async def test_a_replay_that_is_sent_again_is_answered_as_before(house: House) -> None:
    job_id = await parked(house)
    headers = {"idempotency-key": "once"}
    first = await house.client.post(f"{HERE}/{job_id}/replay", headers=headers)
    again = await house.client.post(f"{HERE}/{job_id}/replay", headers=headers)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert len(await on_record(house)) == 1


async def test_a_scalers_key_and_a_tenants_see_none(house: House, stranger: dict[str, str]) -> None:
    job_id = await parked(house)
    scaler = await new_key(house, "admin:server")
    assert (await house.client.get(HERE, headers=scaler)).status_code == 403
    refused = await house.client.delete(f"{HERE}/{job_id}", headers=scaler)
    assert refused.status_code == 403
    assert (await house.client.get(HERE, headers=stranger)).status_code == 403
    for method, path in (("GET", ""), ("POST", "/replay"), ("DELETE", "")):
        answer = await house.client.request(method, f"{HERE}/{job_id}{path}", headers=stranger)
        assert answer.status_code == 404
    allowed = await new_key(house, "admin:jobs")
    assert (await house.client.get(f"{HERE}/{job_id}", headers=allowed)).status_code == 200


async def test_the_client_library_does_the_same(house: House) -> None:
    first, second = await parked(house), await parked(house, created_at=2_000)
    async with AsyncClient(house.url, ADMIN) as client:
        mine = AsyncJobClient(client)
        page = await mine.jobs(limit=1, state="parked", kind=NOBODYS)
        assert [job["id"] for job in page.items] == [first]
        rest = await mine.jobs(limit=1, after=page.next_cursor)
        assert ([job["id"] for job in rest.items], rest.next_cursor) == ([second], None)
        assert (await mine.get(first))["state"] == "parked"
        assert (await mine.replay(first))["state"] == "waiting"
        assert (await mine.discard(second))["id"] == second
        with pytest.raises(ClientError):
            await mine.discard(first)


async def test_no_key_is_the_operators(house: House) -> None:
    page = await house.services.jobs.list(OPERATOR, limit=1)
    assert page.items == []
    assert OPERATOR.id not in (await house.client.get("/api/admin/keys")).text
