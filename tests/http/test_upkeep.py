"""What a server does by itself as months go by, on a clock that is moved between its starts."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from stationmaster.access.rotation import ROTATED, stream_of
from stationmaster.bootstrap import application
from stationmaster.bootstrap.offline import vault
from stationmaster.events import Event, EventLog
from stationmaster.kernel.clock import Millis, SystemClock
from stationmaster.live.bus import MemoryBus
from stationmaster.storage import open_database
from tests.http.conftest import House, Open

DAY = 86_400


class Later:
    """The machine's clock, some time ahead."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._ahead = 0

    def now(self) -> Millis:
        return self._clock.now() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += round(seconds * 1000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Later:
    made = Later()
    monkeypatch.setattr(application, "SystemClock", lambda: made)
    return made


async def until(house: House, path: str, good: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(20):
        while not good(found := (await house.client.get(path)).raise_for_status().json()):
            await asyncio.sleep(0.02)
    return found


async def in_the_book(house: House, stream: str) -> list[Event]:
    database = open_database(house.settings.database_url.get_secret_value())
    found = await EventLog(database, MemoryBus(), SystemClock()).read(stream)
    await database.close()
    return list(found)


async def test_keys_are_replaced_at_90_days_and_the_record_is_kept_for_as_long(
    open_house: Open, clock: Later
) -> None:
    async with open_house() as house:
        made = (await house.client.post("/api/admin/keys", json={"name": "robot"})).json()
        old, here = house.as_key(made["key"]), f"/api/admin/keys/{made['id']}"
        assert (await house.client.get(here)).json()["successor_id"] is None
        first = (await house.client.get("/v1/audit?action=key.create")).json()["entries"]
        assert [entry["target"] for entry in first] == [made["id"]]

    clock.advance(90 * DAY)
    async with open_house() as house:
        key = await until(house, here, lambda found: found["successor_id"])
        [told] = await in_the_book(house, stream_of("proj_default"))
        assert (told.type, told.data["key_id"]) == (ROTATED, made["id"])
        successor = told.data["successor_id"]
        assert key["successor_id"] == successor
        # Nothing was lost of the 90 days: they are over for the first entry alone.
        record = await until(
            house,
            "/v1/audit?limit=100",
            lambda found: not any(entry["action"] == "key.create" for entry in found["entries"]),
        )
        assert "key.rotate" in {entry["action"] for entry in record["entries"]}
        given = await house.client.post(f"/api/admin/keys/{successor}/collect", headers=old)
        assert given.status_code == 200, given.text
        new = house.as_key(given.json()["key"])
        for headers in (old, new):
            assert (await house.client.get("/v1/tasks", headers=headers)).status_code == 200

    clock.advance(7 * DAY)
    async with open_house() as house:
        assert (await house.client.get("/v1/tasks", headers=old)).status_code == 401
        assert (await house.client.get("/v1/tasks", headers=new)).status_code == 200
        async with vault(house.settings) as opened:
            [verdict] = await opened.chains.verify()
        assert verdict.whole
        assert verdict.deleted > 0
