"""What is decided on one server holds on another: revocation, and tickets that are good once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.server import ServerProcess

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

CALL = {"model": "haiku", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi."}]}
TICKETS = 12


@pytest.fixture(params=["sqlite", "postgresql"])
async def replicas(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[list[ServerProcess]]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/shared.db"
    else:
        url = request.getfixturevalue("postgres_url")
    env = {
        "DATABASE_URL": url,
        "SECRET_KEY": "a-secret-that-replicas-share",
        "AGENT": "scripted",
        "PROVIDER": "offline",
    }
    async with AsyncExitStack() as stack:
        servers = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            server = ServerProcess(tmp_path / name, env)
            servers.append(await stack.enter_async_context(server))
        yield servers


async def test_what_is_revoked_here_spends_nothing_there(replicas: list[ServerProcess]) -> None:
    here, there = replicas
    for _ in range(5):
        made = (await here.client.post("/api/admin/keys", json={"name": "spender"})).json()
        headers = {"authorization": f"Bearer {made['key']}"}
        served = await there.client.post("/v1/messages", json=CALL, headers=headers)
        assert served.status_code == 200, served.text
        (await here.client.delete(f"/api/admin/keys/{made['id']}")).raise_for_status()
        refused = await there.client.post("/v1/messages", json=CALL, headers=headers)
        assert refused.status_code == 401, refused.text
        assert refused.json()["error"]["type"] == "authentication_error"
        usage = await here.client.get("/v1/budgets")
        assert usage.status_code == 200


async def test_nor_while_it_is_being_revoked(replicas: list[ServerProcess]) -> None:
    here, there = replicas
    made = (await here.client.post("/api/admin/keys", json={"name": "spender"})).json()
    headers = {"authorization": f"Bearer {made['key']}"}
    ended = asyncio.Event()

    async def spend() -> list[int]:
        late = []
        while True:
            after = ended.is_set()  # the revocation had been acknowledged before this was sent
            answer = await there.client.post("/v1/messages", json=CALL, headers=headers)
            if after:
                late.append(answer.status_code)
                if len(late) == 5:
                    return late

    spenders = [asyncio.create_task(spend()) for _ in range(8)]
    (await here.client.delete(f"/api/admin/keys/{made['id']}")).raise_for_status()
    ended.set()
    for late in await asyncio.gather(*spenders):
        assert late == [401] * 5


async def test_a_ticket_opens_one_socket_on_all_servers_together(
    replicas: list[ServerProcess],
) -> None:
    tickets = []
    for number in range(TICKETS):
        issuer = replicas[number % 2]
        answer = await issuer.client.post("/v1/stream/tickets", json={})
        assert answer.status_code == 201, answer.text
        tickets.append(answer.json()["ticket"])

    async def open_one(server: ServerProcess, ticket: str) -> Any:
        url = server.url.replace("http://", "ws://") + f"/v1/stream?ticket={ticket}"
        try:
            async with connect(url, proxy=None) as socket:
                await socket.send(json.dumps({"type": "ping"}))
                return json.loads(await socket.recv())["type"]
        except InvalidStatus as refused:
            return refused.response.status_code

    for ticket in tickets:
        told = await asyncio.gather(*(open_one(server, ticket) for server in replicas * 2))
        assert sorted(map(str, told)) == ["401", "401", "401", "pong"]
    for server in replicas:
        assert "/v1/stream" in server.output
        assert not [ticket for ticket in tickets if ticket in server.output]
