"""Message Batches over real sockets, driven by Anthropic's own SDK."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import pytest
from sqlalchemy import func, select

from stationmaster.budgets.tables import holds, ledger
from stationmaster.providers.base import ProviderReply, ProviderRequest
from stationmaster.storage import open_database
from tests.http.conftest import ADMIN, USER, House, Open
from tests.http.native import ended, results
from tests.support.sdk import check, sdk

MODEL = "claude-haiku-4-5"


def request(custom_id: str, words: str = "Hello", **more: Any) -> Any:
    message = {"role": "user", "content": words}
    params = {"model": MODEL, "max_tokens": 50, "messages": [message], **more}
    return {"custom_id": custom_id, "params": params}


@pytest.fixture
async def client(house: House) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk(house.url, USER) as made:
        yield made


async def test_the_sdk_makes_a_batch_and_reads_what_came_of_it(
    client: anthropic.AsyncAnthropic,
) -> None:
    batch = check(
        await client.messages.batches.create(
            requests=[request("one"), request("two"), request("bad", model="no-such-model")]
        )
    )
    assert batch.processing_status == "in_progress"
    assert batch.results_url is None
    done = await ended(client, batch.id)
    counts = done.request_counts
    assert (counts.succeeded, counts.errored, counts.processing) == (2, 1, 0)
    found = await results(client, batch.id)
    assert found["one"].message.usage.output_tokens > 0
    assert found["two"].type == "succeeded"
    assert found["bad"].error.error.type == "not_found_error"


async def test_each_request_is_billed_once(house: House, client: anthropic.AsyncAnthropic) -> None:
    names = [f"r{number}" for number in range(12)]
    batch = await client.messages.batches.create(requests=[request(name) for name in names])
    await ended(client, batch.id)
    database = open_database(house.settings.database_url.get_secret_value())

    def both(tx: Any) -> tuple[set[str], int]:
        lines = tx.execute(select(ledger.c.call_id)).scalars().all()
        return set(lines), tx.execute(select(func.count()).select_from(holds)).scalar_one()

    # Each call is found by its batch, its place in it, and the attempt.
    expected = {f"{batch.id}:{number}:1" for number in range(12)}
    assert await database.read(both) == (expected, 0)
    await database.close()


async def test_the_sdk_lists_cancels_and_deletes(
    open_house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(BATCH_CONCURRENCY="1") as house, sdk(house.url, USER) as client:
        go, began = asyncio.Event(), asyncio.Event()
        provider = house.application.provider
        real = provider.send

        async def slow(request: ProviderRequest) -> ProviderReply:
            began.set()
            await go.wait()
            return await real(request)

        monkeypatch.setattr(provider, "send", slow)
        batches = client.messages.batches
        made = [(await batches.create(requests=[request("a"), request("b")])).id for _ in range(3)]
        await began.wait()
        page = await batches.list(limit=2)
        assert [batch.id for batch in page.data] == made[:0:-1]
        assert page.has_more
        assert [check(batch).id async for batch in batches.list(limit=1)] == made[::-1]
        assert [b.id for b in (await batches.list(before_id=made[0], limit=1)).data] == [made[1]]

        with pytest.raises(anthropic.ConflictError):
            await batches.delete(made[0])
        with pytest.raises(anthropic.NotFoundError):
            await client.get(f"/v1/messages/batches/{made[0]}/results", cast_to=httpx.Response)
        first = check(await batches.cancel(made[0]))
        assert first.processing_status == "canceling"
        assert first.cancel_initiated_at is not None
        assert (first.request_counts.processing, first.request_counts.canceled) == (1, 1)
        for other in made[1:]:
            assert (await batches.cancel(other)).processing_status == "ended"
        go.set()
        done = await ended(client, made[0])
        assert (done.request_counts.succeeded, done.request_counts.canceled) == (1, 1)
        assert {r.type for r in (await results(client, made[0])).values()} == {
            "succeeded",
            "canceled",
        }
        assert check(await batches.delete(made[0])).id == made[0]
        with pytest.raises(anthropic.NotFoundError):
            await batches.retrieve(made[0])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param({"requests": []}, "1 to 100000", id="empty"),
        pytest.param({"requests": [request("a"), request("a")]}, "unique", id="same id"),
        pytest.param({"requests": [request("a", stream=True)]}, "stream", id="stream"),
        pytest.param({"requests": [request("a")], "x": 1}, "unknown field", id="unknown"),
        pytest.param([], "Expected", id="no object"),
    ],
)
async def test_what_is_wrong_is_refused_in_anthropics_shape(
    house: House, body: Any, words: str
) -> None:
    answer = await house.client.post("/v1/messages/batches", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert words in answer.json()["error"]["message"]
    listed = (await house.client.get("/v1/messages/batches")).json()
    assert listed == {"data": [], "has_more": False, "first_id": None, "last_id": None}


async def test_anothers_batch_is_not_there(
    house: House, client: anthropic.AsyncAnthropic, stranger: dict[str, str]
) -> None:
    batch = await client.messages.batches.create(requests=[request("a")])
    here = f"/v1/messages/batches/{batch.id}"
    for method, path in (
        ("GET", here),
        ("GET", f"{here}/results"),
        ("POST", f"{here}/cancel"),
        ("DELETE", here),
    ):
        answer = await house.client.request(method, path, headers=stranger)
        assert answer.status_code == 404, (method, path)
        assert answer.json()["error"]["type"] == "not_found_error"


async def test_a_batch_ends_with_its_key(open_house: Open) -> None:
    async with open_house() as house:
        body = {"name": "made", "permissions": ["write:messages"]}
        made = (await house.client.post("/api/admin/keys", json=body)).json()
        house.application.executor._busy = lambda _own: True
        async with sdk(house.url, made["key"]) as client:
            batch = await client.messages.batches.create(requests=[request("a")])
        gone = await house.client.delete(f"/api/admin/keys/{made['id']}")
        assert gone.status_code < 300, gone.text
        house.application.executor._busy = lambda _own: False
        async with sdk(house.url, ADMIN) as client:
            await ended(client, batch.id)
            found = await results(client, batch.id)
        assert found["a"].error.error.type == "authentication_error"


async def test_a_budget_holds_in_a_batch(house: House, client: anthropic.AsyncAnthropic) -> None:
    subject = {"type": "project", "id": "proj_default"}
    budget = await house.client.post(
        "/v1/budgets", json={"subject": subject, "limit_usd": "0.000001"}
    )
    assert budget.status_code < 300, budget.text
    batch = await client.messages.batches.create(requests=[request("a"), request("b")])
    await ended(client, batch.id)
    kinds = {found.error.error.type for found in (await results(client, batch.id)).values()}
    assert kinds == {"billing_error"}


async def test_a_batch_survives_its_server(open_house: Open) -> None:
    async with open_house(BATCH_CONCURRENCY="0") as house, sdk(house.url, USER) as client:
        batch = await client.messages.batches.create(requests=[request("a"), request("b")])
    async with open_house() as house, sdk(house.url, USER) as client:
        done = await ended(client, batch.id)
        assert done.request_counts.succeeded == 2
