"""`stationmaster cache` and the client behind it: what is asked, and what is printed."""

import inspect
import json
from typing import Any

import pytest

from stationmaster.cli.application import run
from stationmaster.client import AsyncClient, Client, ClientError
from stationmaster.client.cache import AsyncCacheClient, CacheClient
from tests.support.scripted_http import Answer, ScriptedServer

STATS: Any = {
    "enabled": True,
    "hits": 1200,
    "misses": 300,
    "hit_rate": 0.8,
    "tiers": {"memory": {"entries": 5, "size_bytes": 12345}},
}


def test_the_statistics_are_told(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [Answer.of(STATS), Answer.of(STATS), Answer.of({**STATS, "enabled": False})]
    assert run(["cache", "stats"]) == 0
    said = capsys.readouterr().out
    assert "1,200 hits, 300 misses (80.0 %)" in said
    assert "12,345" in said
    assert run(["-o", "json", "cache", "stats"]) == 0
    assert json.loads(capsys.readouterr().out) == STATS
    assert run(["cache", "stats"]) == 0
    assert "CACHE_ENABLED" in capsys.readouterr().out
    assert {request.path for request in server.requests} == {"/api/cache/stats"}


def test_one_tier_is_cleared_or_all(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [Answer.of({"cleared": {"memory": 3, "disk": 4}})] * 2
    assert run(["cache", "clear"]) == 0
    assert "disk" in capsys.readouterr().out
    assert run(["cache", "clear", "--type", "memory"]) == 0
    asked = [(request.method, request.path) for request in server.requests]
    assert asked == [
        ("DELETE", "/api/cache?type=all"),
        ("DELETE", "/api/cache?type=memory"),
    ]
    assert run(["cache", "clear", "--type", "everything"]) != 0


async def asked(twin: type[Any]) -> list[tuple[str, str]]:
    with ScriptedServer() as server:
        server.answers = [Answer.of(STATS), Answer.of({"cleared": {"disk": 2}}), Answer(200, b"[]")]
        make: Any = Client if twin is CacheClient else AsyncClient
        client = make(server.url, "key")
        cache = twin(client)

        async def of(result: Any) -> Any:
            return await result if inspect.isawaitable(result) else result

        assert await of(cache.stats()) == STATS
        assert await of(cache.clear("disk")) == {"disk": 2}
        with pytest.raises(ClientError):
            await of(cache.stats())
        await of(client.close())
        return [(request.method, request.path) for request in server.requests]


async def test_both_twins_ask_the_same() -> None:
    assert await asked(CacheClient) == await asked(AsyncCacheClient)
