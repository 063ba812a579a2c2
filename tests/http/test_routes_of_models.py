"""Where a model's calls go, as `config.yaml` says it: strategies, tags, sessions, fallbacks."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.http.conftest import House, Open
from tests.support.wire_upstream import Reply, WireUpstream, fixed, text

PRICE = {"input": 1, "output": 1}
SPREAD = 40  # sessions


class Stations:
    """A server with two providers, `a` and `b`, and what they answer."""

    def __init__(self, house: House, a: WireUpstream, b: WireUpstream) -> None:
        self.house = house
        self.a = a
        self.b = b

    async def ask(self, model: str, *, status: int = 200, **headers: str) -> str:
        """Who answers."""
        call = {"model": model, "max_tokens": 10, "messages": [{"role": "user", "content": "x"}]}
        named = {f"x-stationmaster-{name}": value for name, value in headers.items()}
        answer = await self.house.client.post("/v1/messages", json=call, headers=named)
        assert answer.status_code == status, answer.text
        return str(answer.headers.get("x-stationmaster-provider", ""))


def catalogue(a: str, b: str) -> dict[str, Any]:
    both: list[dict[str, Any]] = [{"provider": "a"}, {"provider": "b"}]
    return {
        "providers": {
            "a": {"type": "anthropic", "base_url": a, "api_key": "k"},
            "b": {"type": "anthropic", "base_url": b, "api_key": "k"},
        },
        "models": {
            "ordered": {"price": PRICE, "targets": both},
            "weighted": {
                "price": PRICE,
                "strategy": "weighted",
                "targets": [{"provider": "a", "weight": 9}, {"provider": "b"}],
            },
            "cheap": {
                "strategy": "cost",
                "targets": [
                    {"provider": "a", "model": "claude-opus-4-5"},
                    {"provider": "b", "model": "claude-haiku-4-5"},
                ],
            },
            "quick": {"price": PRICE, "strategy": "latency", "targets": both},
            "tagged": {
                "price": PRICE,
                "targets": [{"provider": "a"}, {"provider": "b", "tags": ["eu"]}],
            },
            "safe": {
                "price": PRICE,
                "targets": [{"provider": "a"}],
                "fallbacks": ["spare"],
            },
            "spare": {"price": PRICE, "targets": [{"provider": "b"}]},
        },
    }


@pytest.fixture
async def stations(open_house: Open, tmp_path: Path) -> AsyncIterator[Stations]:
    async with WireUpstream(fixed(text("a"))) as a, WireUpstream(fixed(text("b"))) as b:
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(catalogue(a.url, b.url)))
        async with open_house(UPSTREAM_RETRIES="0", CIRCUIT_BREAKER_THRESHOLD="0") as house:
            yield Stations(house, a, b)


async def test_the_order_is_as_written(stations: Stations) -> None:
    assert [await stations.ask("ordered") for _ in range(3)] == ["a", "a", "a"]


async def test_weights_share_out_sessions_and_a_session_stays(stations: Stations) -> None:
    async def asked() -> dict[str, str]:
        names = [f"sesn_{number}" for number in range(SPREAD)]
        found = await asyncio.gather(*(stations.ask("weighted", session=name) for name in names))
        return dict(zip(names, found, strict=True))

    first = await asked()
    shares = Counter(first.values())
    assert shares["a"] > shares["b"] > 0
    assert await asked() == first


async def test_the_cheapest_and_the_quickest_come_first(stations: Stations) -> None:
    assert await stations.ask("cheap") == "b"
    assert stations.b.message_calls[-1].body["model"] == "claude-haiku-4-5"
    stations.a.script = fixed(Reply(text("a").blocks, delay=0.4))
    # Who was never asked comes first; then it is known who takes longer.
    assert {await stations.ask("quick") for _ in range(2)} <= {"a", "b"}
    assert [await stations.ask("quick") for _ in range(3)] == ["b", "b", "b"]


async def test_a_tag_of_the_call_prefers_its_target(stations: Stations) -> None:
    assert await stations.ask("tagged") == "a"
    assert await stations.ask("tagged", tags="eu,other") == "b"
    assert await stations.ask("tagged", tags="other") == "a"


@pytest.mark.parametrize(
    ("failure", "by", "status"),
    [
        (Reply(status=500), "b", 200),
        (Reply(status=503), "b", 200),
        (Reply(status=529), "b", 200),
        (Reply(status=429), "b", 200),
        # Anybody would refuse these.
        (Reply(status=400), "a", 400),
        (Reply(status=413), "a", 413),
    ],
    ids=["500", "503", "529", "429", "400", "413"],
)
async def test_a_fallback_answers_where_another_may_do_better(
    stations: Stations, failure: Reply, by: str, status: int
) -> None:
    stations.a.script = fixed(failure)
    assert await stations.ask("safe", status=status) == by
    assert len(stations.b.message_calls) == (by == "b")
    if by == "b":
        assert stations.b.message_calls[0].body["model"] == "spare"
    # What was not answered costs nothing.
    answered = (await stations.house.client.get("/v1/usage")).json()
    assert (answered["total_cost"] > 0) == (by == "b")


async def test_nobody_listens_and_a_fallback_answers(open_house: Open, tmp_path: Path) -> None:
    async with WireUpstream(fixed(text("b"))) as b:
        (tmp_path / "config.yaml").write_text(
            yaml.safe_dump(catalogue("http://127.0.0.1:1", b.url))
        )
        async with open_house(UPSTREAM_RETRIES="0") as house:
            found = Stations(house, b, b)
            # After five failures it is left alone, and asked last.
            assert [await found.ask("safe") for _ in range(7)] == ["b"] * 7
            health = (await house.client.get("/health")).json()
            each = health["services"]["upstreams"]["each"]
            assert (each["a"]["breaker"], each["b"]["breaker"]) == ("open", "closed")
