import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from stationmaster.agents.claude_code import egress
from stationmaster.agents.claude_code.egress import ANTHROPIC_HOSTS, EgressProxy

HOST = "api.anthropic.com:443"


class Echo:
    """A host that says everything back, and says goodbye at its client's end."""

    def __init__(self) -> None:
        self.port = 0
        self.clients = 0
        self.gone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients += 1
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write(b"goodbye")
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.gone.set()
            writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    yield echo
    server.close()
    await server.wait_closed()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # a socket's whole path may be too long
    return Path("egress.sock")


def proxy(path: Path, echo: Echo, **options: Any) -> EgressProxy:
    return EgressProxy(path, instead={HOST: ("127.0.0.1", echo.port)}, **options)


async def ask(path: Path, head: bytes) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    """The answer's status line, and the connection after its head."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(head)
    answer = await reader.readuntil(b"\r\n\r\n")
    return answer.partition(b"\r\n")[0], reader, writer


async def refusal(path: Path, head: bytes) -> bytes:
    status, reader, writer = await ask(path, head)
    assert await reader.read() == b"", "the connection must end with the refusal"
    writer.close()
    return status


def connect(name: str) -> bytes:
    return f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()


async def test_an_allowed_host_gets_a_tunnel_both_ways_and_a_half_end(
    path: Path, echo: Echo
) -> None:
    async with proxy(path, echo):
        # What follows the head at once belongs into the tunnel already.
        status, reader, writer = await ask(path, connect(HOST) + b"early ")
        assert status == b"HTTP/1.1 200 Connection established"
        sent = b"x" * 300_000
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == b"early " + sent + b"goodbye"
        writer.close()
    assert not path.exists()


async def test_the_names_case_does_not_matter(path: Path, echo: Echo) -> None:
    async with proxy(path, echo):
        status, _, writer = await ask(path, connect("API.Anthropic.com:443"))
        assert b"200" in status
        writer.close()


@pytest.mark.parametrize(
    "name",
    [
        "example.org:443",
        "api.anthropic.com:80",
        "api.anthropic.com:0443",
        "api.anthropic.com.:443",
        "api.anthropic.com.evil.example:443",
        "evil-api.anthropic.com:443",
        "127.0.0.1:443",
        "[::1]:443",
        "api.anthropic.com",
        "api.anthropic.com:443@evil.example:443",
        "api.anthropic.com%00.evil.example:443",
    ],
)
async def test_every_other_name_is_refused(path: Path, echo: Echo, name: str) -> None:
    async with proxy(path, echo):
        with capture_logs() as lines:
            assert await refusal(path, connect(name)) == b"HTTP/1.1 403 Forbidden"
    assert [line["log_level"] for line in lines] == ["warning"]
    assert echo.clients == 0


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://api.anthropic.com/ HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n",
        b"connect api.anthropic.com:443 HTTP/1.1\r\n\r\n",
        b"CONNECT api.anthropic.com:443 HTTP/2\r\n\r\n",
        b"CONNECT api.anthropic.com:443\r\n\r\n",
        b"CONNECT  api.anthropic.com:443 HTTP/1.1\r\n\r\n",
        b"CONNECT api.anthropic.com:443 HTTP/1.1\nX: y\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\xff\r\n\r\n",
        b"\r\n\r\n",
    ],
)
async def test_what_is_not_a_tunnel_is_refused(path: Path, echo: Echo, head: bytes) -> None:
    async with proxy(path, echo):
        assert await refusal(path, head) == b"HTTP/1.1 403 Forbidden"
    assert echo.clients == 0


async def test_a_refused_name_is_told_once_and_no_more_than_so_many(path: Path, echo: Echo) -> None:
    async with proxy(path, echo):
        with capture_logs() as lines:
            for number in range(egress._NAMES_TOLD + 5):
                for _ in range(2):
                    await refusal(path, connect(f"host-{number}.example:443"))
    assert len(lines) == egress._NAMES_TOLD
    assert lines[0]["host"] == "host-0.example:443"


async def test_a_head_without_end_is_refused(path: Path, echo: Echo) -> None:
    async with proxy(path, echo):
        head = connect(HOST)[:-2] + b"X: " + b"y" * (egress.MAX_HEAD_BYTES * 2)
        assert b"431" in await refusal(path, head)


async def test_a_head_that_does_not_come_is_not_waited_for(path: Path, echo: Echo) -> None:
    async with proxy(path, echo, head_timeout=0.05):
        assert b"408" in await refusal(path, b"CONNECT ")


async def test_a_tunnel_in_which_nothing_moves_is_closed(path: Path, echo: Echo) -> None:
    async with proxy(path, echo, idle_timeout=0.05):
        _, reader, writer = await ask(path, connect(HOST))
        assert await reader.read() == b""
        await echo.gone.wait()
        writer.close()


async def test_one_connection_too_many_is_dropped(path: Path, echo: Echo) -> None:
    async with proxy(path, echo, max_connections=1):
        _, first, writer = await ask(path, connect(HOST))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await ask(path, connect(HOST))
        writer.write(b"still here")
        assert await first.readexactly(10) == b"still here"
        writer.close()
        await echo.gone.wait()


async def test_the_end_drops_open_tunnels(path: Path, echo: Echo) -> None:
    async with proxy(path, echo):
        _, reader, writer = await ask(path, connect(HOST))
    assert await reader.read() == b""
    await echo.gone.wait()
    writer.close()


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "::1", "fd00::1", "fe80::1%eth0", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1"),
    ],
)
async def test_a_name_that_leads_into_a_private_network_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    async def resolve(*_: object, **__: object) -> list[Any]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, 443))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    async with EgressProxy(path):
        assert await refusal(path, connect(HOST)) == b"HTTP/1.1 403 Forbidden"


async def test_a_host_that_cannot_be_reached_is_a_bad_gateway(path: Path, echo: Echo) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening: connections are refused
        async with EgressProxy(path, instead={HOST: taken.getsockname()}):
            assert b"502" in await refusal(path, connect(HOST))


def test_public_addresses_are_public() -> None:
    assert egress._public("160.79.104.10")
    assert egress._public("2607:6bc0::10")


def test_only_anthropic_is_on_the_list() -> None:
    assert set(ANTHROPIC_HOSTS) == {"api.anthropic.com:443", "platform.claude.com:443"}
