"""The client's batches: both twins ask the same."""

import inspect
import io
from collections.abc import Callable
from typing import Any

from stationmaster.client import AsyncClient, Client
from stationmaster.client.batches import AsyncBatchClient, BatchClient
from tests.support.scripted_http import Answer, ScriptedServer

REPLY: Any = {"id": "msgbatch_1", "data": [], "has_more": False}
RESULTS = b'{"custom_id":"a"}\n'


async def asked(*, twin: type[Any]) -> list[tuple[str, str, bytes]]:
    with ScriptedServer() as server:
        server.answers = [*([Answer.of(REPLY)] * 6), Answer(200, RESULTS)]
        into = io.BytesIO()
        client: Any = (
            Client(server.url, "key") if twin is BatchClient else AsyncClient(server.url, "key")
        )
        batches = twin(client)
        verbs: list[Callable[[], Any]] = [
            lambda: batches.create([{"custom_id": "a", "params": {}}]),
            lambda: batches.batches(limit=3, after="msgbatch_0"),
            lambda: batches.get("msgbatch_1"),
            lambda: batches.cancel("msgbatch_1"),
            lambda: batches.delete("msgbatch_1"),
            lambda: batches.ask(["one"], model="haiku", timeout=3),
            lambda: batches.results("msgbatch_1", into),
        ]
        for done in verbs:
            result = done()
            if inspect.isawaitable(result):
                await result
        assert into.getvalue() == RESULTS
        closed = client.close()
        if inspect.isawaitable(closed):
            await closed
        keyed = [request for request in server.requests if "idempotency-key" in request.headers]
        assert [request.path for request in keyed] == ["/v1/messages/batches", "/v1/batch"]
        return [(request.method, request.path, request.body) for request in server.requests]


async def test_both_twins_ask_the_same() -> None:
    found = await asked(twin=BatchClient)
    assert found == await asked(twin=AsyncBatchClient)
    assert found[1][1] == "/v1/messages/batches?limit=3&after_id=msgbatch_0"
    assert len(found) == 7
