"""What waits for workers, as scalers read it."""

import asyncio
import re
from pathlib import Path
from typing import Any

import yaml

from stationmaster.agents.scripted import WaitFor
from stationmaster.bootstrap import background
from tests.http.conftest import Open

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "cluster.md"
NOTHING = {"queued": 0, "oldest_seconds": 0.0}


async def test_it_tells_what_waits_and_for_how_long(open_house: Open, monkeypatch: Any) -> None:
    monkeypatch.setattr(background, "MEASURE_S", 0.05)
    async with open_house(MAX_WORKERS="1") as house:
        client = house.client
        empty = (await client.get("/v1/queue")).json()
        assert empty == {
            "queued": 0,
            "running": 0,
            "unfinished": 0,
            "oldest_seconds": 0.0,
            "priorities": dict.fromkeys(("low", "normal", "high"), NOTHING),
        }
        house.agent.script, found = [WaitFor()], empty
        for priority in ("normal", "low", "low", "high"):
            body = {"description": "x", "priority": priority}
            assert (await client.post("/v1/tasks", json=body)).status_code == 202
            async with asyncio.timeout(30):
                while not (found := (await client.get("/v1/queue")).json())["running"]:
                    await asyncio.sleep(0.02)
        assert (found["queued"], found["running"], found["unfinished"]) == (3, 1, 4)
        by_priority = {name: each["queued"] for name, each in found["priorities"].items()}
        assert by_priority == {"low": 2, "normal": 0, "high": 1}
        assert found["priorities"]["normal"] == NOTHING
        assert found["oldest_seconds"] == found["priorities"]["low"]["oldest_seconds"]
        async with asyncio.timeout(30):
            while 'queue_runs{priority="low"} 2.0' not in (
                text := (await client.get("/metrics")).text
            ):
                await asyncio.sleep(0.02)
        assert "runs_queued 3.0" in text
        assert 'queue_runs{priority="normal"} 0.0' in text
        assert re.search(r'queue_oldest_seconds\{priority="high"\} \d', text)


async def test_the_documented_scaler_finds_its_number(open_house: Open) -> None:
    example = re.search(r"```yaml\n(apiVersion: keda.*?)```", GUIDE.read_text(), re.DOTALL)
    assert example is not None
    scaled, _ = yaml.safe_load_all(example[1])
    [trigger] = scaled["spec"]["triggers"]
    given = trigger["metadata"]
    async with open_house() as house:
        made = {"name": "scaler", "permissions": ["admin:server"]}
        key = (await house.client.post("/api/admin/keys", json=made)).json()["key"]
        path = given["url"].removeprefix("http://stationmaster-api:8080")
        assert given["authMode"] == "bearer"
        told = await house.client.get(path, headers={"authorization": f"Bearer {key}"})
        assert told.status_code == 200, told.text
        assert type(told.json()[given["valueLocation"]]) is int
        assert float(given["targetValue"]) > 0
