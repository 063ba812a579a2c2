"""What every request passes."""

import asyncio
from typing import Any

import pytest

from stationmaster.http.entrance import Entrance
from stationmaster.http.wire.exchange import RequestGoneError
from stationmaster.kernel.errors import Unavailable
from stationmaster.telemetry import Metrics


class Client:
    """The other side."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)


def entrance(app: Any, metrics: Metrics | None = None) -> Entrance:
    return Entrance(app, metrics=metrics or Metrics(), render=render)


def render(_scope: Any, error: Exception, _request_id: str) -> Any:
    stopping = isinstance(error, Unavailable)
    return (503, [], b"stopping") if stopping else (500, [], b"sorry")


def scope() -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": "/x", "headers": []}


async def head(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def test_an_error_that_nobody_answered_is_answered() -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise RuntimeError

    client = Client()
    await entrance(app)(scope(), client.receive, client.send)
    assert [message.get("status") for message in client.sent] == [500, None]
    assert client.sent[1]["body"] == b"sorry"
    assert (b"x-frame-options", b"DENY") in client.sent[0]["headers"]


async def test_an_answer_that_breaks_off_is_not_made_to_look_whole() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await head(send)
        raise RuntimeError

    client = Client()
    await entrance(app)(scope(), client.receive, client.send)
    assert len(client.sent) == 1


async def test_a_client_that_left_gets_nothing() -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise RequestGoneError

    client = Client()
    await entrance(app)(scope(), client.receive, client.send)
    assert client.sent == []


async def test_a_cancelled_request_is_still_counted() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await head(send)
        await asyncio.Event().wait()

    metrics, client = Metrics(), Client()
    task = asyncio.create_task(entrance(app, metrics)(scope(), client.receive, client.send))
    while not client.sent:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert b'status="200"} 1.0' in metrics.render()[0]


async def test_a_request_that_a_stopping_server_gives_up_is_told_so() -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    begun, client = asyncio.Event(), Client()
    task = asyncio.create_task(entrance(app)(scope(), client.receive, client.send))
    await begun.wait()
    task.cancel()
    await task
    assert [message.get("status") for message in client.sent] == [503, None]
    assert client.sent[1]["body"] == b"stopping"


async def test_an_id_that_an_app_sends_itself_is_kept() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"request-id", b"theirs")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    client = Client()
    await entrance(app)(scope(), client.receive, client.send)
    found = [value for name, value in client.sent[0]["headers"] if name == b"request-id"]
    assert found == [b"theirs"]


async def test_only_http_and_sockets_are_spoken() -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None: ...

    client = Client()
    with pytest.raises(NotImplementedError):
        await entrance(app)({"type": "lifespan"}, client.receive, client.send)
