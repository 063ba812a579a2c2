"""The files of batches that have ended, on SQLite and on PostgreSQL."""

import json
from pathlib import Path

import pytest

from stationmaster.batches import Answer, Batches
from stationmaster.batches.batch import NewRequest, Output
from stationmaster.batches.desk import Desk
from stationmaster.batches.output import Outputs
from stationmaster.files import Depot, Files
from stationmaster.jobs import Instances, Outbox
from stationmaster.kernel.clock import ManualClock
from stationmaster.live.bus import MemoryBus
from stationmaster.storage import Database
from tests.support.core import ALICE

QUOTA = 10_000
DETAILS = {"endpoint": "/v1/chat/completions", "input_file_id": "file_1", "metadata": None}


class House:
    def __init__(self, database: Database, root: Path, *, quota: int = QUOTA) -> None:
        self.clock = ManualClock()
        self.files = Files(database, self.clock, Depot(root), max_size=QUOTA, quota=quota)
        outbox = Outbox(MemoryBus(), self.clock)
        self.batches = Batches(database, self.clock, outbox, retention=1000.0)
        self.outputs = Outputs(database, self.clock, self.batches, self.files)
        self.desk = Desk(database, self.clock, Instances(database, self.clock, lease=10.0))

    async def ended(self, *statuses: int | None) -> str:
        """A batch whose requests were answered so; None was never made."""
        requests = [NewRequest(f"r{number}", "{}") for number in range(len(statuses))]
        batch = await self.batches.create(ALICE, "chat", requests, details=DETAILS)
        for status in statuses:
            if status is not None:
                taken = await self.desk.take()
                assert taken is not None
                await self.desk.put_away(taken, Answer(status, b'{"words":1}'))
        if None in statuses:
            await self.batches.cancel(ALICE, batch.id)
        return batch.id

    async def output(self, batch_id: str) -> Output | None:
        return (await self.batches.get(ALICE, batch_id)).output

    async def lines(self, file_id: str | None) -> dict[str, object]:
        assert file_id is not None
        _, content = await self.files.open(ALICE, file_id)
        with content:
            found = [json.loads(line) for line in content]
        return {line["custom_id"]: (line["response"], line["error"]) for line in found}

    async def stored(self) -> int:
        return len((await self.files.list(ALICE, limit=100, purpose="batch_output")).items)


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    return House(database, tmp_path)


async def test_answers_and_errors_have_a_file_each(house: House) -> None:
    batch_id = await house.ended(200, 404, None)
    assert await house.output(batch_id) is None
    await house.outputs.write_due()
    output = await house.output(batch_id)
    assert output is not None
    good, bad = await house.lines(output.file_id), await house.lines(output.error_file_id)
    body = {"words": 1}
    assert good == {
        "r0": ({"status_code": 200, "request_id": "batch_req_0", "body": body}, None),
    }
    error = {"code": "batch_cancelled", "message": "The batch was cancelled before."}
    assert bad == {
        "r1": ({"status_code": 404, "request_id": "batch_req_1", "body": body}, None),
        "r2": (None, error),
    }


async def test_they_are_written_once(house: House) -> None:
    batch_id = await house.ended(200)
    await house.outputs.write_due()
    output = await house.output(batch_id)
    await house.outputs.write_due()
    assert await house.output(batch_id) == output
    assert output is not None
    assert output.error_file_id is None
    assert await house.stored() == 1


async def test_of_two_servers_one_writes_them(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = await house.ended(200)
    real = house.outputs._upload

    async def slow(*given: object) -> str | None:
        monkeypatch.undo()
        await house.outputs.write_due()  # the other, faster
        return await real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(house.outputs, "_upload", slow)
    await house.outputs.write_due()
    assert await house.output(batch_id) is not None
    assert await house.stored() == 1


async def test_without_room_the_batch_stays_unfinished(database: Database, tmp_path: Path) -> None:
    house = House(database, tmp_path, quota=10)
    batch_id = await house.ended(200)
    await house.outputs.write_due()
    await house.outputs.write_due()
    assert await house.output(batch_id) is None
    assert await house.stored() == 0
