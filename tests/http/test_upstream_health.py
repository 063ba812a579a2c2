"""What `/health` and the metrics say of the providers that models have."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from stationmaster.bootstrap import modelling
from tests.http.conftest import Open
from tests.support.wire_upstream import Reply, WireUpstream, fixed, text

CONFIG = """
providers:
  shaky: {{type: anthropic, base_url: "{url}", api_key: k, max_concurrent: 1}}
models:
  shaky-1: {{targets: [{{provider: shaky}}], price: {{input: 1, output: 1}}}}
"""
CALL: dict[str, Any] = {
    "model": "shaky-1",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "x"}],
}
CARE = {
    "UPSTREAM_RETRIES": "0",
    "CIRCUIT_BREAKER_THRESHOLD": "5",
    "CIRCUIT_BREAKER_RECOVERY": "1s",
}


async def test_a_breaker_that_opens_is_told_and_one_that_closes_too(
    open_house: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modelling, "TELL_S", 0.01)
    monkeypatch.setattr("stationmaster.http.health.FRESH_S", 0.0)
    replies = [Reply(status=500)] * 5
    async with WireUpstream(lambda _: replies.pop() if replies else text("fine")) as upstream:
        (tmp_path / "config.yaml").write_text(CONFIG.format(url=upstream.url))
        async with open_house(**CARE) as house:

            async def told() -> Any:
                return (await house.client.get("/health")).json()

            before = await told()
            assert before["services"]["upstreams"] == {
                "status": "ok",
                "upstreams": 2,
                "open": 0,
                "active": 0,
                "waiting": 0,
                "each": {name: _idle() for name in ("offline", "shaky")},
            }
            for _ in range(5):
                assert (await house.client.post("/v1/messages", json=CALL)).status_code == 500
            refused = await house.client.post("/v1/messages", json=CALL)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert len(upstream.calls) == 5
            now = await told()
            assert now["status"] == now["services"]["upstreams"]["status"] == "degraded"
            assert now["services"]["upstreams"]["each"]["shaky"]["breaker"] == "open"
            async with httpx.AsyncClient(base_url=house.url) as anybody:
                part = (await anybody.get("/health")).json()["services"]["upstreams"]
            assert part["open"] == 1
            assert "each" not in part  # names are the operator's
            assert (await house.client.get("/ready")).status_code == 200
            await _metric(house.client, 'upstream_breaker{provider="shaky",state="open"} 1.0')
            async with asyncio.timeout(30):
                while (await house.client.post("/v1/messages", json=CALL)).status_code != 200:
                    await asyncio.sleep(0.05)
            assert (await told())["status"] == "ok"
            await _metric(house.client, 'upstream_breaker{provider="shaky",state="closed"} 1.0')
            # What is configured no more is told no more.
            (tmp_path / "config.yaml").write_text("models: {}\n")
            house.application.reread.set()
            await _metric(house.client, 'provider="shaky",state', gone=True)


async def test_by_default_a_breaker_opens_after_five_failures_for_half_a_minute(
    open_house: Open, tmp_path: Path
) -> None:
    async with WireUpstream(lambda _: Reply(status=500)) as upstream:
        (tmp_path / "config.yaml").write_text(CONFIG.format(url=upstream.url))
        async with open_house(UPSTREAM_RETRIES="0") as house:
            for _ in range(5):
                assert (await house.client.post("/v1/messages", json=CALL)).status_code == 500
            refused = await house.client.post("/v1/messages", json=CALL)
            assert refused.status_code == 503
            # More than half of it is left, however slow this machine is.
            assert 15 < int(refused.headers["retry-after"]) <= 30
            assert len(upstream.calls) == 5


def _idle() -> dict[str, Any]:
    return {
        "breaker": "closed",
        "active": 0,
        "waiting": 0,
        "retries_left": 10,
        "first_byte_ms": None,
    }


async def _metric(client: httpx.AsyncClient, line: str, *, gone: bool = False) -> None:
    async with asyncio.timeout(30):
        while (line in (await client.get("/metrics")).text) == gone:
            await asyncio.sleep(0.02)


async def test_who_waits_for_a_place_is_counted(open_house: Open, tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with WireUpstream(fixed(Reply(hold=gate))) as upstream:
        (tmp_path / "config.yaml").write_text(CONFIG.format(url=upstream.url))
        async with open_house(**CARE) as house:
            asked = [
                asyncio.create_task(house.client.post("/v1/messages", json=CALL)) for _ in range(3)
            ]
            async with asyncio.timeout(30):
                while True:
                    part = (await house.client.get("/health")).json()["services"]["upstreams"]
                    if (part["active"], part["waiting"]) == (1, 2):
                        break
                    await asyncio.sleep(0.05)
            gate.set()
            assert {(await each).status_code for each in asked} == {200}
