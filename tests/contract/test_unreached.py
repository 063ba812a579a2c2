"""What an operator is told of a Redis or RabbitMQ that cannot be used, and TLS to real ones."""

import asyncio
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from stationmaster.jobs.broker import Broker
from stationmaster.jobs.rabbitmq import RabbitMQ
from stationmaster.jobs.redis_streams import SOCKET_TIMEOUT_S, RedisStreams
from stationmaster.live.connection import AWAY, connected, unreached
from tests.support.certificates import authority, server_context
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitServer
from tests.support.redis import RedisServer, private_redis
from tests.support.services import require

WAIT_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def told_of_redis(url: str) -> str | None:
    """What is wrong with it; None where it answers."""
    client = connected(url)
    try:
        await client.ping()
    except AWAY as error:
        return unreached(error)
    finally:
        await client.aclose()
    return None


async def told_of_rabbitmq(url: str) -> str | None:
    return await trouble_of(RabbitMQ(url, receives=True))


async def trouble_of(broker: Broker) -> str | None:
    """What is wrong with a broker that is looked at; None where nothing is."""
    first = broker.trouble
    running = asyncio.create_task(broker.run())
    async with asyncio.timeout(WAIT_S):
        while broker.trouble is first:
            await asyncio.sleep(0.02)
    trouble = broker.trouble
    running.cancel()
    await asyncio.wait({running})
    return None if trouble is None else trouble.message


@pytest.fixture
def tls_redis(tmp_path: Path) -> Iterator[int]:
    """The port of a Redis that speaks TLS alone, with a certificate that nobody knows."""
    server_context(tmp_path)
    port = free_port()
    process = subprocess.Popen(
        [require("setpriv"), "--pdeathsig", "KILL", "--", require("redis-server"),
         "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", "",
         "--tls-cert-file", str(authority(tmp_path)), "--tls-key-file", str(tmp_path / "key.pem"),
         "--tls-ca-cert-file", str(authority(tmp_path)), "--tls-auth-clients", "no",
         "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(600):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            pytest.skip("this redis-server has no TLS")
    yield port
    process.kill()
    process.wait()


async def test_redis_with_a_certificate_of_ones_own(tls_redis: int, tmp_path: Path) -> None:
    url = f"rediss://localhost:{tls_redis}/0"
    assert await told_of_redis(f"{url}?ssl_ca_certs={authority(tmp_path)}") is None
    distrusted = await told_of_redis(url)
    assert distrusted is not None
    assert "not trusted" in distrusted
    assert "?ssl_ca_certs=" in distrusted
    missing = await told_of_redis(f"{url}?ssl_ca_certs={tmp_path}/none.pem")
    assert "cannot be read" in str(missing)
    named = f"rediss://127.0.0.1:{tls_redis}/0?ssl_ca_certs={authority(tmp_path)}"
    assert "another name" in str(await told_of_redis(named))


async def test_redis_that_will_not_do(redis_server: RedisServer) -> None:
    parts = urlsplit(redis_server.url)
    place = f"127.0.0.1:{parts.port}"
    for url, words in (
        (f"redis://:not-the-secret@{place}/0", "user or password"),
        (f"redis://nobody:not-the-secret@{place}/0", "user or password"),
        (f"redis://{place}/0", "user or password"),
        (f"rediss://:{parts.password}@{place}/0", "does it speak TLS"),
        ("redis://127.0.0.1:1/0", "Nothing listens"),
        ("redis://no-such-host.invalid/0", "has no address"),
    ):
        told = await told_of_redis(url)
        assert told is not None, url
        assert words in told, url
        for secret in ("not-the-secret", "127.0.0.1", str(parts.port), "invalid"):
            assert secret not in told


async def test_redis_that_knows_the_user_with_another_password(redis_server: RedisServer) -> None:
    redis_server.command("ACL", "SETUSER", "shy", "on", ">right", "~*", "+@all", "-ping")
    place = f"127.0.0.1:{urlsplit(redis_server.url).port}/0"
    assert "user or password" in str(await told_of_redis(f"redis://shy:wrong@{place}"))
    assert "may not do" in str(await told_of_redis(f"redis://shy:right@{place}"))
    redis_server.command("ACL", "DELUSER", "shy")


async def test_a_redis_that_is_too_old_for_streams() -> None:
    """One that does not know a command which came with 6.2. It is not well now and then."""
    with private_redis("rename-command XAUTOCLAIM not-yet") as server:
        client = connected(server.url, timeout=SOCKET_TIMEOUT_S)
        told = await trouble_of(RedisStreams(client, consumer="a"))
        await client.aclose()
    assert told == "Redis is too old: 6.2 is the oldest that will do. Upgrade it."


async def test_a_rabbitmq_that_is_too_old(rabbitmq_server: RabbitServer, rabbitmq_url: str) -> None:
    parts = urlsplit(rabbitmq_url)

    # Its version as it is told at each connection, made an older one: none runs here.
    def older(data: bytes) -> bytes:
        known = rb"(?s)(versionS\0\0\0.)([\d.]+)"
        return re.sub(known, lambda told: told[1] + b"3.7".ljust(len(told[2]), b"."), data)

    for rewrite, words in ((older, "RabbitMQ is version 3.7, and 3.8 is the oldest"), (None, None)):
        async with Proxy(rabbitmq_server.port, rewrite=rewrite) as proxy:
            told = await told_of_rabbitmq(
                f"amqp://{parts.username}:{parts.password}@127.0.0.1:{proxy.port}{parts.path}"
            )
        assert told is None if words is None else str(told).startswith(words)


@asynccontextmanager
async def tls_before(port: int, directory: Path) -> AsyncIterator[int]:
    """A port with TLS before a server's own."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)

        async def pipe(one: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await one.read(65536):
                    other.write(data)
                    await other.drain()
            other.close()

        await asyncio.gather(pipe(reader, back), pipe(there, writer))

    context = server_context(directory)
    async with await asyncio.start_server(carry, "localhost", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def test_rabbitmq_with_a_certificate_of_ones_own(
    rabbitmq_server: RabbitServer, rabbitmq_url: str, tmp_path: Path
) -> None:
    parts = urlsplit(rabbitmq_url)
    async with tls_before(rabbitmq_server.port, tmp_path) as port:
        url = f"amqps://{parts.username}:{parts.password}@localhost:{port}/%2F"
        assert await told_of_rabbitmq(f"{url}?cafile={authority(tmp_path)}") is None
        distrusted = await told_of_rabbitmq(url)
        assert distrusted is not None
        assert "not trusted" in distrusted
        assert "?cafile=" in distrusted
        missing = await told_of_rabbitmq(f"{url}?cafile={tmp_path}/none.pem")
        assert "cannot be read" in str(missing)
    plain = f"amqps://{parts.username}:{parts.password}@localhost:{rabbitmq_server.port}/%2F"
    assert "Does it speak TLS" in str(await told_of_rabbitmq(plain))
    assert "Nothing listens" in str(await told_of_rabbitmq("amqp://a:b@127.0.0.1:1/%2F"))
    assert "has no address" in str(await told_of_rabbitmq("amqp://a:b@no-such-host.invalid/%2F"))
