"""Batches that go through providers' own interfaces, on a whole server with the vendors' SDKs."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
import yaml

from stationmaster.budgets.tables import budgets, holds
from tests.http.conftest import USER, Open
from tests.http.native import (
    GPT,
    HAIKU,
    HALF_GPT,
    HALF_HAIKU,
    PATIENCE,
    Peer,
    ended,
    opened,
    request,
    results,
)
from tests.support.batch_upstream import BatchUpstream
from tests.support.sdk import sdk


@pytest.fixture
async def peer(open_house: Open, tmp_path: Path) -> AsyncIterator[Peer]:
    async with (
        BatchUpstream() as upstream,
        opened(open_house, tmp_path, upstream) as made,
    ):
        yield made


@pytest.fixture
async def client(peer: Peer) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk(peer.house.url, USER) as made:
        yield made


async def test_a_batch_goes_there_whole_and_costs_half(
    peer: Peer, client: anthropic.AsyncAnthropic
) -> None:
    asked = [request("a", "Say one."), request("b", "Fail."), request("c", model="small")]
    batch = await client.messages.batches.create(requests=asked)
    await peer.taken(1)
    (theirs,) = peer.upstream.batches
    assert [body["model"] for body in theirs.requests.values()] == [HAIKU] * 3
    (told,) = await peer.said(batch.id, "in_progress")
    assert (told["provider"], told["requests"], told["upstream_id"]) == ("claude", 3, theirs.id)
    assert len(await peer.rows(holds.c.call_id)) == 3
    assert (await client.messages.batches.retrieve(batch.id)).request_counts.processing == 3

    peer.upstream.finish()
    counts = (await ended(client, batch.id)).request_counts
    assert (counts.succeeded, counts.errored) == (2, 1)
    found = await results(client, batch.id)
    assert "one" in found["a"].message.content[0].text
    assert found["b"].error.error.message == "It is refused."
    assert found["c"].message.usage.input_tokens == 1000
    assert await peer.costs() == {
        f"{batch.id}:0:1": HALF_HAIKU,
        f"{batch.id}:1:1": 0,
        f"{batch.id}:2:1": HALF_HAIKU,
    }
    assert await peer.rows(holds.c.call_id) == []
    # Nobody was called at the full price, and nothing is left there.
    await peer.said(batch.id, "ended")
    assert peer.upstream.calls == []
    assert theirs.deleted


async def test_a_file_goes_there_by_model_and_its_files_are_deleted(peer: Peer) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{peer.house.url}/v1", api_key=USER, max_retries=0
    ) as client:
        lines = [
            {
                "custom_id": f"r{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": GPT,
                    "max_completion_tokens": 300,
                    "messages": [{"role": "user", "content": words}],
                },
            }
            for number, words in enumerate(("Say one.", "Fail.", "Say three."))
        ]
        content = "\n".join(json.dumps(line) for line in lines).encode()
        file = await client.files.create(file=("in.jsonl", content), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        await peer.taken(1)
        peer.upstream.finish()
        async with asyncio.timeout(PATIENCE):
            while (batch := await client.batches.retrieve(batch.id)).status != "completed":
                await asyncio.sleep(0.01)
        assert batch.output_file_id is not None
        assert batch.error_file_id is not None
        out = (await client.files.content(batch.output_file_id)).text
        bad = (await client.files.content(batch.error_file_id)).text
    found = {each["custom_id"]: each for each in map(json.loads, out.splitlines())}
    assert sorted(found) == ["r0", "r2"]
    assert found["r0"]["response"]["body"]["usage"]["prompt_tokens"] == 1000
    assert json.loads(bad)["response"]["status_code"] == 400
    assert sorted((await peer.costs()).values()) == [0, HALF_GPT, HALF_GPT]
    await peer.said(batch.id, "ended")
    assert peer.upstream.files == {}


async def test_what_its_provider_does_not_take_is_made_as_calls(
    peer: Peer, client: anthropic.AsyncAnthropic
) -> None:
    batch = await client.messages.batches.create(
        requests=[
            request("native"),
            request("elsewhere", model="claude-sonnet-4-5"),  # its first provider takes none
            request("translated", model=GPT),  # of another format
            request("quick", speed="fast", model="claude-opus-4-6"),
        ]
    )
    async with asyncio.timeout(PATIENCE):
        while (await client.messages.batches.retrieve(batch.id)).request_counts.processing > 1:
            await asyncio.sleep(0.01)
    await peer.taken(1)
    assert [len(each.requests) for each in peer.upstream.batches] == [1]
    models = sorted(body["model"] for body in peer.upstream.calls)
    assert models == ["claude-opus-4-6", "claude-sonnet-4-5", GPT]
    peer.upstream.finish()
    assert (await ended(client, batch.id)).request_counts.succeeded == 4


async def test_what_a_budget_does_not_cover_is_not_sent(
    peer: Peer, client: anthropic.AsyncAnthropic
) -> None:
    # One fits: its bound is about 4,500 tokens in and 300 out at half price, some 3,000.
    subject = {"type": "project", "id": "proj_default"}
    budget = {"subject": subject, "limit_usd": "0.004"}
    answer = await peer.house.client.post("/v1/budgets", json=budget)
    assert answer.status_code < 300, answer.text
    batch = await client.messages.batches.create(
        requests=[request("fits"), request("large", max_tokens=8000)]
    )
    await peer.taken(1)
    assert len(peer.upstream.batches[0].requests) == 1
    (held,) = await peer.rows(holds.c.amount)
    assert held[0] <= 4000
    peer.upstream.finish()
    await ended(client, batch.id)
    found = await results(client, batch.id)
    assert found["fits"].type == "succeeded"
    assert "budget" in found["large"].error.error.message
    assert await peer.rows(budgets.c.spent, budgets.c.held) == [(HALF_HAIKU, 0)]


async def test_cancelling_passes_there_and_bills_what_was_done(
    peer: Peer, client: anthropic.AsyncAnthropic
) -> None:
    batch = await client.messages.batches.create(requests=[request("a"), request("b")])
    await peer.taken(1)
    await peer.said(batch.id, "in_progress")
    assert (await client.messages.batches.cancel(batch.id)).processing_status == "canceling"
    async with asyncio.timeout(PATIENCE):
        while not peer.upstream.batches[0].cancelled:
            await asyncio.sleep(0.01)
    peer.upstream.finish("cancelled", done=1)
    counts = (await ended(client, batch.id)).request_counts
    assert (counts.succeeded, counts.canceled) == (1, 1)
    assert sorted((await peer.costs()).values()) == [0, HALF_HAIKU]
    assert await peer.rows(holds.c.call_id) == []


async def test_what_was_not_done_in_time_expires_and_costs_nothing(
    peer: Peer, client: anthropic.AsyncAnthropic
) -> None:
    batch = await client.messages.batches.create(requests=[request("a"), request("b")])
    await peer.taken(1)
    peer.upstream.finish("expired", done=1)
    counts = (await ended(client, batch.id)).request_counts
    assert (counts.succeeded, counts.expired) == (1, 1)
    assert sorted((await peer.costs()).values()) == [0, HALF_HAIKU]


async def test_a_price_of_the_operators_own_is_what_is_billed(
    open_house: Open, tmp_path: Path
) -> None:
    async with (
        BatchUpstream(prompt=True) as upstream,
        opened(open_house, tmp_path, upstream, batch_price=0.25) as peer,
        sdk(peer.house.url, USER) as client,
    ):
        batch = await client.messages.batches.create(requests=[request("a")])
        await ended(client, batch.id)
        assert await peer.costs() == {f"{batch.id}:0:1": HALF_HAIKU // 2}


async def test_a_refusal_of_the_whole_is_each_requests(
    peer: Peer, client: anthropic.AsyncAnthropic
) -> None:
    peer.upstream.faults["POST /v1/messages/batches"] = ["refuse"]
    batch = await client.messages.batches.create(requests=[request("a"), request("b")])
    assert (await ended(client, batch.id)).request_counts.errored == 2
    found = await results(client, batch.id)
    assert "This is not how it is done." in found["a"].error.error.message
    assert set((await peer.costs()).values()) == {0}
    assert peer.upstream.batches == []


@pytest.mark.parametrize("fault", ["busy", "down", "cut", "lose"])
async def test_a_provider_in_trouble_is_asked_again_and_has_it_once(
    peer: Peer, client: anthropic.AsyncAnthropic, fault: Any
) -> None:
    peer.upstream.faults["POST /v1/messages/batches"] = [fault]
    batch = await client.messages.batches.create(requests=[request("a"), request("b")])
    await peer.taken(1)
    peer.upstream.finish()
    assert (await ended(client, batch.id)).request_counts.succeeded == 2
    assert len(peer.upstream.batches) == 1
    costs = [cost for cost in (await peer.costs()).values() if cost]
    assert costs == [HALF_HAIKU, HALF_HAIKU]


async def test_what_is_wrong_is_told(peer: Peer, client: anthropic.AsyncAnthropic) -> None:
    peer.upstream.faults["GET /v1/messages/batches/ID"] = ["down"] * 3
    batch = await client.messages.batches.create(requests=[request("a")])
    async with asyncio.timeout(PATIENCE):
        while not (found := await peer.progress(batch.id)) or found[0]["note"] is None:
            await asyncio.sleep(0.01)
    assert "Down." in found[0]["note"]
    peer.upstream.finish()
    await ended(client, batch.id)


async def test_there_are_no_submissions_of_a_batch_that_is_not_there(
    peer: Peer, client: anthropic.AsyncAnthropic
) -> None:
    batch = await client.messages.batches.create(requests=[request("a")])
    another = batch.id[:-1] + ("1" if batch.id.endswith("0") else "0")
    missing = await peer.house.client.get(f"/v1/batches/{another}/submissions")
    assert missing.status_code == 404


async def test_a_provider_without_batches_cannot_be_configured_for_them(
    open_house: Open, tmp_path: Path
) -> None:
    config = {"providers": {"local": {"type": "ollama", "batches": "native"}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(Exception, match="no interface for batches"):
        async with open_house():
            pass
