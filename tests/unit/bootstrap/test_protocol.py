"""Heads of requests that are too large, too slow, or no HTTP."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from stationmaster.bootstrap import protocol, serving
from stationmaster.bootstrap.protocol import MAX_HEAD, MAX_HEADERS
from stationmaster.bootstrap.tls import Certificate, CertificateError
from stationmaster.http.wire.exchange import App, Receive, Scope, Send
from tests.support.certificates import authority, server_context


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    while message.get("more_body"):
        message = await receive()
    body = f"{scope['scheme']} {scope['path']}".encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving_at(tls: ssl.SSLContext | None = None, behind: App = app) -> AsyncIterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        server = serving._Server(serving._config(behind, ws="none", tls=tls), listener)
        task = asyncio.create_task(server.run())
        await server.ready()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


async def say(port: int, *pieces: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """Send the pieces one after the other, and return all that is answered until the end."""
    name = None if tls is None else "localhost"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    for piece in pieces:
        writer.write(piece)
        try:
            await writer.drain()
        except ConnectionError:
            break
        await asyncio.sleep(0)
    try:
        answer = await reader.read()
    except ConnectionError:
        answer = b""
    writer.close()
    return answer


CLOSE = b"Connection: close\r\n\r\n"


async def test_a_plain_request_is_answered() -> None:
    async with serving_at() as port:
        answer = await say(port, b"GET /a HTTP/1.1\r\nHost: x\r\n" + CLOSE)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"http /a")


async def test_several_requests_on_one_connection_each_have_their_bounds() -> None:
    async with serving_at() as port:
        large = b"X-Large: " + b"x" * (MAX_HEAD - 200) + b"\r\n"
        one = b"POST /a HTTP/1.1\r\nHost: x\r\n" + large + b"Content-Length: 3\r\n\r\nabc"
        answer = await say(port, one, one, b"GET /b HTTP/1.1\r\nHost: x\r\n" + CLOSE)
        assert answer.count(b"HTTP/1.1 200 ") == 3


@pytest.mark.parametrize(
    "header",
    [(b"x-b", b"b\r\nx-c: c"), (b"x-b\r\nx-c", b"c"), (b"x-b: b", b"c"), (b"x-b", b"\0")],
)
async def test_a_head_that_would_say_more_is_not_sent(header: tuple[bytes, bytes]) -> None:
    async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"x-a", b"a"), header, (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async with serving_at(behind=answer) as port:
        for ending in (b"\r\n", CLOSE):
            assert await say(port, b"GET /a HTTP/1.1\r\nHost: x\r\n" + ending) == b""


async def test_heads_are_the_same_on_a_connection_that_is_kept() -> None:
    async with serving_at() as port:
        one = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
        kept, closed = (await say(port, one, one[:-2] + CLOSE)).split(b"http /a")[:2]
        assert kept.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") == closed


async def test_a_large_body_counts_for_nothing_here() -> None:
    async with serving_at() as port:
        size = 4 * MAX_HEAD
        head = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % size
        answer = await say(port, head + CLOSE, *([b"x" * MAX_HEAD] * 4))
        assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET / HTTP/1.1\r\nHost: x\r\nX-L: " + b"x" * (MAX_HEAD + 1) + b"\r\n\r\n"],
        [b"GET / HTTP/1.1\r\nHost: x\r\nX-L: ", *([b"x" * 4096] * 32)],
        [b"GET / HTTP/1.1\r\n", *([b"X-N: " + b"x" * 4000 + b"\r\n"] * 32)],
        [b"GET /", *([b"x" * 4096] * 32)],
        [b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(MAX_HEADERS + 2))],
        [b"GET / HTTP/1.1\r\nX-" + b"n" * (MAX_HEAD + 1) + b": y\r\n\r\n"],
    ],
    ids=["value", "unending value", "lines", "url", "number", "name"],
)
async def test_a_head_that_is_too_large_is_refused(pieces: list[bytes]) -> None:
    async with serving_at() as port:
        answer = await say(port, *pieces)
        # A client that still sends may find the connection gone before it reads the answer.
        assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
        assert (await say(port, b"GET /a HTTP/1.1\r\nHost: x\r\n" + CLOSE)).endswith(b"/a")


async def test_what_is_no_http_is_refused() -> None:
    async with serving_at() as port:
        assert (await say(port, b"\x16\x03\x01 hello\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "pieces",
    [
        [b""],
        [b"G"],
        [b"GET / HTTP/1.1\r\nHost: x\r\n"],
        [b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /b HTTP/1.1\r\nHost: "],
    ],
    ids=["nothing", "a byte", "no end", "the second"],
)
async def test_a_head_that_never_ends_is_given_up(
    pieces: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    async with serving_at() as port:
        answer = await say(port, *pieces)
        assert b"HTTP/1.1 408 " in answer


async def test_a_slow_answer_is_not_a_slow_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.3)  # longer than a head may take
        await app(scope, receive, send)

    async with serving_at(behind=slow) as port:
        answer = await say(port, b"GET /a HTTP/1.1\r\nHost: x\r\n" + CLOSE)
        assert answer.startswith(b"HTTP/1.1 200 ")


# --- TLS --------------------------------------------------------------------------------------


def certificate(directory: Path) -> Certificate:
    server_context(directory)
    return Certificate(authority(directory), directory / "key.pem")


def trusting(directory: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority(directory)))


REQUEST = b"GET /a HTTP/1.1\r\nHost: localhost\r\n" + CLOSE


async def test_tls_is_spoken_with_the_certificate(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    async with serving_at(made.context) as port:
        assert (await say(port, REQUEST, tls=trusting(tmp_path))).endswith(b"https /a")


async def test_tls_older_than_1_2_is_refused(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    assert made.context.minimum_version == ssl.TLSVersion.TLSv1_2
    for version, fits in ((ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)):
        client = trusting(tmp_path)
        client.minimum_version = client.maximum_version = version
        async with serving_at(made.context) as port:
            assert (await say(port, REQUEST, tls=client)).endswith(b"https /a") is fits


async def test_a_renewed_certificate_is_taken_without_a_restart(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    old = trusting(tmp_path)
    assert not made.refresh()
    async with serving_at(made.context) as port:
        server_context(tmp_path)  # another key, another certificate
        with structlog.testing.capture_logs() as lines:
            assert made.refresh()
        assert [line["event"] for line in lines] == ["The certificate was renewed."]
        assert (await say(port, REQUEST, tls=trusting(tmp_path))).endswith(b"https /a")
        with pytest.raises(ssl.SSLError):
            await say(port, REQUEST, tls=old)


async def test_a_broken_renewal_leaves_the_old_certificate(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    old = trusting(tmp_path)
    (tmp_path / "key.pem").write_text("half of a ke")
    with structlog.testing.capture_logs() as lines:
        assert not made.refresh()
        assert not made.refresh()
    assert len(lines) == 1
    async with serving_at(made.context) as port:
        assert (await say(port, REQUEST, tls=old)).endswith(b"https /a")


@pytest.mark.parametrize("broken", ["authority.pem", "key.pem"])
def test_what_cannot_be_used_is_refused_at_the_start(tmp_path: Path, broken: str) -> None:
    server_context(tmp_path)
    (tmp_path / broken).unlink()
    with pytest.raises(CertificateError, match=broken):
        Certificate(authority(tmp_path), tmp_path / "key.pem")
    (tmp_path / broken).write_text("nonsense")
    with pytest.raises(CertificateError):
        Certificate(authority(tmp_path), tmp_path / "key.pem")


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    server_context(tmp_path)
    (tmp_path / "b").mkdir()
    server_context(tmp_path / "b")
    with pytest.raises(CertificateError):
        Certificate(authority(tmp_path), tmp_path / "b" / "key.pem")
