"""`POST /v1/batch`: prompts in parallel, each for itself."""

import asyncio
from typing import Any

import pytest

from stationmaster.kernel.errors import Upstream
from stationmaster.providers.base import ProviderReply, ProviderRequest
from tests.http.conftest import House, Open


def prompts(*words: str) -> list[dict[str, str]]:
    return [{"prompt": word} for word in words]


class Gate:
    """Stands before the provider: counts, and lets through by rounds."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.under_way = 0
        self.most = 0
        self.rounds = 0
        self._real = house.application.provider.send
        self._open = asyncio.Event()
        monkeypatch.setattr(house.application.provider, "send", self.send)

    async def send(self, request: ProviderRequest) -> ProviderReply:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self._open.wait()
        return await self._real(request)

    async def let(self, calls: int) -> None:
        """Wait until so many are here, and let them through together."""
        async with asyncio.timeout(20):
            while self.under_way < calls:
                await asyncio.sleep(0)
        self.under_way -= calls
        gate, self._open = self._open, asyncio.Event()
        gate.set()
        self.rounds += 1


async def test_prompts_are_answered_in_their_order(house: House) -> None:
    body = {"prompts": [{"prompt": "One", "id": "first"}, {"prompt": "Two"}], "model": "haiku"}
    answer = await house.client.post("/v1/batch", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["total"], found["completed"], found["failed"]) == (2, 2, 0)
    assert [result["id"] for result in found["results"]] == ["first", "1"]
    assert all(result["content"] and result["error"] is None for result in found["results"])
    assert found["total_tokens"] == sum(r["usage"]["total_tokens"] for r in found["results"]) > 0
    assert found["total_cost"] == pytest.approx(sum(r["cost"] for r in found["results"]))
    usage = (await house.client.get("/v1/usage")).json()
    assert usage["total_tokens"] == found["total_tokens"]


async def test_one_that_fails_fails_alone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    real = house.application.provider.send

    async def send(request: ProviderRequest) -> ProviderReply:
        if b"fail" in request.body:
            raise Upstream("It is down.")
        return await real(request)

    monkeypatch.setattr(house.application.provider, "send", send)
    answer = await house.client.post("/v1/batch", json={"prompts": prompts("a", "fail", "c")})
    found = answer.json()
    assert answer.status_code == 200
    assert [result["status"] for result in found["results"]] == ["completed", "failed", "completed"]
    assert (found["completed"], found["failed"]) == (2, 1)
    bad = found["results"][1]
    assert (bad["content"], bad["cost"], bad["error"]["code"]) == (None, 0, "upstream_error")


async def test_ten_prompts_of_four_workers_take_three_rounds(
    open_house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(BATCH_WORKERS="4") as house:
        gate = Gate(house, monkeypatch)
        body = {"prompts": prompts(*map(str, range(10)))}
        asked = asyncio.create_task(house.client.post("/v1/batch", json=body))
        for calls in (4, 4, 2):
            await gate.let(calls)
        assert (await asked).json()["completed"] == 10
        assert (gate.most, gate.rounds) == (4, 3)


async def test_a_full_queue_is_503_and_asks_nothing(
    open_house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(BATCH_WORKERS="1") as house:
        gate = Gate(house, monkeypatch)
        body = {"prompts": prompts(*map(str, range(10)))}
        asked = asyncio.create_task(house.client.post("/v1/batch", json=body))
        while not gate.under_way:
            await asyncio.sleep(0)
        full = await house.client.post("/v1/batch", json={"prompts": prompts("a", "b")})
        assert full.status_code == 503
        assert full.json()["code"] == "queue_full"
        assert "retry-after" in full.headers
        for _ in range(10):
            await gate.let(1)
        assert (await asked).json()["completed"] == 10
        too_many = await house.client.post("/v1/batch", json={"prompts": prompts(*"x" * 12)})
        assert too_many.status_code == 400


async def test_a_prompt_that_takes_too_long_fails(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gate(house, monkeypatch)
    answer = await house.client.post("/v1/batch", json={"prompts": prompts("a"), "timeout": 0.05})
    (result,) = answer.json()["results"]
    assert (result["status"], result["error"]["code"]) == ("failed", "upstream_timeout")


async def test_a_budget_holds(house: House) -> None:
    subject = {"type": "project", "id": "proj_default"}
    made = await house.client.post("/v1/budgets", json={"subject": subject, "limit_usd": "0.00001"})
    assert made.status_code < 300, made.text
    answer = await house.client.post("/v1/batch", json={"prompts": prompts("a", "b")})
    assert {result["error"]["code"] for result in answer.json()["results"]} == {"budget_exceeded"}
    assert answer.json()["total_cost"] == 0


async def test_a_client_that_goes_away_cancels_the_calls(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(house, monkeypatch)
    asked = asyncio.create_task(house.client.post("/v1/batch", json={"prompts": prompts("a")}))
    while not gate.under_way:
        await asyncio.sleep(0)
    asked.cancel()
    async with asyncio.timeout(20):
        while house.services.prompts._inside:
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"prompts": []}, id="none"),
        pytest.param({"prompts": [{"prompt": ""}]}, id="empty"),
        pytest.param({"prompts": prompts("a"), "project_id": "x"}, id="another project"),
        pytest.param({"prompts": prompts("a"), "timeout": 0}, id="no time"),
        pytest.param({"prompts": "a"}, id="no list"),
    ],
)
async def test_what_is_wrong_is_refused(house: House, body: Any) -> None:
    assert (await house.client.post("/v1/batch", json=body)).status_code == 422
