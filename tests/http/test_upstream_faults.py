"""Whatever a provider does on the wire: the client's own shape of error, and nothing left behind.

Every client format at every provider format, streamed and not, on real sockets.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.http.conftest import House, Open
from tests.support import vendor_answers as wire
from tests.support.books import assert_nothing_open, query
from tests.support.raw_upstream import HEAD, STREAM_HEAD, RawUpstream, chunk

ROUTES = {
    "messages": "/v1/messages",
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
}
KINDS = ("anthropic", "openai")
PAIRS = [(client, kind) for client in ROUTES for kind in KINDS]
CASES = [(*pair, stream) for pair in PAIRS for stream in (False, True)]
SECRET = "sk-of-the-server-0123456789"
CONFIG = f"""
providers:
  a: {{{{type: anthropic, base_url: "{{url}}", api_key: {SECRET}}}}}
  o: {{{{type: openai, base_url: "{{url}}/v1", api_key: {SECRET}}}}}
models:
  anthropic: {{{{targets: [{{{{provider: a, model: m}}}}], price: {{{{input: 1, output: 5}}}}}}}}
  openai: {{{{targets: [{{{{provider: o, model: m}}}}], price: {{{{input: 1, output: 5}}}}}}}}
"""
ALONE = {"UPSTREAM_RETRIES": "0", "CIRCUIT_BREAKER_THRESHOLD": "0"}
SETTLED_SECONDS = 10.0


@dataclass(frozen=True)
class Desk:
    """A server whose providers are one upstream."""

    house: House
    data: Path

    def body(self, client: str, kind: str, stream: bool) -> dict[str, Any]:
        asked: dict[str, Any] = {"model": kind, "stream": stream}
        if client == "responses":
            return {**asked, "input": "hi", "max_output_tokens": 100}
        return {**asked, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}

    async def ask(self, client: str, kind: str, stream: bool) -> httpx.Response:
        asked = self.body(client, kind, stream)
        return await self.house.client.post(ROUTES[client], json=asked)

    async def billed(self) -> tuple[int, str]:
        """Cost and outcome of the one call since the last time; no hold and no slot is left."""
        routes = self.house.services.gateway.models.routes
        upstreams = [routes[kind].targets[0].upstream for kind in KINDS]
        async with asyncio.timeout(SETTLED_SECONDS):
            while any(upstream.active for upstream in upstreams):
                await asyncio.sleep(0.01)
            while query(self.data, "SELECT 1 FROM holds"):
                await asyncio.sleep(0.01)
        assert_nothing_open(self.data)
        rows = query(self.data, "SELECT cost, outcome FROM ledger ORDER BY rowid")
        self.seen.append(len(rows))
        assert len(rows) == self.seen[-2] + 1
        cost, outcome = rows[-1]
        return cost, outcome

    seen: list[int] = field(default_factory=lambda: [0])


@asynccontextmanager
async def desk(open_house: Open, directory: Path, url: str, **env: str) -> AsyncIterator[Desk]:
    (directory / "config.yaml").write_text(CONFIG.format(url=url))
    async with open_house(**ALONE, **env) as house:
        yield Desk(house, directory / "data")


LONG = "Ja — yes, it is, and so it goes on for a while, until it stops. 🚂"


def frames(kind: str, text: str = LONG) -> list[bytes]:
    if kind == "openai":
        return wire.completion_frames("m", text, include_usage=True)
    return wire.named_frames(wire.message_events("m", text))


def whole(kind: str, text: str = "Yes.") -> bytes:
    made = wire.completion if kind == "openai" else wire.message
    return wire.encoded(made("m", text))


def error_of(client: str, body: Any) -> dict[str, Any]:
    """The error, checked for the shape of its route."""
    assert SECRET not in json.dumps(body)
    error = body["error"]
    if client == "messages":
        assert body["type"] == "error"
        assert {"type", "message"} <= set(error)
    else:
        assert set(error) >= {"message", "type", "param", "code"}, body
    assert error["message"]
    return dict(error)


def events_of(client: str, stream: str) -> list[dict[str, Any]]:
    """The events of a stream; pings are passed over. Fails where it ends as if all were well."""
    datas = [
        line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")
    ]
    events = [json.loads(data) for data in datas if data != "[DONE]"]
    return [event for event in events if event.get("type") != "ping"]


def broke_off(client: str, answer: httpx.Response) -> None:
    """A stream that was begun ends with an error and with nothing that looks like a clean end."""
    assert answer.status_code == 200
    events = events_of(client, answer.text)
    last = events[-1]
    if client == "chat":
        error_of(client, last)
        assert "[DONE]" not in answer.text
        assert not [e for e in events if e.get("choices") and e["choices"][0]["finish_reason"]]
    elif client == "messages":
        error_of(client, last)
        assert "message_stop" not in answer.text
    else:
        assert last["type"] in {"error", "response.failed"}
        assert "response.completed" not in answer.text
    assert SECRET not in answer.text


def refused(client: str, answer: httpx.Response, *statuses: int) -> None:
    assert answer.status_code in statuses, answer.text
    error_of(client, answer.json())


class Told(RawUpstream):
    """Writes what it was told to; with `hang` it then waits for its client to go."""

    def __init__(self) -> None:
        super().__init__(self._tell)
        self.raw = b""
        self.hang = False

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.raw)
        await writer.drain()
        if self.hang:
            await self.until_gone(reader)

    async def closed(self) -> None:
        """The last call was hung up on."""
        await asyncio.wait_for(self.gone.wait(), SETTLED_SECONDS)
        self.gone.clear()


def begun(kind: str) -> bytes:
    """The beginning of a stream."""
    return STREAM_HEAD + b"".join(chunk(frame) for frame in frames(kind)[:5])


async def test_a_provider_that_cannot_be_connected_to(open_house: Open, tmp_path: Path) -> None:
    """Its queue of connections is full: another gets no answer at all."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        url = f"http://127.0.0.1:{address[1]}"
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)
            async with desk(open_house, tmp_path, url, CONNECT_TIMEOUT="200ms") as at:
                for client, kind, stream in CASES:
                    refused(client, await at.ask(client, kind, stream), 502, 504)
                    assert await at.billed() == (0, "error")


async def test_a_first_minute_of_silence_is_bridged_and_then_ended(
    open_house: Open, tmp_path: Path
) -> None:
    """The minute is scaled to a second and a half, the pings to one."""
    patience = {"FIRST_BYTE_TIMEOUT": "1500ms", "KEEPALIVE_INTERVAL": "1s", "API_TIMEOUT": "2s"}
    async with Told() as upstream, desk(open_house, tmp_path, upstream.url, **patience) as at:
        upstream.hang = True
        for client, kind, stream in CASES:
            answer = await at.ask(client, kind, stream)
            if stream:
                assert "ping" in answer.text
                broke_off(client, answer)
            else:
                refused(client, answer, 504)
            await upstream.closed()
            cost, outcome = await at.billed()
            # A whole answer was being made for as long as it may take: nobody knows how far it got.
            assert (cost > 0, outcome) == ((False, "error") if stream else (True, "unknown"))


@pytest.mark.parametrize("how", ["dies", "hangs", "ends", "garbage"])
async def test_a_stream_that_does_not_come_to_its_end(
    open_house: Open, tmp_path: Path, how: str
) -> None:
    ending = {"dies": b"", "hangs": b"", "ends": b"0\r\n\r\n", "garbage": b"zz\r\nnot a chunk"}
    patience = {"INACTIVITY_TIMEOUT": "500ms" if how == "hangs" else "30s"}
    async with Told() as upstream, desk(open_house, tmp_path, upstream.url, **patience) as at:
        upstream.hang = how == "hangs"
        for client, kind in PAIRS:
            upstream.raw = begun(kind) + ending[how]
            broke_off(client, await at.ask(client, kind, stream=True))
            if how == "hangs":
                await upstream.closed()
            cost, outcome = await at.billed()
            assert cost > 0
            assert outcome == "partial"


@pytest.mark.parametrize(
    "raw", [b"not http\r\n\r\n", b"\x00" * 64, b""], ids=["words", "zeros", "nothing"]
)
async def test_garbage_in_place_of_an_answer(open_house: Open, tmp_path: Path, raw: bytes) -> None:
    async with Told() as upstream, desk(open_house, tmp_path, upstream.url) as at:
        upstream.raw = raw
        for client, kind, stream in CASES:
            refused(client, await at.ask(client, kind, stream), 502)
            assert await at.billed() == (0, "error")


@pytest.mark.parametrize("status", [429, 529])
@pytest.mark.parametrize("after", ["7", None], ids=["told", "untold"])
async def test_a_provider_that_has_enough(
    open_house: Open, tmp_path: Path, status: int, after: str | None
) -> None:
    type_ = {429: "rate_limit_error", 529: "overloaded_error"}[status]
    bodies = {
        "openai": wire.openai_error("slowly", "rate_limit_exceeded"),
        "anthropic": {"type": "error", "error": {"type": type_, "message": "slowly"}},
    }
    head = f"HTTP/1.1 {status} No\r\ncontent-type: application/json\r\n"
    head += f"retry-after: {after}\r\n" if after else ""
    async with Told() as upstream, desk(open_house, tmp_path, upstream.url) as at:
        for number, (client, kind, stream) in enumerate(CASES, 1):
            told = wire.encoded(bodies[kind])
            upstream.raw = f"{head}content-length: {len(told)}\r\n\r\n".encode() + told
            answer = await at.ask(client, kind, stream)
            refused(client, answer, status)
            assert "slowly" in answer.text
            assert answer.headers.get_list("retry-after") == [after or "5"]
            assert await at.billed() == (0, "error")
            assert len(upstream.requests) == number


async def test_a_length_that_is_wrong(open_house: Open, tmp_path: Path) -> None:
    head = HEAD % b"application/json"
    async with Told() as upstream, desk(open_house, tmp_path, upstream.url) as at:
        for client, kind in PAIRS:
            said = whole(kind)
            upstream.raw = head + b"content-length: %d\r\n\r\n" % (len(said) + 10) + said
            refused(client, await at.ask(client, kind, stream=False), 502)
            cost, outcome = await at.billed()
            assert cost > 0
            assert outcome == "partial"
            # And what follows an answer is nobody's answer.
            upstream.raw = head + b"content-length: %d\r\n\r\n" % len(said) + said
            upstream.raw += b"HTTP/1.1 200 OK\r\n\r\n"
            for _ in range(2):
                answer = await at.ask(client, kind, stream=False)
                assert answer.status_code == 200
                assert "Yes." in answer.text
                assert (await at.billed())[1] == "complete"
        assert upstream.connections == 3 * len(PAIRS)


async def test_http_1_0_and_frames_of_megabytes(open_house: Open, tmp_path: Path) -> None:
    huge = "x" * 3_000_000
    async with Told() as upstream, desk(open_house, tmp_path, upstream.url) as at:
        for client, kind, stream in CASES:
            said = whole(kind, huge)
            if stream:
                event = b"".join(frames(kind, "y" * wire.PIECE))
                said = event.replace(b"y" * wire.PIECE, huge.encode())
            media = "text/event-stream" if stream else "application/json"
            head = f"HTTP/1.0 200 OK\r\ncontent-type: {media}\r\n\r\n"
            upstream.raw = head.encode() + said
            answer = await at.ask(client, kind, stream)
            assert answer.status_code == 200
            assert huge in answer.text
            assert (await at.billed())[1] == "complete"


async def test_a_client_that_goes_away(open_house: Open, tmp_path: Path) -> None:
    async with Told() as upstream, desk(open_house, tmp_path, upstream.url) as at:
        upstream.hang = True
        for number, (client, kind, stream) in enumerate(CASES, 1):
            upstream.raw = begun(kind) if stream else b""
            if stream:
                asked = at.body(client, kind, stream)
                async with at.house.client.stream("POST", ROUTES[client], json=asked) as answer:
                    assert await anext(answer.aiter_raw())
            else:
                calling = asyncio.create_task(at.ask(client, kind, stream))
                while len(upstream.requests) < number:
                    await asyncio.sleep(0.01)
                calling.cancel()
            await upstream.closed()
            cost, outcome = await at.billed()
            assert cost > 0
            assert outcome == "partial"
