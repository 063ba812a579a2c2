"""Taking a database from schema to schema, and rows into it, without the server's own code."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url, text

import stationmaster.migrations
from stationmaster.migrations.connection import run
from stationmaster.migrations.tables import metadata


def scripts() -> Config:
    """Alembic's configuration for the revisions."""
    config = Config()
    location = str(Path(stationmaster.migrations.__file__).parent).replace("%", "%%")
    config.set_main_option("script_location", location)
    return config


def revisions() -> list[str]:
    """All of them, the first one first."""
    walked = ScriptDirectory.from_config(scripts()).walk_revisions()
    return [each.revision for each in walked][::-1]


async def move(url: str, revision: str, *, down: bool = False) -> None:
    """Bring the database to a revision."""

    def work(connection: Connection) -> None:
        config = scripts()
        config.attributes["connection"] = connection
        (command.downgrade if down else command.upgrade)(config, revision)
        connection.commit()

    await run(make_url(url), work)


async def insert(url: str, table: str, *rows: dict[str, Any]) -> None:
    """Insert rows; JSON is given as text."""

    def work(connection: Connection) -> None:
        for row in rows:
            columns = ", ".join(f'"{name}"' for name in row)
            values = ", ".join(f":{name}" for name in row)
            connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({values})"), row)
        connection.commit()

    await run(make_url(url), work)


async def rows(url: str, statement: str) -> list[Any]:
    """What a statement finds, each row a tuple."""

    def work(connection: Connection) -> list[Any]:
        return [tuple(row) for row in connection.execute(text(statement))]

    return await run(make_url(url), work)


async def differences(url: str) -> list[Any]:
    """What the database's schema has else than the tables of this version say."""

    def work(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    return await run(make_url(url), work)
