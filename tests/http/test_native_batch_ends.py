"""How batches at providers end that nobody ends, on one server and on several."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import func

from stationmaster.batches.batches import AT_ONCE
from stationmaster.batches.courier import GIVE_UP_MS, LAST_TRIES
from stationmaster.batches.tables import batch_requests, batch_submissions, batches
from stationmaster.budgets.tables import budgets, holds, ledger
from stationmaster.jobs import Lease
from stationmaster.storage import Prepared, sqlite
from tests.http.conftest import USER, Open
from tests.http.native import (
    GPT,
    HALF_GPT,
    HALF_HAIKU,
    PATIENCE,
    Peer,
    ended,
    opened,
    request,
    results,
)
from tests.support.batch_upstream import Batch, BatchUpstream
from tests.support.sdk import sdk


async def budgeted(peer: Peer) -> None:
    budget = {"subject": {"type": "project", "id": "proj_default"}, "limit_usd": "100"}
    answer = await peer.house.client.post("/v1/budgets", json=budget)
    assert answer.status_code < 300, answer.text


def file_client(peer: Peer) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{peer.house.url}/v1", api_key=USER, max_retries=0)


async def of_a_file(client: openai.AsyncOpenAI, words: list[str]) -> Any:
    lines = [
        {
            "custom_id": f"r{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": GPT,
                "max_completion_tokens": 300,
                "messages": [{"role": "user", "content": each}],
            },
        }
        for number, each in enumerate(words)
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )


def counted(batch: Any) -> tuple[int, int, int]:
    counts = batch.request_counts
    return counts.total, counts.completed, counts.failed


@pytest.mark.parametrize("how", ["never ends", "is away"])
async def test_what_has_no_end_is_given_up_after_a_week(
    open_house: Open, tmp_path: Path, how: str
) -> None:
    async with (
        BatchUpstream() as upstream,
        opened(open_house, tmp_path, upstream) as peer,
        sdk(peer.house.url, USER) as client,
    ):
        await budgeted(peer)
        batch = await client.messages.batches.create(requests=[request("a"), request("b")])
        await peer.said(batch.id, "in_progress")
        held = sorted(row[0] for row in await peer.rows(holds.c.amount))
        assert len(held) == 2
        if how == "is away":
            upstream.faults["GET /v1/messages/batches/ID"] = ["down"] * 1000
            await peer.set(batch_submissions, failures=LAST_TRIES)
        await peer.set(batch_submissions, sent_at=batch_submissions.c.sent_at - GIVE_UP_MS)
        await peer.set(batch_submissions, next_at=0)
        counts = (await ended(client, batch.id)).request_counts
        assert (counts.errored, counts.processing) == (2, 0)
        found = await results(client, batch.id)
        assert "has no answer to this request" in found["a"].error.error.message
        (told,) = await peer.said(batch.id, "ended")
        assert ("not ended it in a week" if how == "never ends" else "Down.") in told["note"]
        # What nobody knows is billed as the most that it can have cost, and nothing stays held.
        assert sorted((await peer.costs()).values()) == held
        assert await peer.rows(budgets.c.spent, budgets.c.held) == [(sum(held), 0)]
        # Whatever comes of it later changes nothing.
        upstream.faults.clear()
        upstream.finish()
        asked = len(upstream.asked)
        another = await client.messages.batches.create(requests=[request("c")])
        await peer.taken(2)
        upstream.finish()
        await ended(client, another.id)
        (first, _) = upstream.batches
        assert not first.deleted
        assert [step for step in upstream.asked[asked:] if step.endswith("/results")] == [
            "GET /v1/messages/batches/ID/results"
        ]
        assert sum((await peer.costs()).values()) == sum(held) + HALF_HAIKU


async def test_a_server_that_was_away_for_a_week_tries_again(
    open_house: Open, tmp_path: Path
) -> None:
    async with (
        BatchUpstream() as upstream,
        opened(open_house, tmp_path, upstream) as peer,
        sdk(peer.house.url, USER) as client,
    ):
        batch = await client.messages.batches.create(requests=[request("a")])
        await peer.said(batch.id, "in_progress")
        upstream.faults["GET /v1/messages/batches/ID"] = ["down"] * 2
        upstream.finish()
        await peer.set(batch_submissions, sent_at=batch_submissions.c.sent_at - GIVE_UP_MS)
        assert (await ended(client, batch.id)).request_counts.succeeded == 1
        assert list((await peer.costs()).values()) == [HALF_HAIKU]


async def test_our_own_day_is_over_before_the_providers(
    open_house: Open, tmp_path: Path, migrated_url: str
) -> None:
    async with (
        BatchUpstream() as upstream,
        opened(open_house, tmp_path, upstream, env={"DATABASE_URL": migrated_url}) as peer,
        sdk(peer.house.url, USER) as client,
        file_client(peer) as files,
    ):
        batch = await client.messages.batches.create(requests=[request("a"), request("b")])
        of_file = await of_a_file(files, ["Say one.", "Say two.", "Say three."])
        for each in (batch.id, of_file.id):
            await peer.said(each, "in_progress")
        await peer.set(batches, expires_at=1)
        async with asyncio.timeout(PATIENCE):
            while not all(each.cancelled for each in upstream.batches):
                await asyncio.sleep(0.01)
        upstream.finish("cancelled", done=1)
        counts = (await ended(client, batch.id)).request_counts
        assert (counts.succeeded, counts.expired, counts.canceled) == (1, 1, 0)
        found = await results(client, batch.id)
        assert (found["a"].type, found["b"].type) == ("succeeded", "expired")
        async with asyncio.timeout(PATIENCE):
            while (of_file := await files.batches.retrieve(of_file.id)).status != "expired":
                await asyncio.sleep(0.01)
        assert sorted((await peer.costs()).values()) == [0, 0, 0, HALF_GPT, HALF_HAIKU]
        assert await peer.rows(holds.c.call_id) == []


async def test_it_is_told_how_far_its_provider_is(open_house: Open, tmp_path: Path) -> None:
    async with (
        BatchUpstream() as upstream,
        opened(open_house, tmp_path, upstream) as peer,
        file_client(peer) as client,
    ):
        batch = await of_a_file(client, ["Say one.", "Fail.", "Say three.", "Say four."])
        await peer.said(batch.id, "in_progress")
        (theirs,) = upstream.batches
        for place, custom_id in enumerate(list(theirs.requests)[:3]):
            theirs.results[custom_id] = ("errored" if place == 1 else "succeeded", {})
        async with asyncio.timeout(PATIENCE):
            while not any((told := counted(await client.batches.retrieve(batch.id)))[1:]):
                await asyncio.sleep(0.01)
        assert told == (4, 2, 1)
        (listed,) = (await client.batches.list()).data
        assert counted(listed) == told

        # While its results come in none counts twice, though their deletion fails for now.
        upstream.faults["DELETE /v1/files/ID"] = ["down"] * 2
        upstream.finish()
        seen = set()
        async with asyncio.timeout(PATIENCE):
            while batch.status != "completed":
                batch = await client.batches.retrieve(batch.id)
                seen.add(counted(batch))
                await asyncio.sleep(0.01)
        assert seen <= {(4, 2, 1), (4, 3, 1)}
        (said,) = await peer.said(batch.id, "ended")
        assert (said["counts"]["succeeded"], said["counts"]["errored"]) == (3, 1)


async def test_a_project_that_keeps_its_calls_keeps_these(open_house: Open, tmp_path: Path) -> None:
    policy = "/api/admin/projects/proj_default/call-policy"
    async with (
        BatchUpstream() as upstream,
        opened(open_house, tmp_path, upstream) as peer,
        sdk(peer.house.url, USER) as client,
    ):
        house = peer.house
        (await house.client.put(policy, json={"enabled": True})).raise_for_status()
        asked = [request("a", "Say zaffre."), request("b", "Fail."), request("c", "Say mauve.")]
        batch = await client.messages.batches.create(requests=asked)
        await peer.taken(1)
        upstream.finish("expired", done=2)
        await ended(client, batch.id)
        async with asyncio.timeout(PATIENCE):
            while len(listed := (await house.client.get("/v1/calls")).json()["calls"]) < 2:
                await asyncio.sleep(0.01)
        # The third was never made: there is nothing to keep of it.
        assert {each["id"] for each in listed} == {f"{batch.id}:0:1", f"{batch.id}:1:1"}
        one = (await house.client.get(f"/v1/calls/{batch.id}:0:1")).json()
        assert "Say zaffre." in json.dumps(one["request"])
        assert "Here it is: zaffre" in json.dumps(one["answer"])
        refused = (await house.client.get(f"/v1/calls/{batch.id}:1:1")).json()
        assert "It is refused." in json.dumps(refused["answer"])


def words_of(sent: list[Batch]) -> Counter[str]:
    bodies = [body for each in sent for body in each.requests.values()]
    return Counter(body["messages"][-1]["content"] for body in bodies)


async def test_two_servers_that_both_lead_send_and_settle_once(
    open_house: Open, tmp_path: Path, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Lease.take

    async def taken(lease: Lease) -> bool:
        if lease._name != "batches":
            return await take(lease)
        lease._held = True  # as two do whose clocks differ
        return True

    monkeypatch.setattr(Lease, "take", taken)
    env = {"DATABASE_URL": migrated_url}
    async with (
        BatchUpstream(prompt=True) as upstream,
        opened(open_house, tmp_path, upstream, env=env) as one,
        opened(open_house, tmp_path, upstream, env=env) as two,
        sdk(one.house.url, USER) as first,
        sdk(two.house.url, USER) as second,
    ):
        await budgeted(one)
        upstream.faults = {
            "POST /v1/messages/batches": ["lose", "busy"],
            "GET /v1/messages/batches/ID/results": ["cut"],
            "DELETE /v1/messages/batches/ID": ["down"],
        }
        made = await asyncio.gather(
            *(
                client.messages.batches.create(
                    requests=[request(f"r{n}", f"Say {place}-{n}.") for n in range(8)]
                )
                for place, client in enumerate((first, second, first, second))
            )
        )
        for client, batch in zip((second, first, second, first), made, strict=True):
            assert (await ended(client, batch.id)).request_counts.succeeded == 8
            # The answers are each its own, whichever server fetched them.
            found = await results(client, batch.id)
            place = made.index(batch)
            for n in range(8):
                assert found[f"r{n}"].message.content[0].text == f"Here it is: {place}-{n}"
        sent = words_of(upstream.batches)
        assert set(sent) == {f"Say {place}-{n}." for place in range(4) for n in range(8)}
        assert set(sent.values()) == {1}
        for batch in made:
            async with asyncio.timeout(PATIENCE):
                while any(each["state"] != "ended" for each in await one.progress(batch.id)):
                    await asyncio.sleep(0.01)
        costs = [cost for cost in (await one.costs()).values() if cost]
        assert costs == [HALF_HAIKU] * 32
        assert await one.rows(holds.c.call_id) == []
        assert await one.rows(budgets.c.spent, budgets.c.held) == [(32 * HALF_HAIKU, 0)]


class Watch:
    """How many statements there are on requests and their holds, and the most rows of one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statements = 0
        self.rows = 0
        transaction = sqlite._Transaction
        for name in ("execute", "run", "run_many"):
            monkeypatch.setattr(transaction, name, self._watched(getattr(transaction, name)))

    def _watched(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def run(tx: Any, statement: Any, parameters: Any = ()) -> Any:
            said = str(statement.statement if isinstance(statement, Prepared) else statement)
            found = method(tx, statement, parameters) if parameters else method(tx, statement)
            if any(name in said for name in ("batch_requests", "holds", "ledger")):
                self.statements += 1
                sizes = [len(parameters)] if isinstance(parameters, list) else []
                sizes += [len(found)] if isinstance(found, list) else []
                self.rows = max(self.rows, *sizes, 0)
            return found

        return run


async def test_a_large_batch_goes_in_pieces(
    open_house: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it takes is so much for each piece, and no piece is larger than the next one."""
    watch = Watch(monkeypatch)
    async with (
        BatchUpstream() as upstream,
        opened(open_house, tmp_path, upstream) as peer,
        sdk(peer.house.url, USER) as client,
    ):
        used = []
        for round_, size in enumerate((AT_ONCE, 3 * AT_ONCE)):
            asked: list[Any] = [request(f"r{n}", "Hi.", max_tokens=1) for n in range(size)]
            before = watch.statements
            batch = await client.messages.batches.create(requests=asked)
            await peer.taken(round_ + 1)
            upstream.finish()
            assert (await ended(client, batch.id)).request_counts.succeeded == size
            await peer.said(batch.id, "ended")
            used.append(watch.statements - before)
        assert watch.rows <= AT_ONCE
        assert used[1] < 3 * AT_ONCE / 10  # statements, of so many requests
        assert await peer.rows(func.count(ledger.c.call_id)) == [(4 * AT_ONCE,)]
        assert await peer.rows(func.count(holds.c.call_id)) == [(0,)]
        assert await peer.rows(func.max(batch_requests.c.attempts)) == [(1,)]
