"""The response cache on the real server, through the routes of both vendors and its own."""

from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from stationmaster.cache import shared
from tests.http.conftest import ADMIN, USER, House, Open
from tests.support.redis import RedisServer

ASKED: dict[str, Any] = {
    "model": "haiku",
    "max_tokens": 500,
    "temperature": 0,
    "messages": [{"role": "user", "content": "Say the canary's word: zaffre."}],
}

ON = {"x-stationmaster-cache": "on"}


class Counting:
    """Counts what the provider is asked."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        real = house.application.provider.send

        async def send(request: Any) -> Any:
            self.calls += 1
            return await real(request)

        monkeypatch.setattr(house.application.provider, "send", send)


async def stats(house: House) -> Any:
    return (await house.client.get("/api/cache/stats")).raise_for_status().json()


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_hit_is_flagged_costs_nothing_and_says_the_same(
    house: House, monkeypatch: pytest.MonkeyPatch, path: str, stream: bool
) -> None:
    provider = Counting(house, monkeypatch)
    body = {**ASKED, "stream": stream}
    if path == "/v1/responses":
        del body["max_tokens"]
        body["input"] = body.pop("messages")[0]["content"]
    first = await house.client.post(path, json=body)
    usage = (await house.client.get("/v1/usage")).json()
    second = await house.client.post(path, json=body)
    assert (first.status_code, second.status_code) == (200, 200)
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
    assert provider.calls == 1
    assert int(second.headers["age"]) >= 0
    assert second.headers["x-stationmaster-cost-usd"] == "0.000000"
    assert second.headers["x-stationmaster-tokens"] == (
        "input=0, output=0, cache_write=0, cache_read=0"
    )
    assert first.headers["x-stationmaster-call"] != second.headers["x-stationmaster-call"]
    assert first.headers["request-id"] != second.headers["request-id"]
    assert first.headers["content-type"] == second.headers["content-type"]
    if path == "/v1/chat/completions" and not stream:
        assert first.json()["cost"] > 0 == second.json()["cost"]
        assert first.json()["choices"] == second.json()["choices"]
    else:
        assert first.content == second.content
    after = (await house.client.get("/v1/usage")).json()
    assert after["total_cost"] == usage["total_cost"] > 0
    assert after["total_tokens"] == usage["total_tokens"]
    assert after["total_calls"] == usage["total_calls"] + 1
    lines = (await house.client.get("/v1/usage/export?format=json")).json()
    assert [line["outcome"] for line in lines] == ["complete", "cached"]


async def test_both_official_clients_read_a_hit(house: House) -> None:
    claude = anthropic.AsyncAnthropic(base_url=house.url, api_key=ADMIN)
    gpt = openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=ADMIN)
    asked = {name: value for name, value in ASKED.items() if name != "temperature"}
    async with claude, gpt:
        for _ in range(2):
            # Newer versions of this one know no temperature: they ask for the cache.
            async with claude.messages.stream(**asked, extra_headers=ON) as stream:
                message = await stream.get_final_message()
            pieces = [
                chunk async for chunk in await gpt.chat.completions.create(**ASKED, stream=True)
            ]
            assert message.stop_reason == "end_turn"
            assert pieces[-1].choices[0].finish_reason == "stop"
    assert (await stats(house))["hits"] == 2


async def test_another_tenant_gets_nothing_of_it(house: House, stranger: dict[str, str]) -> None:
    await house.client.post("/v1/messages", json=ASKED)
    theirs = await house.client.post("/v1/messages", json=ASKED, headers=stranger)
    assert theirs.headers["x-cache"] == "miss"
    seen = (await house.client.get("/api/cache/stats", headers=stranger)).json()
    assert (seen["hits"], seen["misses"], seen["entries"]) == (0, 1, 1)
    gone = await house.client.delete("/api/cache", headers=stranger)
    assert gone.json()["cleared"] == {"memory": 1, "disk": 1}
    assert (await house.client.post("/v1/messages", json=ASKED)).headers["x-cache"] == "hit"
    mine = await house.client.post("/v1/messages", json=ASKED, headers=house.as_key(USER))
    assert mine.headers["x-cache"] == "hit"  # another key of the project


async def test_it_is_looked_at_and_cleared(house: House) -> None:
    for number in (1, 2, 2):
        await house.client.post("/v1/messages", json={**ASKED, "max_tokens": 40 + number})
    found = await stats(house)
    assert found["success"] is True
    assert found["data"]["hits"] == found["hits"] == 1
    assert (found["misses"], found["hit_rate"], found["enabled"]) == (2, 0.3333, True)
    assert set(found["tiers"]) == {"memory", "disk"}
    assert found["tiers"]["memory"]["entries"] == found["tiers"]["disk"]["entries"] == 2
    assert all(tier["size_bytes"] > 0 for tier in found["tiers"].values())
    gone = (await house.client.delete("/api/cache?type=memory")).json()
    assert gone["cleared"] == gone["data"]["cleared"] == {"memory": 2}
    again = await house.client.post("/v1/messages", json={**ASKED, "max_tokens": 41})
    assert again.headers["x-cache"] == "hit"  # the disk has it
    assert (await house.client.delete("/api/cache")).json()["cleared"] == {"memory": 1, "disk": 2}
    again = await house.client.post("/v1/messages", json={**ASKED, "max_tokens": 41})
    assert again.headers["x-cache"] == "miss"
    entries = (await house.client.get("/v1/audit", params={"limit": 100})).json()["entries"]
    assert sum(entry["action"] == "cache.clear" for entry in entries) == 2
    wrong = await house.client.delete("/api/cache?type=everything")
    assert wrong.status_code == 422
    assert wrong.headers["content-type"] == "application/problem+json"
    assert (await stats(house))["entries"] == 1
    metrics = (await house.client.get("/metrics")).text
    assert 'cache_lookups_total{result="hit"} 2.0' in metrics
    assert 'cache_lookups_total{result="miss"} 3.0' in metrics


async def test_it_survives_a_restart_and_cannot_be_read_from_the_disk(open_house: Open) -> None:
    async with open_house() as house:
        first = await house.client.post("/v1/messages", json=ASKED)
        data = house.settings.data_dir
    kept = [path for path in (data / "cache").rglob("*") if path.is_file()]
    assert len(kept) == 1
    words = first.json()["content"][0]["text"].encode()[:24]
    for path in data.rglob("*"):
        if path.is_file():
            told = path.read_bytes()
            assert b"zaffre" not in told, path
            assert words not in told, path
    assert _mode(data / "cache") == 0o700
    async with open_house() as house:
        again = await house.client.post("/v1/messages", json=ASKED)
        assert again.headers["x-cache"] == "hit"
        assert again.content == first.content


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_off_means_no_hits(open_house: Open) -> None:
    async with open_house(CACHE_ENABLED="false") as house:
        for _ in range(2):
            answer = await house.client.post("/v1/messages", json=ASKED, headers=ON)
            assert "x-cache" not in answer.headers
        found = await stats(house)
        assert (found["enabled"], found["hits"], found["tiers"]) == (False, 0, {})
        assert (await house.client.delete("/api/cache")).json()["cleared"] == {}
        assert not (house.settings.data_dir / "cache").exists()


async def test_hits_count_against_rate_limits(open_house: Open) -> None:
    async with open_house(RATE_LIMIT_CHAT="3/minute") as house:
        seen = [await house.client.post("/v1/messages", json=ASKED) for _ in range(4)]
    assert [answer.status_code for answer in seen] == [200, 200, 200, 429]
    assert [answer.headers.get("x-cache") for answer in seen] == ["miss", "hit", "hit", None]


async def test_with_redis_nothing_is_on_the_disk_and_its_loss_stops_nothing(
    open_house: Open, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "TIMEOUT_S", 20)
    async with open_house(REDIS_URL=redis_server.url) as house:
        for state in ("miss", "hit"):
            answer = await house.client.post("/v1/messages", json=ASKED)
            assert answer.headers["x-cache"] == state
        assert set((await stats(house))["tiers"]) == {"redis"}
        assert not (house.settings.data_dir / "cache").exists()
        redis_server.pause()
        try:
            answer = await house.client.post("/v1/messages", json=ASKED)
            assert (answer.status_code, answer.headers["x-cache"]) == (200, "miss")
            health = (await house.client.get("/health")).json()
            assert health["status"] == "degraded"
            assert health["services"]["cache"]["status"] == "down"
            assert (await house.client.delete("/api/cache")).status_code == 503
            assert (await house.client.get("/ready")).status_code == 200
        finally:
            redis_server.resume()
