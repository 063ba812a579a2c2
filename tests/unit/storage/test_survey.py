"""What an operator is told of a server that cannot be used, and what is found of one that can."""

import asyncio
import re

import asyncpg
import pytest
from sqlalchemy import make_url

from stationmaster.kernel.errors import Invalid, StationmasterError, Unavailable
from stationmaster.storage import open_database, survey
from tests.support.pgbouncer import pgbouncer
from tests.support.postgres import PostgresServer
from tests.support.proxy import Proxy


async def refusal(url: str) -> StationmasterError:
    with pytest.raises(StationmasterError) as caught:
        await survey(url)
    password = make_url(url).password
    assert password is None or password not in str(caught.value)
    return caught.value


def changed(url: str, **parts: object) -> str:
    return make_url(url).set(**parts).render_as_string(hide_password=False)  # type: ignore[arg-type]


async def test_a_server_that_is_fit(postgres_url: str) -> None:
    found = await survey(postgres_url)
    assert found is not None
    assert found.version >= 13
    assert not found.pooled


async def test_sqlite_has_no_server(tmp_path: object) -> None:
    assert await survey(f"sqlite:///{tmp_path}/file.db") is None


async def test_a_pooler_between_is_found(postgres_url: str) -> None:
    with pgbouncer(postgres_url) as url:
        found = await survey(url)
    assert found is not None
    assert found.pooled


@pytest.mark.parametrize(
    ("parts", "code", "words"),
    [
        ({"password": "a-wrong-secret"}, "database_denied", "the password is wrong"),
        ({"username": "nobody_known"}, "database_denied", "refuses the user 'nobody_known'"),
        ({"database": "no_such"}, "database_missing", "no database 'no_such'.*createdb"),
        ({"port": 1}, "database_unavailable", "nothing listens at 127.0.0.1:1"),
        ({"host": "no-such-host.invalid"}, "database_unavailable", "has no address"),
        ({"query": {"sslmode": "require"}}, "database_unavailable", "TLS"),
    ],
)
async def test_what_is_wrong_and_what_to_do(
    postgres_url: str, parts: dict[str, object], code: str, words: str
) -> None:
    error = await refusal(changed(postgres_url, **parts))
    assert isinstance(error, Unavailable)
    assert error.error_code == code
    assert re.search(words, error.message), error.message


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u:hidden@h/n?sslmode=sometimes", "one of: disable, .*, verify-full"),
        ("postgresql://u:hidden@h/n?sslrootcrt=/ca.pem", "'sslrootcrt', which is not known"),
        ("postgresql://u:hidden@h/n?connect_timeout=3", "'connect_timeout', which is not known"),
        ("postgresql://u:hidden@h:port/n", "must look like"),
        ("postgresql://u:hidden@h:99999/n", "must be a number from 1 to 65535"),
        ("mysql://u:hidden@h/n", "'mysql' is not supported. Use PostgreSQL 13"),
        ("mariadb+aiomysql://u:hidden@h/n", "'mariadb' is not supported. Use PostgreSQL 13"),
        ("oracle://u:hidden@h/n", "'oracle' is not supported. Use PostgreSQL 13"),
        ("redis://u:hidden@h/n", "'redis' is not supported"),
        ("https://u:hidden@h/n", "'https' is not supported"),
        ("postgresql://u:hidden@/n?port=none", "must be a number from 1 to 65535"),
        ("nonsense", "must look like"),
    ],
)
async def test_addresses_that_are_none(url: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        await survey(url)
    assert "hidden" not in str(caught.value)
    with pytest.raises(Invalid, match=words):
        open_database(url)


async def test_a_server_that_never_answers(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stationmaster.storage.server.ANSWER_S", 0.3)
    async with Proxy(postgres_server.port) as proxy:
        proxy.dropping = True
        error = await refusal(changed(postgres_url, port=proxy.port))
    assert "does not answer" in error.message


async def test_something_else_than_postgresql() -> None:
    async def hang_up(_reader: object, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    error = await refusal(f"postgresql://u:secret-word@127.0.0.1:{port}/n")
    assert "was closed at once" in error.message
    server.close()


async def test_an_old_server(postgres_server: PostgresServer, postgres_url: str) -> None:
    # The version as it is told at each connection, made an older one: none runs here.
    def older(data: bytes) -> bytes:
        return re.sub(rb"(server_version\0)\d\d", rb"\g<1>12", data)

    async with Proxy(postgres_server.port, rewrite=older) as proxy:
        error = await refusal(changed(postgres_url, port=proxy.port))
    assert error.error_code == "database_too_old"
    assert "is version 12, and 13 is the oldest" in error.message


async def test_a_server_that_takes_no_writes(postgres_url: str) -> None:
    name = make_url(postgres_url).database
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await connection.close()
    error = await refusal(postgres_url)
    assert error.error_code == "database_read_only"
    assert "Name the primary" in error.message
