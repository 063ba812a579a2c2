"""Requests whose head means harm: names, paths, ranges, and addresses to send a key to."""

import asyncio
import random
from typing import Any

import httpx
import pytest

from stationmaster.agents.scripted import WriteFile
from stationmaster.http.wire.exchange import read_body
from stationmaster.kernel.errors import Invalid
from tests.http.conftest import ADMIN, House
from tests.http.test_messages import ANSWER, HEADERS, front, upstream_of
from tests.support.raw_upstream import RawUpstream
from tests.support.wire_upstream import WireUpstream, fixed


async def raw(house: House, head: bytes) -> bytes:
    """The answer to a request that no client would send."""
    url = httpx.URL(house.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(head + b"Connection: close\r\n\r\n")
    await writer.drain()
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    return answer


HOSTS = (
    b"localhost/health?", b"localhost/health#", b"localhost:80/live?x=", b"a@localhost", b"?", b"#",
    b"/health?", b"localhost\\health", b"localhost/%2e%2e/health", b"local host", b"[::1", b"[]",
    b"localhost:", b"localhost:99999999", b"localhost:80:80", b"localhost,evil.example", b"\xff",
    b"x" * 5000 + b"/", b"http://localhost/health", b"", b"localhost/\xe2\x80\xae",
)  # fmt: skip


async def test_no_host_header_makes_a_closed_route_an_open_one(house: House) -> None:
    with_key = b"\r\nAuthorization: Bearer " + ADMIN.encode() + b"\r\n"
    for host in HOSTS:
        for path in (b"/v1/tasks", b"/v1/messages", b"/v1/agents"):
            for rest in (b"\r\n", with_key):
                head = b"GET " + path + b" HTTP/1.1\r\nHost: " + host + rest
                answer = await raw(house, head)
                assert answer.startswith(b"HTTP/1.1 400 "), (host, answer)


PATHS = (
    b"//v1/tasks", b"/v1//tasks", b"/health/../v1/tasks", b"/./v1/tasks", b"/v1/tasks/",
    b"/health%2f..%2fv1%2ftasks", b"/health/%2e%2e/v1/tasks", b"/V1/TASKS", b"/v1/tasks%00",
    b"/v1/tasks;/health", b"/v1/tasks%3f/health", b"/v1/tasks?/health", b"/v1/tasks#/health",
    b"/v1%2ftasks", b"http://localhost/v1/tasks", b"http://evil.example/health/../v1/tasks", b"*",
    b"/v1/%74asks", b"/health\\..\\v1\\tasks", b"/v1/tasks%20", b"/openapi.json/../v1/tasks",
)  # fmt: skip


async def test_no_spelling_of_a_path_opens_a_closed_route(house: House) -> None:
    task = await house.submit("a prompt that nobody else sees")
    for path in PATHS:
        answer = await raw(house, b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n")
        assert answer.split(b" ", 2)[1] in {b"400", b"401", b"404"}, (path, answer)
        assert task.encode() not in answer


async def test_two_lengths_or_a_broken_chunk_smuggle_nothing(house: House) -> None:
    """What a proxy and the server cut differently could be taken for somebody else's request."""
    inner = b"GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for head in (
        b"Content-Length: 4\r\nContent-Length: 40\r\n",
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"Content-Length: +4\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding : chunked\r\n",
    ):
        start = b"POST /v1/task HTTP/1.1\r\nHost: localhost\r\n" + head
        url = httpx.URL(house.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(start + b"\r\n0\r\n\r\n" + inner)
        writer.write_eof()
        async with asyncio.timeout(30):
            answer = await reader.read()
        writer.close()
        assert b"HTTP/1.1 200" not in answer, (head, answer)


@pytest.mark.parametrize("pieces", [0, 1])
async def test_a_body_that_does_not_come_is_given_up(pieces: int) -> None:
    """Not even its first byte."""
    waiting = [{"type": "http.request", "body": b"{", "more_body": True}] * pieces

    async def receive() -> Any:
        return waiting.pop() if waiting else await asyncio.Event().wait()

    with pytest.raises(Invalid, match="in time"):
        await read_body({"headers": []}, receive, limit=100, seconds=0.01)


# --- ranges -----------------------------------------------------------------------------------

RANGES = (
    "bytes=0-0", "bytes=-1", "bytes=5-", "bytes=9-1", "bytes=0-99999999999999999999", "bytes=--1",
    "bytes=" + ",".join(["0-0"] * 2000), "bytes=" + ",".join(f"{n}-" for n in range(2000)),
    "bytes=" + "0-" * 3000, "bytes=a-b", "lines=0-1", "bytes", "bytes=" + " " * 6000 + "0-1",
    "bytes=" + "," * 6000,
)  # fmt: skip


async def test_ranges_get_no_more_than_the_file(house: House) -> None:
    """Nothing here parses ranges, so many of them cost nothing; an answer holds the file once."""
    content = "x" * 20_000
    house.agent.script = [WriteFile("a.txt", content)]
    task = await house.perform()
    upload = {"file": ("a.txt", content.encode(), "text/plain")}
    house.client.headers["anthropic-version"] = "2023-06-01"
    stored = (await house.client.post("/v1/files", files=upload)).json()
    rng = random.Random(1)
    fuzzed = [
        "bytes=" + "".join(rng.choices("0123456789-,", k=rng.randrange(400))) for _ in range(20)
    ]
    for path in (
        f"/v1/tasks/{task['task_id']}/artifacts/a.txt",
        f"/v1/files/{stored['id']}/content",
    ):
        whole = (await house.client.get(path)).content
        assert whole == content.encode()
        for asked in (*RANGES, *fuzzed):
            headers = {"range": asked, "if-range": '"x"'}
            answer = await house.client.get(path, headers=headers)
            assert (answer.status_code, answer.content) == (200, whole), asked


# --- other addresses --------------------------------------------------------------------------


async def test_no_field_and_no_header_sends_a_call_or_the_key_elsewhere() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    async with RawUpstream(answer) as evil, WireUpstream(fixed(ANSWER)) as upstream:
        body = {
            "model": "claude-haiku-5-5",
            "max_tokens": 10,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "source": {"type": "url", "url": f"{evil.url}/a.png"}},
                        {"type": "text", "text": f"![x]({evil.url}/b.png)"},
                    ],
                }
            ],
            **dict.fromkeys(("api_base", "base_url", "endpoint", "proxy", "url"), evil.url),
            "api_key": "sk-of-the-caller",
            "extra_headers": {"x-api-key": "sk-of-the-caller"},
            "mcp_servers": [{"type": "url", "url": evil.url, "name": "x"}],
        }
        elsewhere = {
            "x-base-url": evil.url,
            "x-forwarded-host": evil.url.removeprefix("http://"),
            "forwarded": f"host={evil.url.removeprefix('http://')}",
            "anthropic-base-url": evil.url,
            "proxy": evil.url,
            "x-original-url": f"{evil.url}/v1/messages",
        }
        async with front(upstream_of(upstream.url)) as made:
            for headers in ({}, elsewhere):
                answered = await made.client.post("/v1/messages", json=body, headers=headers)
                assert answered.status_code < 500, answered.text
            plain = {name: body[name] for name in ("model", "max_tokens", "messages", "api_base")}
            answered = await made.client.post("/v1/messages", json=plain, headers=HEADERS)
        assert evil.connections == 0
        for call in upstream.message_calls:
            assert call.headers["x-api-key"] == "sk-upstream"
