"""A process that freezes within a transaction keeps its locks for a bounded time alone."""

from sqlalchemy import text

from stationmaster.storage import open_database
from stationmaster.storage.postgresql import FROZEN_S


async def test_postgresql_ends_the_session_of_one_that_froze(postgres_url: str) -> None:
    database = open_database(postgres_url)
    try:
        asked = text("SHOW idle_in_transaction_session_timeout")
        assert await database.write(lambda tx: tx.execute(asked).scalar()) == f"{FROZEN_S}s"
    finally:
        await database.close()
