"""The upstream client against a peer that does what it should: reuse, limits, time, giving up."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from stationmaster.kernel.errors import Invalid, Upstream, UpstreamTimeout
from stationmaster.providers.upstream import Timeouts, UpstreamClient, UpstreamReply
from stationmaster.providers.upstream import connection as module
from stationmaster.providers.upstream.reply import HIGH_WATER
from tests.support.certificates import authority, server_context
from tests.support.raw_upstream import STREAM_HEAD, RawUpstream, chunk

BODY = b"request"
HEAD = b"POST /v1 HTTP/1.1\r\nhost: x\r\ncontent-length: 7\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"

Open = Callable[..., UpstreamClient]


@pytest.fixture
async def open_client() -> AsyncIterator[Open]:
    clients: list[UpstreamClient] = []

    def make(url: str, **options: object) -> UpstreamClient:
        tls, size = options.pop("tls", None), options.pop("pool_size", 512)
        assert tls is None or isinstance(tls, ssl.SSLContext)
        assert isinstance(size, int)
        seconds = {name: float(str(value)) for name, value in options.items()}
        clients.append(UpstreamClient(url, Timeouts(**seconds), tls=tls, pool_size=size))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()


async def send(client: UpstreamClient, first_byte: float = 30) -> UpstreamReply:
    return await client.send(HEAD, BODY, first_byte=first_byte)


async def whole(reply: UpstreamReply) -> bytes:
    try:
        return b"".join([part async for part in reply.chunks()])
    finally:
        await reply.aclose()


def serves(*answers: bytes) -> Callable[..., Awaitable[None]]:
    """Answer request after request on one connection, then close it."""

    async def behaviour(
        upstream: RawUpstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for index, answer in enumerate(answers):
            if index:
                await upstream.next_request(reader)
            writer.write(answer)

    return behaviour


class Peer(RawUpstream):
    """Does one thing on each connection after another; the last again and again."""

    def __init__(self, *each: Callable[..., Awaitable[None]], **options: ssl.SSLContext) -> None:
        super().__init__(self._act, tls=options.get("tls"))
        self._each = each

    async def _act(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        act = self._each[min(self.connections, len(self._each)) - 1]
        await act(self, reader, writer)


async def forever(upstream: RawUpstream, reader: asyncio.StreamReader, writer: object) -> None:
    assert isinstance(writer, asyncio.StreamWriter)
    while True:
        writer.write(ANSWER)
        await upstream.next_request(reader)


# --- reuse ------------------------------------------------------------------------------------


async def test_the_request_goes_out_as_it_is(open_client: Open) -> None:
    async with Peer(forever) as peer:
        reply = await send(open_client(peer.url))
        assert (reply.status, await whole(reply)) == (200, b"hi")
    assert peer.requests == [HEAD + BODY]


async def test_a_body_is_told_at_once_where_it_has_come_and_not_before(open_client: Open) -> None:
    async def halves(_peer: Peer, _reader: object, writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWER[:-1])
        await writer.drain()
        await go_on.wait()
        writer.write(ANSWER[-1:])

    go_on = asyncio.Event()
    async with Peer(forever) as at_once, Peer(halves) as in_two:
        assert (await send(open_client(at_once.url))).arrived() == b"hi"
        reply = await send(open_client(in_two.url))
        assert reply.arrived() is None
        go_on.set()
        assert await whole(reply) == b"hi"


async def test_calls_one_after_another_use_one_connection(open_client: Open) -> None:
    async with Peer(forever) as peer:
        client = open_client(peer.url)
        for _ in range(5):
            assert await whole(await send(client)) == b"hi"
        assert peer.connections == 1


async def test_calls_at_once_never_get_each_others_answer(open_client: Open) -> None:
    async def echo(upstream: RawUpstream, reader: asyncio.StreamReader, writer: object) -> None:
        assert isinstance(writer, asyncio.StreamWriter)
        at = len(upstream.requests) - 1
        while True:
            word = upstream.requests[at].rpartition(b"\r\n\r\n")[2]
            for part in (b"HTTP/1.1 200 OK\r\n", b"content-length: 7\r\n\r\n", word[:3], word[3:]):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            at = len(upstream.requests)
            await upstream.next_request(reader)
            at = len(upstream.requests) - 1

    async def one(client: UpstreamClient, number: int) -> None:
        word = b"word%03d" % number
        reply = await client.send(HEAD, word, first_byte=30)
        if number % 3 == 0:
            await reply.aclose()
        else:
            assert await whole(reply) == word

    async with Peer(echo) as peer:
        client = open_client(peer.url, pool_size=7)
        async with asyncio.TaskGroup() as group:
            for number in range(60):
                group.create_task(one(client, number))
        assert peer.connections < 60


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        ANSWER + b"more than was promised",
        ANSWER + ANSWER,
    ],
    ids=["told to close", "HTTP/1.0", "extra bytes", "a second answer"],
)
async def test_a_connection_that_cannot_be_trusted_carries_no_second_call(
    open_client: Open, answer: bytes
) -> None:
    async with Peer(serves(answer, b"HTTP/1.1 500 Never\r\ncontent-length: 0\r\n\r\n")) as peer:
        client = open_client(peer.url)
        for _ in range(2):
            reply = await send(client)
            assert (reply.status, await whole(reply)) == (200, b"hi")
        assert peer.connections == 2


async def test_bytes_that_nobody_asked_for_close_an_idle_connection(open_client: Open) -> None:
    speak = asyncio.Event()

    async def talkative(upstream: Peer, reader: asyncio.StreamReader, writer: object) -> None:
        assert isinstance(writer, asyncio.StreamWriter)
        writer.write(ANSWER)
        await speak.wait()
        writer.write(b"HTTP/1.1 500 Poison\r\ncontent-length: 0\r\n\r\n")
        await upstream.until_gone(reader)

    async with Peer(talkative, forever) as peer:
        client = open_client(peer.url)
        assert await whole(await send(client)) == b"hi"
        speak.set()
        async with asyncio.timeout(10):
            await peer.gone.wait()
        reply = await send(client)
        assert (reply.status, await whole(reply)) == (200, b"hi")


async def test_an_answer_before_the_request_was_taken_ends_its_connection(
    open_client: Open,
) -> None:
    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Large\r\ncontent-length: 0\r\n\r\n")
        await done.wait()
        writer.close()

    done = asyncio.Event()
    server = await asyncio.start_server(hasty, "127.0.0.1", 0)
    client = open_client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    large = bytes(16 * 1024 * 1024)
    for _ in range(2):  # on the same connection, the second would wait behind the first's body
        head = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(large)
        reply = await client.send(head, large, first_byte=30)
        assert reply.status == 413
        await reply.aclose()
    done.set()
    server.close()


async def test_an_idle_connection_is_closed_after_a_while(
    open_client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEPALIVE", 0.02)
    async with Peer(forever) as peer:
        client = open_client(peer.url)
        assert await whole(await send(client)) == b"hi"
        (open_one,) = client._open
        async with asyncio.timeout(10):
            await open_one.lost
        assert await whole(await send(client)) == b"hi"
        assert peer.connections == 2


# --- a kept connection that the peer has closed -----------------------------------------------


async def test_a_connection_that_closed_meanwhile_is_not_used(open_client: Open) -> None:
    async with Peer(serves(ANSWER), forever) as peer:
        client = open_client(peer.url)
        assert await whole(await send(client)) == b"hi"
        (open_one,) = client._open
        async with asyncio.timeout(10):
            await open_one.lost
        assert await whole(await send(client)) == b"hi"


async def _closes_at_the_second(
    upstream: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    writer.write(ANSWER)
    await upstream.next_request(reader)


async def test_a_kept_connection_that_closes_without_a_byte_is_tried_again_once(
    open_client: Open,
) -> None:
    async with Peer(_closes_at_the_second, forever) as peer:
        client = open_client(peer.url)
        for _ in range(2):
            assert await whole(await send(client)) == b"hi"
        assert (peer.connections, len(peer.requests)) == (2, 3)


async def test_it_is_not_tried_a_third_time(open_client: Open) -> None:
    async with Peer(_closes_at_the_second, serves(b"")) as peer:
        client = open_client(peer.url)
        assert await whole(await send(client)) == b"hi"
        with pytest.raises(Upstream):
            await send(client)
        assert (peer.connections, len(peer.requests)) == (2, 3)


@pytest.mark.parametrize("answers", [(ANSWER, b"H"), (b"",)], ids=["one byte came", "new one"])
async def test_nothing_else_is_tried_again(open_client: Open, answers: tuple[bytes, ...]) -> None:
    async with Peer(serves(*answers), forever) as peer:
        client = open_client(peer.url)
        for _ in answers[1:]:
            assert await whole(await send(client)) == b"hi"
        with pytest.raises(Upstream) as caught:
            await send(client)
        assert caught.value.error_code == "upstream_error"
        assert (peer.connections, len(peer.requests)) == (1, len(answers))


# --- limits and time --------------------------------------------------------------------------


async def _silent(upstream: Peer, reader: asyncio.StreamReader, writer: object) -> None:
    await upstream.until_gone(reader)


async def test_more_calls_than_the_pool_holds_wait_for_one(open_client: Open) -> None:
    async with Peer(forever) as peer:
        client = open_client(peer.url, pool_size=2)
        replies = await asyncio.gather(*(send(client) for _ in range(20)))
        assert [await whole(reply) for reply in replies] == [b"hi"] * 20
        assert peer.connections == 2


async def test_a_place_that_comes_to_one_who_has_just_gone_goes_to_the_next(
    open_client: Open,
) -> None:
    async def begins(
        _peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(STREAM_HEAD)
        await reader.read()

    async with Peer(begins, forever) as peer:
        client = open_client(peer.url, pool_size=1)
        reply = await send(client)
        gone, stays = (asyncio.create_task(send(client)) for _ in range(2))
        await asyncio.sleep(0)
        await reply.aclose()
        gone.cancel()
        assert await whole(await stays) == b"hi"
        assert await whole(await send(client)) == b"hi"
    assert gone.cancelled()
    assert len(peer.requests) == 3


async def test_a_call_that_finds_no_place_in_time_was_never_sent(open_client: Open) -> None:
    async with Peer(_silent) as peer:
        client = open_client(peer.url, pool_size=1, connect=0.05)
        first = asyncio.create_task(send(client))
        while not peer.requests:
            await asyncio.sleep(0)
        with pytest.raises(UpstreamTimeout) as caught:
            await send(client)
        assert caught.value.error_code == "upstream_unreachable"
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert len(peer.requests) == 1


async def test_a_failed_call_gives_its_place_back(open_client: Open) -> None:
    async with Peer(_silent, serves(b"garbage\r\n\r\n"), serves(b""), forever) as peer:
        client = open_client(peer.url, pool_size=1)
        with pytest.raises(UpstreamTimeout):
            await send(client, first_byte=0.05)
        for _ in range(2):
            with pytest.raises(Upstream):
                await send(client)
        assert await whole(await send(client)) == b"hi"


async def test_connecting_takes_no_longer_than_it_may(
    open_client: Open, unused_tcp_port: int
) -> None:
    listener = socket.create_server(("127.0.0.1", unused_tcp_port))
    with listener:  # the connection is made, but nobody answers the TLS handshake
        client = open_client(f"https://127.0.0.1:{unused_tcp_port}", connect=0.05)
        with pytest.raises(UpstreamTimeout) as caught:
            await send(client)
        assert caught.value.error_code == "upstream_unreachable"


async def test_the_total_time_ends_an_answer_that_never_ends(open_client: Open) -> None:
    async def drips(_peer: Peer, _reader: object, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        while not writer.is_closing():
            writer.write(chunk(b"."))
            await asyncio.sleep(0.005)

    async with Peer(drips) as peer:
        reply = await send(open_client(peer.url, total=0.3, inactivity=0.2))
        with pytest.raises(UpstreamTimeout):
            await whole(reply)


async def test_a_slow_reader_makes_the_upstream_wait_and_loses_nothing(open_client: Open) -> None:
    piece, count = b"x" * 65_536, 400
    sent = 0

    async def pours(_peer: Peer, _reader: object, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(piece) * count))
        for _ in range(count):
            writer.write(piece)
            await writer.drain()
            sent += 1

    async with Peer(pours) as peer:
        # Whoever does not read is slow; that is not the upstream's silence.
        reply = await send(open_client(peer.url, inactivity=0.05))
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < count
        assert reply.waiting < HIGH_WATER + 1024 * 1024
        assert len(await whole(reply)) == len(piece) * count


# --- giving up --------------------------------------------------------------------------------


async def test_a_reply_that_is_given_up_closes_its_connection(open_client: Open) -> None:
    async def begins(upstream: Peer, reader: asyncio.StreamReader, writer: object) -> None:
        assert isinstance(writer, asyncio.StreamWriter)
        writer.write(STREAM_HEAD + chunk(b"first"))
        await upstream.until_gone(reader)

    async with Peer(begins) as peer:
        reply = await send(open_client(peer.url))
        chunks = reply.chunks()
        assert await anext(chunks) == b"first"
        await chunks.aclose()
        async with asyncio.timeout(10):
            await peer.gone.wait()
        await reply.aclose()
        await reply.aclose()


async def test_a_cancelled_reader_closes_its_connection(open_client: Open) -> None:
    async def begins(upstream: Peer, reader: asyncio.StreamReader, writer: object) -> None:
        assert isinstance(writer, asyncio.StreamWriter)
        writer.write(STREAM_HEAD)
        await upstream.until_gone(reader)

    async with Peer(begins) as peer:
        reading = asyncio.create_task(whole(await send(open_client(peer.url))))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        async with asyncio.timeout(10):
            await peer.gone.wait()


async def test_closing_the_client_breaks_what_runs_and_it_can_be_used_again(
    open_client: Open,
) -> None:
    async with Peer(_silent, forever) as peer:
        client = open_client(peer.url)
        running = asyncio.create_task(send(client))
        while not peer.requests:
            await asyncio.sleep(0)
        await client.aclose()
        with pytest.raises(Upstream):
            await running
        await client.aclose()
        assert await whole(await send(client)) == b"hi"


# --- TLS and addresses ------------------------------------------------------------------------


async def test_tls_to_a_server_that_is_trusted(open_client: Open, tmp_path: Path) -> None:
    tls = server_context(tmp_path)
    trusting = ssl.create_default_context(cafile=authority(tmp_path))
    async with Peer(forever, tls=tls) as peer:
        client = open_client(peer.url, tls=trusting)
        for _ in range(3):
            assert await whole(await send(client)) == b"hi"
        assert peer.connections == 1


@pytest.mark.parametrize("name", ["localhost", "elsewhere"], ids=["authority", "name"])
async def test_tls_to_any_other_is_refused(open_client: Open, tmp_path: Path, name: str) -> None:
    tls = server_context(tmp_path, name)
    known = authority(tmp_path) if name != "localhost" else None
    async with Peer(forever, tls=tls) as peer:
        client = open_client(peer.url, tls=ssl.create_default_context(cafile=known))
        with pytest.raises(Upstream) as caught:
            await send(client)
        assert caught.value.error_code == "upstream_unreachable"
        assert peer.requests == []


async def test_a_name_that_does_not_exist_is_unreachable(open_client: Open) -> None:
    with pytest.raises(Upstream) as caught:
        await send(open_client("http://no-such-name.invalid"))
    assert caught.value.error_code == "upstream_unreachable"


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@host",
        "http://host:99999",
        "http://host/#part",
        "http://[",
        "http://a..b",
    ],
)
def test_a_base_url_with_more_than_a_place_is_refused(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        UpstreamClient(url, Timeouts())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "authority_", "path"),
    [
        ("http://Host/", "host", ""),
        ("http://host:80/base/", "host", "/base"),
        ("http://host:8080", "host:8080", ""),
        ("https://host:443", "host", ""),
        ("http://[::1]:81", "[::1]:81", ""),
        ("http://bücher.example", "xn--bcher-kva.example", ""),
    ],
)
def test_where_a_base_url_leads(url: str, authority_: str, path: str) -> None:
    client = UpstreamClient(url, Timeouts())
    assert (client.authority, client.path) == (authority_, path)
