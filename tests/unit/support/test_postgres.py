import asyncpg
import pytest

from tests.support.postgres import PostgresServer


async def test_each_test_has_an_empty_database(postgres_server: PostgresServer) -> None:
    urls = [postgres_server.url(postgres_server.create()) for _ in range(2)]
    for url in urls:
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE mine (id int)")  # fails where it is not alone
        await connection.close()


async def test_a_database_can_be_copied(postgres_server: PostgresServer) -> None:
    template = postgres_server.create()
    connection = await asyncpg.connect(postgres_server.url(template))
    await connection.execute("CREATE TABLE mine AS SELECT 7 AS id")
    await connection.close()
    copy = await asyncpg.connect(postgres_server.url(postgres_server.create(template)))
    assert await copy.fetchval("SELECT id FROM mine") == 7
    await copy.close()


async def test_the_server_comes_back_after_a_crash(postgres_server: PostgresServer) -> None:
    url = postgres_server.url(postgres_server.create())
    postgres_server.pause()
    with pytest.raises(ConnectionRefusedError):
        await asyncpg.connect(url)
    postgres_server.resume()
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()
