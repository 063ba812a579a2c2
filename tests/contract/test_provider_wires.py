"""Every provider over HTTP against a peer that cuts, stalls, breaks off or talks nonsense."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from stationmaster.kernel.errors import Upstream, UpstreamTimeout
from stationmaster.providers.anthropic import AnthropicProvider
from stationmaster.providers.base import Provider
from stationmaster.providers.bedrock import BedrockProvider, Credentials
from stationmaster.providers.conformance import Subject, whole
from stationmaster.providers.ollama import OllamaProvider
from stationmaster.providers.ollama.provider import Retries, Settings
from stationmaster.providers.openai import OpenAIProvider
from stationmaster.providers.upstream import Timeouts
from stationmaster.providers.vertex import VertexProvider
from stationmaster.providers.vertex.token import FixedToken
from tests.support import vendor_answers as wire
from tests.support.raw_upstream import HEAD, RawUpstream, chunk, writes

KINDS = ("anthropic", "openai", "ollama", "bedrock", "vertex")
SECRET = "sk-upstream"

Make = Callable[[str, Timeouts], Provider]

MAKERS: dict[str, Make] = {
    "anthropic": lambda url, patience: AnthropicProvider(
        base_url=url, api_key=SECRET, timeouts=patience
    ),
    "openai": lambda url, patience: OpenAIProvider(
        base_url=url, headers=(("authorization", f"Bearer {SECRET}"),), timeouts=patience
    ),
    "ollama": lambda url, patience: OllamaProvider(
        base_url=url,
        api_key=SECRET,
        settings=Settings(retries=Retries(attempts=1)),
        timeouts=patience,
    ),
    "bedrock": lambda url, patience: BedrockProvider(
        region="us-east-1",
        credentials=Credentials("AKIDEXAMPLE", SECRET, SECRET),
        base_url=url,
        timeouts=patience,
    ),
    "vertex": lambda url, patience: VertexProvider(
        project="p", region="global", tokens=FixedToken(SECRET), base_url=url, timeouts=patience
    ),
}


def frames(kind: str, text: str) -> list[bytes]:
    """A streamed answer, as the vendor writes it."""
    if kind == "openai":
        return wire.completion_frames("m", text, include_usage=True)
    if kind == "ollama":
        return wire.ollama_frames("m", text)
    events = wire.message_events("m", text)
    return wire.aws_frames(events) if kind == "bedrock" else wire.named_frames(events)


def recorded(kind: str, text: str = "Ja — yes, it is.") -> bytes:
    """The whole answer on the wire: head, frames as chunks, end."""
    types = {"ollama": b"application/x-ndjson", "bedrock": b"application/vnd.amazon.eventstream"}
    head = HEAD % types.get(kind, b"text/event-stream") + b"transfer-encoding: chunked\r\n\r\n"
    return head + b"".join(chunk(frame) for frame in frames(kind, text)) + b"0\r\n\r\n"


@asynccontextmanager
async def calling(kind: str, url: str, **timeouts: float) -> AsyncIterator[Subject]:
    provider = MAKERS[kind](url, Timeouts(**timeouts))
    try:
        yield Subject(provider, model="m")
    finally:
        await provider.aclose()


async def read(subject: Subject) -> bytes:
    return settled(await subject.asked(subject.request(stream=True)))


def settled(body: bytes) -> bytes:
    """Without the ids that are made up anew for each of Ollama's answers, which have none."""
    return re.sub(rb'"id":"chatcmpl-[0-9a-f]{24}"', b'"id":""', body)


async def turns() -> None:
    """Let the other side read what was written."""
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_cut_anywhere_is_the_same_answer_on_the_same_connection(kind: str) -> None:
    raw = recorded(kind)

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for cut in range(len(raw)):
            writer.write(raw[:cut])
            await turns()
            writer.write(raw[cut:])
            await upstream.next_request(reader)

    async with RawUpstream(behaviour) as upstream, calling(kind, upstream.url) as subject:
        answers = [await read(subject) for _ in range(len(raw))]
        assert len(answers[0]) > 300
        assert set(answers) == {answers[0]}
        assert upstream.connections == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_byte_by_byte_is_the_same_answer(kind: str) -> None:
    raw = recorded(kind)

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await upstream.next_request(reader)
        for at in range(len(raw)):
            writer.write(raw[at : at + 1])
            await turns()

    async with RawUpstream(behaviour) as upstream, calling(kind, upstream.url) as subject:
        assert await read(subject) == await read(subject)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_broken_off_anywhere_is_never_taken_for_a_whole_one(kind: str) -> None:
    raw = recorded(kind)
    cuts = iter(range(len(raw)))

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw[: next(cuts)])
        await writer.drain()

    async with RawUpstream(writes(raw)) as server, calling(kind, server.url) as subject:
        told = await read(subject)
    async with RawUpstream(behaviour) as upstream, calling(kind, upstream.url) as subject:
        for _ in range(len(raw)):
            parts: list[bytes] = []
            with pytest.raises(Upstream) as caught:
                await heard(subject, parts)
            assert told.startswith(settled(b"".join(parts)))
            assert SECRET not in str(caught.value)


async def heard(subject: Subject, parts: list[bytes]) -> None:
    reply = await subject.provider.send(subject.request(stream=True))
    try:
        async for part in reply.chunks():
            parts.append(part)
    finally:
        await reply.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_huge_frame_comes_through_whole(kind: str) -> None:
    huge = b"x" * 3_000_000
    events = wire.message_events("m", "y")
    events[2]["delta"]["text"] = huge.decode()
    body = b"".join(wire.aws_frames(events))
    if kind != "bedrock":
        body = b"".join(frames(kind, "y" * wire.PIECE)).replace(b"y" * wire.PIECE, huge)
    head, _, _ = recorded(kind).partition(b"transfer-encoding")
    raw = head + b"content-length: %d\r\n\r\n" % len(body) + body
    async with RawUpstream(writes(raw)) as upstream, calling(kind, upstream.url) as subject:
        assert (await read(subject)).count(huge) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "raw",
    [b"not http at all\r\n\r\n", b"HTTP/1.1 two hundred\r\n\r\n", b"\x00" * 64, b""],
    ids=["words", "status", "zeros", "nothing"],
)
async def test_garbage_instead_of_a_head_is_an_upstream_error(kind: str, raw: bytes) -> None:
    async with RawUpstream(writes(raw)) as upstream, calling(kind, upstream.url) as subject:
        with pytest.raises(Upstream) as caught:
            await read(subject)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_garbage_instead_of_a_body_is_an_upstream_error_where_it_is_translated(
    kind: str, stream: bool
) -> None:
    garbage = b'{"a": <b>' * 20
    raw = HEAD % b"application/json" + b"content-length: %d\r\n\r\n" % len(garbage) + garbage
    translated = kind == "ollama" or (kind == "bedrock" and stream)
    async with RawUpstream(writes(raw)) as upstream, calling(kind, upstream.url) as subject:
        request = subject.request(stream=stream)
        if translated:
            with pytest.raises(Upstream):
                await subject.asked(request)
        else:
            assert await subject.asked(request) == garbage


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("retry_after", [b"retry-after: 7\r\n", b""], ids=["told", "untold"])
@pytest.mark.parametrize("body", [b"<html>", b"{}", b""], ids=["page", "object", "nothing"])
async def test_a_refusal_is_a_reply_and_says_when_to_come_back(
    kind: str, retry_after: bytes, body: bytes
) -> None:
    head = b"HTTP/1.1 429 Slowly\r\ncontent-type: text/html\r\n"
    raw = head + retry_after + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    async with RawUpstream(writes(raw)) as upstream, calling(kind, upstream.url) as subject:
        reply = await subject.provider.send(subject.request(stream=True))
        told = await whole(reply)
    assert reply.status == 429
    assert dict(reply.headers).get("retry-after") == ("7" if retry_after else None)
    if kind in {"ollama", "bedrock", "vertex"}:
        assert json.loads(told)["error"]["message"]
        assert dict(reply.headers)["content-type"] == "application/json"
    else:
        assert told == body


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_of_http_1_0_ends_with_its_connection(kind: str) -> None:
    raw = b"HTTP/1.0 200 OK\r\n\r\n" + b"".join(frames(kind, "Yes."))
    async with RawUpstream(writes(raw)) as upstream, calling(kind, upstream.url) as subject:
        assert await read(subject) == await read(subject)
        assert upstream.connections == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_a_redirect_is_refused_and_takes_the_key_nowhere(kind: str) -> None:
    async with RawUpstream(writes(b"")) as other:
        head = f"HTTP/1.1 307 Elsewhere\r\nlocation: {other.url}/\r\ncontent-length: 0\r\n\r\n"
        raw = head.encode()
        async with RawUpstream(writes(raw)) as upstream, calling(kind, upstream.url) as subject:
            with pytest.raises(Upstream, match="redirect"):
                await read(subject)
        assert other.requests == []


@pytest.mark.parametrize("kind", KINDS)
async def test_silence_before_the_head_ends_at_the_first_byte_timeout(kind: str) -> None:
    async with (
        RawUpstream(lambda reader, writer: upstream.until_gone(reader)) as upstream,
        calling(kind, upstream.url, first_byte=0.5) as subject,
    ):
        with pytest.raises(UpstreamTimeout):
            await read(subject)
        async with asyncio.timeout(10):
            await upstream.gone.wait()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timeouts", [{"inactivity": 0.1}, {"total": 0.6}], ids=["piece", "total"])
async def test_silence_in_the_middle_ends_the_call(kind: str, timeouts: dict[str, float]) -> None:
    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(recorded(kind)[:-40])
        await upstream.until_gone(reader)

    async with (
        RawUpstream(behaviour) as upstream,
        calling(kind, upstream.url, **timeouts) as subject,
    ):
        with pytest.raises(UpstreamTimeout):
            await read(subject)
        async with asyncio.timeout(10):
            await upstream.gone.wait()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_cancelled_before_its_answer_is_closed_upstream(kind: str) -> None:
    arrived = asyncio.Event()

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await upstream.until_gone(reader)

    async with RawUpstream(behaviour) as upstream, calling(kind, upstream.url) as subject:
        sending = asyncio.ensure_future(read(subject))
        await arrived.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        async with asyncio.timeout(10):
            await upstream.gone.wait()


@pytest.mark.parametrize("kind", KINDS)
async def test_what_the_client_sends_beside_its_request_does_not_reach_the_upstream(
    kind: str,
) -> None:
    hostile = (
        ("authorization", "Bearer of-the-client"),
        ("x-api-key", "of-the-client"),
        ("api-key", "of-the-client"),
        ("cookie", "of-the-client"),
        ("openai-organization", "of-the-client"),
        ("x-amz-security-token", "of-the-client"),
        ("x-goog-user-project", "of-the-client"),
        ("host", "of-the-client"),
    )
    raw = recorded(kind)
    async with RawUpstream(writes(raw)) as upstream, calling(kind, upstream.url) as subject:
        request = subject.request(stream=True)
        await subject.asked(msgspec.structs.replace(request, headers=(*request.headers, *hostile)))
        assert b"of-the-client" not in upstream.requests[0]
