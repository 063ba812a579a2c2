"""Refused access, counted."""

import asyncio

import pytest
import structlog

from stationmaster.audit import Audit, Entry, Refusals, Sought
from stationmaster.audit import refusals as module
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Unavailable
from stationmaster.kernel.origin import Origin
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import Database

OPERATOR = Owner("org_default", "proj_default")
KEY = Principal("key", "key_a", Owner("org_a", "proj_a"), "key_a", frozenset(), hint="wxyz")


@pytest.fixture
def refusals(database: Database, audit: Audit) -> Refusals:
    return Refusals(database, audit, OPERATOR)


async def entries(audit: Audit, organization_id: str) -> list[Entry]:
    reader = Principal("key", "key_r", Owner(organization_id, ""), "key_r", frozenset({"*"}))
    page = await audit.list(reader, Sought(), limit=100, after=None)
    return page.items


async def test_many_of_one_kind_are_one_entry(audit: Audit, refusals: Refusals) -> None:
    here = Origin("203.0.113.9", "req_1")
    for _ in range(500):
        refusals.note(here, status=401, endpoint="/v1/tasks")
    refusals.note(Origin("203.0.113.10", "req_2"), status=401, endpoint="/v1/usage")
    await refusals.flush()
    await refusals.flush()
    found = {entry.address: entry for entry in await entries(audit, "org_default")}
    assert len(found) == 2
    assert found["203.0.113.9"].details == {"status": 401, "count": 500}
    assert found["203.0.113.9"].target == "/v1/tasks"
    assert {entry.outcome for entry in found.values()} == {"refused"}


async def test_who_is_known_has_it_on_the_own_record(audit: Audit, refusals: Refusals) -> None:
    refusals.note(Origin("203.0.113.9", "req_1", KEY), status=403, endpoint="/v1/usage")
    await refusals.flush()
    assert await entries(audit, "org_default") == []
    (entry,) = await entries(audit, "org_a")
    assert (entry.actor_id, entry.actor_hint, entry.project_id) == ("key_a", "wxyz", "proj_a")


async def test_however_many_there_are_what_is_kept_is_bounded(
    audit: Audit, refusals: Refusals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 10)
    for n in range(100):
        refusals.note(Origin(f"203.0.113.{n}", "req"), status=401, endpoint="/v1/tasks")
    await refusals.flush()
    found = await entries(audit, "org_default")
    assert len(found) == 11
    assert sum(entry.details["count"] for entry in found) == 100
    (many,) = [entry for entry in found if entry.actor_id == "many"]
    assert many.details["count"] == 90


async def test_while_the_database_is_away_they_are_kept(
    database: Database, audit: Audit, refusals: Refusals, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_verb: object) -> None:
        raise Unavailable(code="database_unavailable")

    refusals.note(Origin("203.0.113.9", "req"), status=401, endpoint="/v1/tasks")
    with monkeypatch.context() as patch, structlog.testing.capture_logs() as lines:
        patch.setattr(database, "write", away)
        await refusals.flush()
    assert len(lines) == 1
    refusals.note(Origin("203.0.113.9", "req"), status=401, endpoint="/v1/tasks")
    await refusals.flush()
    (entry,) = await entries(audit, "org_default")
    assert entry.details["count"] == 2


async def test_what_is_counted_when_the_server_stops_is_written(
    audit: Audit, refusals: Refusals, clock: ManualClock
) -> None:
    task = asyncio.create_task(refusals.run())
    await asyncio.sleep(0)
    refusals.note(Origin("203.0.113.9", "req"), status=401, endpoint="/v1/tasks")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(await entries(audit, "org_default")) == 1


async def test_an_actor_without_a_request_has_no_address(audit: Audit, refusals: Refusals) -> None:
    refusals.note(Origin(None, None), status=401, endpoint="unmatched")
    await refusals.flush()
    (entry,) = await entries(audit, "org_default")
    assert (entry.address, entry.request_id) == (None, None)
