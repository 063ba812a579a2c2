import asyncio
import gzip

import pytest

from stationmaster.kernel.errors import Invalid, Upstream, UpstreamTimeout
from stationmaster.providers.anthropic import AnthropicProvider, Timeouts
from stationmaster.providers.base import Headers, ProviderRequest
from tests.support.raw_upstream import HEAD, STREAM_HEAD, RawUpstream, chunk, writes
from tests.support.wire_upstream import Reply, WireUpstream, fixed, text

BODY = b'{"model": "m",  "unknown": 1e2, "max_tokens": 5}'


def request(*, headers: Headers = (), query: str = "", stream: bool = False) -> ProviderRequest:
    return ProviderRequest("messages", "m", BODY, headers, stream, query)


def provider(url: str, **timeouts: float) -> AnthropicProvider:
    return AnthropicProvider(base_url=url, api_key="sk-upstream", timeouts=Timeouts(**timeouts))


async def test_the_body_goes_out_byte_for_byte_with_the_servers_own_key() -> None:
    headers = (
        ("anthropic-version", "2026-10-21"),
        ("anthropic-beta", "new-thing"),
        ("authorization", "Bearer client"),
        ("x-api-key", "client"),
        ("cookie", "a=b"),
    )
    async with WireUpstream(fixed(text("hi"))) as upstream:
        anthropic = provider(upstream.url)
        reply = await anthropic.send(request(headers=headers, query="beta=true"))
        assert [chunk async for chunk in reply.chunks()]
        await anthropic.aclose()
    call = upstream.calls[0]
    sent = {name.lower(): value for name, value in call.headers.items()}
    assert call.raw == BODY
    assert call.query == "beta=true"
    assert sent["x-api-key"] == "sk-upstream"
    assert sent["anthropic-version"] == "2026-10-21"
    assert sent["anthropic-beta"] == "new-thing"
    assert "authorization" not in sent
    assert "cookie" not in sent
    assert "client" not in str(sent)


async def test_the_next_call_uses_the_same_connection_and_no_cookie_of_the_last() -> None:
    body = b"{}"
    answer = HEAD % b"application/json" + b"set-cookie: a=b\r\ncontent-length: 2\r\n\r\n" + body

    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        second = await reader.readuntil(b"\r\n\r\n")
        upstream.requests.append(second + await reader.readexactly(len(BODY)))
        writer.write(answer)

    async with RawUpstream(twice) as upstream:
        anthropic = provider(upstream.url)
        for _ in range(2):
            reply = await anthropic.send(request())
            assert [part async for part in reply.chunks()] == [body]
            await reply.aclose()
        await anthropic.aclose()
    assert upstream.connections == 1
    assert len(upstream.requests) == 2
    assert b"cookie" not in upstream.requests[1].lower()


async def test_a_compressed_answer_arrives_as_it_was_meant() -> None:
    packed = gzip.compress(b'{"a": 1}')
    head = HEAD % b"application/json" + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n"
    async with RawUpstream(writes(head % len(packed), packed)) as upstream:
        anthropic = provider(upstream.url)
        reply = await anthropic.send(request())
        assert b"".join([part async for part in reply.chunks()]) == b'{"a": 1}'
        assert "content-encoding" not in dict(reply.headers)
        await anthropic.aclose()


async def test_a_redirect_is_refused_and_takes_the_key_nowhere() -> None:
    async with WireUpstream() as other:
        head = f"HTTP/1.1 307 Elsewhere\r\nlocation: {other.url}/v1/messages\r\n"
        raw = head.encode() + b"content-length: 0\r\n\r\n"
        async with RawUpstream(writes(raw)) as upstream:
            anthropic = provider(upstream.url)
            with pytest.raises(Upstream, match="redirect"):
                await anthropic.send(request())
            await anthropic.aclose()
        assert other.calls == []


async def test_nobody_listening_is_told_apart_from_a_broken_answer() -> None:
    async with RawUpstream(writes(b"")) as upstream:
        anthropic = provider(upstream.url)
        with pytest.raises(Upstream) as broken:
            await anthropic.send(request())
    with pytest.raises(Upstream) as refused:
        await anthropic.send(request())
    with pytest.raises(Upstream):
        await anthropic.check()
    await anthropic.aclose()
    assert broken.value.error_code == "upstream_error"
    assert refused.value.error_code == "upstream_unreachable"


@pytest.mark.parametrize(
    "raw",
    [b"not http at all\r\n\r\n", b"HTTP/1.1 two hundred\r\n\r\n", b"\x00" * 64],
    ids=["words", "status", "zeros"],
)
async def test_garbage_instead_of_a_head_is_an_upstream_error(raw: bytes) -> None:
    async with RawUpstream(writes(raw)) as upstream:
        anthropic = provider(upstream.url)
        with pytest.raises(Upstream) as caught:
            await anthropic.send(request())
        await anthropic.aclose()
    assert "sk-upstream" not in str(caught.value)


async def test_a_body_shorter_than_its_length_is_an_upstream_error() -> None:
    raw = HEAD % b"application/json" + b"content-length: 100\r\n\r\n{}"
    async with RawUpstream(writes(raw)) as upstream:
        anthropic = provider(upstream.url)
        reply = await anthropic.send(request())
        with pytest.raises(Upstream):
            assert [part async for part in reply.chunks()]
        await reply.aclose()
        await anthropic.aclose()


async def test_silence_before_the_head_ends_at_the_first_byte_timeout() -> None:
    async with RawUpstream(lambda reader, writer: upstream.until_gone(reader)) as upstream:
        anthropic = provider(upstream.url, first_byte=0.5)
        with pytest.raises(UpstreamTimeout):
            await anthropic.send(request(stream=True))
        async with asyncio.timeout(10):
            await upstream.gone.wait()
        await anthropic.aclose()


async def test_an_unstreamed_call_may_think_longer_than_the_first_byte_timeout() -> None:
    release = asyncio.Event()
    asyncio.get_running_loop().call_later(0.2, release.set)
    async with WireUpstream(fixed(Reply(text("slow").blocks, hold=release))) as upstream:
        anthropic = provider(upstream.url, first_byte=0.05)
        reply = await anthropic.send(request())
        assert reply.status == 200
        await reply.aclose()
        await anthropic.aclose()


@pytest.mark.parametrize("timeouts", [{"inactivity": 0.1}, {"total": 0.3}])
async def test_silence_in_the_middle_ends_the_call(timeouts: dict[str, float]) -> None:
    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(b": begun\n\n"))
        await upstream.until_gone(reader)

    async with RawUpstream(behaviour) as upstream:
        anthropic = provider(upstream.url, **timeouts)
        reply = await anthropic.send(request(stream=True))
        chunks = reply.chunks()
        assert await anext(chunks) == b": begun\n\n"
        with pytest.raises(UpstreamTimeout):
            await anext(chunks)
        async with asyncio.timeout(10):
            await upstream.gone.wait()
        await reply.aclose()
        await anthropic.aclose()


async def test_a_cancelled_call_is_closed_upstream() -> None:
    async with WireUpstream(fixed(Reply(hold=asyncio.Event()))) as upstream:
        anthropic = provider(upstream.url)
        sending = asyncio.ensure_future(anthropic.send(request()))
        (call,) = await upstream.wait_for_calls(1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        async with asyncio.timeout(10):
            await call.done.wait()
        assert call.disconnected
        await anthropic.aclose()


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ((("anthropic-beta", "a\r\nx-api-key: mine"),), ""),
        ((("anthropic-beta", "a\nb"),), ""),
        ((("anthropic-beta", "a\0b"),), ""),
        ((("anthropic-beta", "\u2028"),), ""),
        ((("anthropic-a: b\r\nx", "c"),), ""),
        ((), "beta=true HTTP/1.1\r\nx-api-key: mine"),
        ((), "a b"),
    ],
)
async def test_what_would_break_out_of_its_line_is_not_sent(headers: Headers, query: str) -> None:
    async with WireUpstream(fixed(text("hi"))) as upstream:
        anthropic = provider(upstream.url)
        with pytest.raises(Invalid):
            await anthropic.send(request(headers=headers, query=query))
        await anthropic.aclose()
    assert upstream.calls == []


def test_a_key_that_would_break_out_of_its_line_is_refused() -> None:
    with pytest.raises(Invalid) as caught:
        AnthropicProvider(base_url="http://host", api_key="sk-secret\r\nx: y")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://host", "https://", "host:80", "https://host/?key=1"])
def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Invalid):
        AnthropicProvider(base_url=url, api_key="")
