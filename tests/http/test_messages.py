"""The hot endpoints over real sockets: uvicorn in front, a scripted upstream behind."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx
import pytest
import uvicorn

from stationmaster.gateway import Gateway
from stationmaster.http.wire.exchange import App, Scope
from stationmaster.http.wire.model_app import model_app
from stationmaster.kernel.errors import Unauthenticated
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.providers.anthropic import AnthropicProvider, Timeouts
from stationmaster.providers.base import Provider
from stationmaster.providers.conformance import assembled, events_of
from stationmaster.providers.offline import OfflineProvider
from tests.support.gateways import OPUS, asking, gateway_over
from tests.support.memory_meter import MemoryMeter, Notebook
from tests.support.wire_upstream import Reply, Text, Usage, WireUpstream, fixed, text

KEY = "sm-test-key"
HEADERS = {"x-api-key": KEY, "content-type": "application/json"}
TINY = 20_000


async def resolve(scope: Scope) -> Principal:
    found = dict(scope["headers"])
    bearer = found.get(b"authorization", b"").removeprefix(b"Bearer ")
    if KEY.encode() not in (found.get(b"x-api-key"), bearer):
        raise Unauthenticated
    scopes = frozenset({"write:messages"})
    return Principal("key", "key_1", Owner("org_1", "proj_1"), "key_1", scopes)


class Front:
    """A server of the messages app, and an HTTP client for it."""

    def __init__(self, url: str, meter: MemoryMeter, notebook: Notebook) -> None:
        self.url = url
        self.meter = meter
        self.notebook = notebook
        self.client = httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=30)


@asynccontextmanager
async def served(app: App) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


@asynccontextmanager
async def front(
    provider: Provider, *, keepalive: float = 15, max_body: int = 32_000_000
) -> AsyncIterator[Front]:
    meter, notebook = MemoryMeter(), Notebook()
    gateway: Gateway = gateway_over(provider, meter, notebook)
    app = model_app(gateway, resolve, keepalive=keepalive, max_body=max_body)
    try:
        async with served(app) as port:
            made = Front(f"http://127.0.0.1:{port}", meter, notebook)
            async with made.client:
                yield made
    finally:
        await provider.aclose()


def upstream_of(url: str, **timeouts: float) -> AnthropicProvider:
    return AnthropicProvider(base_url=url, api_key="sk-upstream", timeouts=Timeouts(**timeouts))


ANSWER = Reply((Text("one two three"),), Usage(100, 10), headers={"request-id": "req_theirs"})


def is_error(answer: httpx.Response, status: int, kind: str) -> None:
    body = answer.json()
    assert answer.status_code == status
    assert body["type"] == "error"
    assert body["error"]["type"] == kind
    assert body["error"]["message"]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["request-id"] == answer.headers["x-request-id"]


async def test_the_official_client_streams_and_counts() -> None:
    async with front(OfflineProvider(delay=0)) as at:
        async with anthropic.AsyncAnthropic(base_url=at.url, api_key=KEY) as client:
            messages: list[Any] = [{"role": "user", "content": "Say hello to me."}]
            async with client.messages.stream(
                model=OPUS, max_tokens=500, messages=messages
            ) as stream:
                streamed = await stream.get_final_message()
            message = await client.messages.create(model=OPUS, max_tokens=500, messages=messages)
            counted = await client.messages.count_tokens(model=OPUS, messages=messages)
        assert streamed.content[0].to_dict()["text"] == message.content[0].to_dict()["text"]
        assert message.usage.input_tokens == counted.input_tokens
        assert at.meter.usage.input_tokens == 2 * counted.input_tokens


async def test_bytes_pass_unchanged_both_ways_with_both_request_ids() -> None:
    raw = asking(stream=True, unknown={"b": 1e2})
    async with WireUpstream(fixed(ANSWER)) as upstream, front(upstream_of(upstream.url)) as at:
        answer = await at.client.post(
            "/v1/messages?beta=true", content=raw, headers={"anthropic-beta": "new-thing"}
        )
        sent = upstream.calls[0]
    assert sent.raw == raw
    assert sent.query == "beta=true"
    assert sent.headers["anthropic-beta"] == "new-thing"
    assert KEY not in str(sent.headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache, no-transform"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["request-id"] == "req_theirs"
    assert answer.headers["x-request-id"].startswith("req_")
    told = assembled(events_of(answer.content))
    assert told["content"] == [{"type": "text", "text": "one two three"}]


async def test_a_bearer_token_is_as_good_as_a_key() -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    async with (
        front(OfflineProvider(delay=0)) as at,
        httpx.AsyncClient(base_url=at.url) as client,
    ):
        answer = await client.post("/v1/messages", content=asking(), headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "content", "headers", "status", "kind"),
    [
        ("POST", "/v1/messages", asking(), {"x-api-key": "wrong"}, 401, "authentication_error"),
        ("POST", "/v1/messages", b"not json", {"x-api-key": ""}, 401, "authentication_error"),
        ("POST", "/v1/messages", b"not json", {}, 400, "invalid_request_error"),
        ("POST", "/v1/messages", b"", {}, 400, "invalid_request_error"),
        ("POST", "/v1/messages", b"[" * 100_000, {}, 400, "invalid_request_error"),
        ("POST", "/v1/messages/count_tokens", b"{}", {}, 400, "invalid_request_error"),
        ("POST", "/v1/messages", asking(), {"content-encoding": "gzip"}, 400, None),
        ("POST", "/v1/messages", asking(model="unheard-of"), {}, 404, "not_found_error"),
        ("POST", "/v1/messages/nothing", asking(), {}, 404, "not_found_error"),
        ("GET", "/v1/messages", None, {}, 405, "invalid_request_error"),
        ("DELETE", "/v1/messages/count_tokens", None, {}, 405, "invalid_request_error"),
        ("POST", "/v1/messages", b"x" * 5000, {}, 413, "request_too_large"),
    ],
)
async def test_what_is_wrong_is_told_in_anthropics_shape(
    *,
    method: str,
    path: str,
    content: bytes | None,
    headers: dict[str, str],
    status: int,
    kind: str,
) -> None:
    big = status == 400 and content is not None and len(content) > 5000
    async with front(OfflineProvider(delay=0), max_body=10**6 if big else 4096) as at:
        answer = await at.client.request(method, path, content=content, headers=headers)
        is_error(answer, status, kind or "invalid_request_error")
        assert at.meter.entries == {}
        assert at.meter.holds == {}
    assert ("allow" in answer.headers) == (status == 405)


async def test_a_chunked_body_over_the_limit_is_refused_too() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 1000

    async with front(OfflineProvider(delay=0), max_body=4096) as at:
        answer = await at.client.post("/v1/messages", content=pieces())
    is_error(answer, 413, "request_too_large")


async def test_a_chunked_body_within_the_limit_is_read_whole() -> None:
    raw = asking()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(raw), 7):
            yield raw[at : at + 7]

    async with front(OfflineProvider(delay=0)) as at:
        answer = await at.client.post("/v1/messages", content=pieces())
    assert answer.status_code == 200


async def test_a_body_that_ends_before_its_length_leaves_nothing_behind() -> None:
    async with front(OfflineProvider(delay=0)) as at:
        port = int(at.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n"
        writer.write(head.encode() + b"content-length: 500\r\n\r\n{}")
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert at.meter.asked == []


async def test_a_budget_is_a_billing_error_that_is_not_retried() -> None:
    async with front(OfflineProvider(delay=0)) as at:
        at.meter.limit = TINY
        answer = await at.client.post("/v1/messages", content=asking(max_tokens=100_000))
        is_error(answer, 402, "billing_error")
        assert answer.headers["x-should-retry"] == "false"
        async with anthropic.AsyncAnthropic(base_url=at.url, api_key=KEY) as client:
            with pytest.raises(anthropic.APIStatusError) as caught:
                await client.messages.create(
                    model=OPUS, max_tokens=20_000, messages=[{"role": "user", "content": "x"}]
                )
        assert caught.value.status_code == 402
        assert len(at.meter.refusals) == 2


async def test_a_store_that_is_away_is_unavailable_for_now() -> None:
    async with front(OfflineProvider(delay=0)) as at:
        at.meter.away = True
        answer = await at.client.post("/v1/messages", content=asking())
    is_error(answer, 503, "api_error")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("status", "told", "wanted"),
    [(429, {"retry-after": "7"}, "7"), (429, {}, "5"), (529, {}, "5"), (500, {}, None)],
)
async def test_an_upstream_error_passes_with_a_time_to_come_back(
    status: int, told: dict[str, str], wanted: str | None
) -> None:
    reply = Reply(status=status, message="as it said", headers=told)
    async with WireUpstream(fixed(reply)) as upstream, front(upstream_of(upstream.url)) as at:
        answer = await at.client.post("/v1/messages", content=asking(stream=True))
    assert answer.status_code == status
    assert answer.json()["error"]["message"] == "as it said"
    assert answer.headers.get("retry-after") == wanted
    assert answer.headers["request-id"] == answer.json()["request_id"]


async def test_a_refusal_of_the_servers_key_does_not_blame_the_client() -> None:
    async with (
        WireUpstream(fixed(Reply(status=401))) as upstream,
        front(upstream_of(upstream.url)) as at,
    ):
        answer = await at.client.post("/v1/messages", content=asking())
    is_error(answer, 502, "api_error")
    assert answer.headers["x-should-retry"] == "false"


async def test_a_silent_upstream_is_a_timeout_error() -> None:
    reply = Reply(hold=asyncio.Event())
    async with (
        WireUpstream(fixed(reply)) as upstream,
        front(upstream_of(upstream.url, total=0.1)) as at,
    ):
        answer = await at.client.post("/v1/messages", content=asking())
    is_error(answer, 504, "timeout_error")


async def test_a_stream_that_dies_ends_with_an_error_event() -> None:
    reply = Reply((Text("words " * 20),), Usage(100, 10), cut_after=6)
    async with WireUpstream(fixed(reply)) as upstream, front(upstream_of(upstream.url)) as at:
        answer = await at.client.post("/v1/messages", content=asking(stream=True))
        events = events_of(answer.content)
        assert answer.status_code == 200
        assert [event["type"] for event in events][:2] == ["message_start", "ping"]
        assert events[-1]["type"] == "error"
        assert events[-1]["error"]["type"] == "api_error"
        assert events[-1]["request_id"] == answer.headers["x-request-id"]
        async with anthropic.AsyncAnthropic(base_url=at.url, api_key=KEY) as client:
            stream = await client.messages.create(
                model=OPUS,
                max_tokens=10,
                messages=[{"role": "user", "content": "x"}],
                stream=True,
            )
            with pytest.raises(anthropic.APIStatusError):
                assert [event async for event in stream]


async def test_a_silent_upstream_is_bridged_by_pings_before_and_inside_the_stream() -> None:
    hold = asyncio.Event()
    reply = Reply((Text("words " * 20),), Usage(100, 10), hold=hold, hang_after=4)
    async with (
        WireUpstream(fixed(reply)) as upstream,
        front(upstream_of(upstream.url, inactivity=0.5), keepalive=0.02) as at,
    ):
        came: list[bytes] = []
        async with at.client.stream("POST", "/v1/messages", content=asking(stream=True)) as answer:
            assert answer.status_code == 200
            async for part in answer.aiter_raw():
                came.append(part)
                if b"".join(came).count(b"event: ping") >= 3:
                    hold.set()
        events = [event["type"] for event in events_of(b"".join(came))]
    start = events.index("message_start")
    assert set(events[:start]) == {"ping"}
    assert events[-1] == "error"
    assert events[-2] == "ping"


async def test_an_error_status_after_the_first_ping_comes_as_an_event() -> None:
    hold = asyncio.Event()
    reply = Reply(status=529, message="Overloaded", hold=hold)
    async with (
        WireUpstream(fixed(reply)) as upstream,
        front(upstream_of(upstream.url), keepalive=0.02) as at,
    ):
        came = b""
        async with at.client.stream("POST", "/v1/messages", content=asking(stream=True)) as answer:
            async for part in answer.aiter_raw():
                came += part
                hold.set()
        last = events_of(came)[-1]
        assert at.meter.spent == 0
    assert last["error"] == {"type": "overloaded_error", "message": "Overloaded"}


async def test_an_unstreamed_call_gets_no_pings() -> None:
    hold = asyncio.Event()
    asyncio.get_running_loop().call_later(0.2, hold.set)
    reply = Reply(text("slow").blocks, Usage(100, 10), hold=hold)
    async with (
        WireUpstream(fixed(reply)) as upstream,
        front(upstream_of(upstream.url), keepalive=0.02) as at,
    ):
        answer = await at.client.post("/v1/messages", content=asking())
    assert answer.json()["content"] == [{"type": "text", "text": "slow"}]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("begun", [True, False])
async def test_a_client_that_hangs_up_closes_the_upstream_and_settles(
    stream: bool, begun: bool
) -> None:
    waits = Reply(hold=asyncio.Event())
    hangs = Reply((Text("words " * 20),), Usage(100, 10), hang_after=6)
    reply = hangs if stream and begun else waits
    async with WireUpstream(fixed(reply)) as upstream, front(upstream_of(upstream.url)) as at:
        raw = asking(stream=stream)
        port = int(at.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n"
        writer.write(f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw)
        (call,) = await upstream.wait_for_calls(1)
        if reply is hangs:
            await reader.readuntil(b"content_block_delta")
        writer.close()
        async with asyncio.timeout(10):
            await call.done.wait()
            while not at.meter.entries:
                await asyncio.sleep(0)
        assert call.disconnected
        assert at.meter.last.outcome == "partial"
        assert at.meter.usage.input_tokens == (100 if reply is hangs else -(-len(raw) // 2))
        assert at.meter.holds == {}
        assert at.notebook.kinds == ["CallStarted", "CallEnded"]


async def test_a_bug_is_told_as_such_and_nothing_more() -> None:
    class Broken(OfflineProvider):
        async def send(self, request: Any) -> Any:
            raise ZeroDivisionError("secret detail")

    async with front(Broken()) as at:
        answer = await at.client.post("/v1/messages", content=asking())
        is_error(answer, 500, "api_error")
        assert "secret" not in answer.text
        assert at.meter.holds == {}


async def test_many_at_once_with_some_hanging_up_add_up() -> None:
    # As few tokens as the request's bytes can be: what is cut is estimated by them, from above.
    answer = Reply(ANSWER.blocks, Usage(40, 10))
    async with WireUpstream(fixed(answer)) as upstream, front(upstream_of(upstream.url)) as at:

        async def one(number: int) -> None:
            raw = asking(stream=number % 2 == 0)
            if number % 4 == 3:
                sending = asyncio.create_task(at.client.post("/v1/messages", content=raw))
                await upstream.wait_for_calls(1)
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
                return
            answer = await at.client.post("/v1/messages", content=raw)
            assert answer.status_code == 200
            body = answer.content
            message = assembled(events_of(body)) if number % 2 == 0 else json.loads(body)
            assert message["content"][0]["text"] == "one two three"

        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(one(number))
        async with asyncio.timeout(10):
            while at.meter.holds:
                await asyncio.sleep(0)
        assert at.meter.usage.input_tokens >= upstream.served.input_tokens
