"""Bring a database to the present schema, under a lock, or refuse.

Alembic is heavy to import, so a database that is up to date never loads it.
"""

from pathlib import Path

import structlog
from sqlalchemy import Connection, inspect, text

from stationmaster.kernel.errors import StationmasterError
from stationmaster.migrations.connection import locked, run
from stationmaster.storage.address import parse

log = structlog.get_logger(__name__)

HEAD = "0018"
UNFINISHED = "copy_unfinished"  # the table in which a copy into this database notes how far it is


class SchemaError(StationmasterError):
    """The database's schema does not fit this version."""

    code = "schema_error"


async def current(url: str) -> str | None:
    """The schema revision of the database; None where it is empty.

    Raises `Unavailable`, and `Invalid` for an address that is none.
    """
    return await run(parse(url), _revision)


async def migrate(url: str) -> bool:
    """Bring the database to `HEAD`; False where it was there already.

    Safe for several servers at once: one migrates, the others wait. It blocks the event loop on
    SQLite: call it before anything is served. Raises `SchemaError` for a schema that is newer than
    this version, half applied or another program's, `Unavailable` where the database cannot be
    reached, and `Invalid` for an address that is none.
    """
    parsed = parse(url)
    if await run(parsed, _present):
        return False
    async with locked(parsed):
        return await run(parsed, _bring_up)


def _bring_up(connection: Connection) -> bool:
    if _present(connection):
        return False
    _upgrade(connection, _revision(connection))
    return _present(connection)


def _present(connection: Connection) -> bool:
    """Whether the schema is this version's. Raises `SchemaError` where it only says so."""
    if _revision(connection) != HEAD:
        return False
    from stationmaster.migrations.tables import metadata

    there = {tuple(row) for row in connection.execute(text(_COLUMNS[connection.dialect.name]))}
    connection.rollback()
    if any(table == UNFINISHED for table, _ in there):
        raise SchemaError(
            "A copy into this database is not finished. Call `stationmaster copy-database` again,"
            " as it was called before; it goes on where it was.",
            code="copy_unfinished",
        )
    for table in metadata.sorted_tables:
        for column in table.columns:
            if (table.name, column.name) not in there:
                raise SchemaError(
                    f"The database says that it has schema {HEAD}, but {table.name}.{column.name}"
                    " is not there: it was changed by hand, or restored in part. Restore a whole"
                    " backup.",
                    code="schema_incomplete",
                )
    return True


_COLUMNS = {
    "sqlite": "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c"
    " WHERE m.type = 'table'",
    "postgresql": "SELECT table_name, column_name FROM information_schema.columns"
    " WHERE table_schema = current_schema()",
}


def _upgrade(connection: Connection, revision: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    if revision is not None:
        try:
            ScriptDirectory.from_config(config).get_revision(revision)
        except CommandError:
            raise SchemaError(
                f"The database has schema {revision}, which is newer than this version of"
                f" stationmaster knows ({HEAD}). Start the version that made it, or restore a"
                " backup.",
                code="schema_too_new",
            ) from None
    elif tables := set(inspect(connection).get_table_names()) - {"alembic_version"}:
        if "streams" in tables:  # ours since the first schema
            raise SchemaError(
                "The database has stationmaster's tables, but does not say of which schema: it was"
                " changed by hand, or restored in part. Restore a whole backup.",
                code="schema_incomplete",
            )
        raise SchemaError(
            "The database has tables, but none of them says that they are stationmaster's."
            " Give it a database of its own.",
            code="schema_foreign",
        )
    log.info("The database is being migrated.", from_revision=revision, to_revision=HEAD)
    command.upgrade(config, "head")
    connection.commit()


def _revision(connection: Connection) -> str | None:
    found = None
    if inspect(connection).has_table("alembic_version"):
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    connection.rollback()
    return None if found is None else str(found)
