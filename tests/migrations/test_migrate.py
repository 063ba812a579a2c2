"""From any database to the present schema: once, whole, or not at all."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, make_url, text
from sqlalchemy.engine.reflection import Inspector

from stationmaster.kernel.errors import Unavailable
from stationmaster.migrations import HEAD, SchemaError, current, migrate
from stationmaster.migrations.connection import locked
from stationmaster.migrations.connection import run as _run
from stationmaster.migrations.tables import metadata
from stationmaster.storage.address import parse
from tests.support.postgres import PostgresServer
from tests.support.schema import differences, scripts


async def _names(url: str) -> set[str]:
    def names(connection: Connection) -> set[str]:
        inspector: Inspector = inspect(connection)
        return set(inspector.get_table_names())

    return await _run(parse(url), names)


async def _execute(url: str, *statements: str) -> None:
    def execute(connection: Connection) -> None:
        for statement in statements:
            connection.execute(text(statement))
        connection.commit()

    await _run(parse(url), execute)


async def test_an_empty_database_is_brought_to_the_present(database_url: str) -> None:
    assert await current(database_url) is None
    assert await migrate(database_url)
    assert await current(database_url) == HEAD
    assert await _names(database_url) == {*metadata.tables, "alembic_version"}


async def test_a_second_time_does_nothing(database_url: str) -> None:
    await migrate(database_url)
    await _execute(
        database_url, "INSERT INTO organizations (id, name, created_at) VALUES ('o', 'kept', 1)"
    )
    with structlog.testing.capture_logs() as lines:
        assert not await migrate(database_url)
    assert lines == []

    def kept(connection: Connection) -> object:
        return connection.execute(text("SELECT name FROM organizations")).scalar()

    assert await _run(parse(database_url), kept) == "kept"


async def test_the_schema_is_what_the_tables_say(migrated_url: str) -> None:
    assert await differences(migrated_url) == []


def test_the_head_is_the_last_revision_and_there_is_one() -> None:
    assert ScriptDirectory.from_config(scripts()).get_heads() == [HEAD]


async def test_a_newer_schema_is_refused_and_left_alone(database_url: str) -> None:
    await migrate(database_url)
    await _execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    before = await _names(database_url)
    with pytest.raises(SchemaError, match="9999") as caught:
        await migrate(database_url)
    assert caught.value.error_code == "schema_too_new"
    assert await current(database_url) == "9999"
    assert await _names(database_url) == before


async def test_another_programs_tables_are_refused_and_left_alone(database_url: str) -> None:
    await _execute(database_url, "CREATE TABLE customers (id INTEGER)")
    with pytest.raises(SchemaError) as caught:
        await migrate(database_url)
    assert caught.value.error_code == "schema_foreign"
    assert await _names(database_url) == {"customers"}


@pytest.mark.parametrize(
    "harm", ["ALTER TABLE instances DROP COLUMN lease_until", "DELETE FROM alembic_version"]
)
async def test_a_schema_in_part_is_refused_and_left_alone(database_url: str, harm: str) -> None:
    await migrate(database_url)
    await _execute(database_url, harm)
    before = await _names(database_url)
    with pytest.raises(SchemaError) as caught:
        await migrate(database_url)
    assert caught.value.error_code == "schema_incomplete"
    assert await _names(database_url) == before


async def test_what_a_newer_version_added_is_let_be(database_url: str) -> None:
    await migrate(database_url)
    await _execute(database_url, "ALTER TABLE streams ADD COLUMN of_later INTEGER")
    assert not await migrate(database_url)


async def test_a_database_that_cannot_be_reached_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, whatever its name says" * 100)
    for url in (
        "postgresql://nobody@127.0.0.1:1/nothing",
        f"sqlite:///{tmp_path / 'text.db'}",
        f"sqlite:///{tmp_path}",
    ):
        with pytest.raises(Unavailable):
            await migrate(url)
        with pytest.raises(Unavailable):
            await current(url)


async def test_a_wrong_password_is_unavailable_and_not_shown(
    postgres_server: PostgresServer,
) -> None:
    right = make_url(postgres_server.url("postgres"))
    wrong = right.set(password="wrong-password").render_as_string(hide_password=False)
    with pytest.raises(Unavailable) as caught:
        await migrate(wrong)
    assert "wrong-password" not in str(caught.value)


# --- processes --------------------------------------------------------------------------------

MIGRATE = """
import asyncio, sys
from stationmaster.migrations import migrate
print(asyncio.run(migrate(sys.argv[1])))
"""

# Dies as by `kill -9`, after its nth statement.
MIGRATE_AND_DIE = """
import asyncio, os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from stationmaster.migrations import migrate

left = int(sys.argv[2])

@event.listens_for(Engine, "after_cursor_execute")
def count(connection, cursor, statement, *rest):
    global left
    if statement.lstrip().upper().startswith(("CREATE", "INSERT", "UPDATE")):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(migrate(sys.argv[1]))
"""


async def test_while_one_migrates_another_waits(postgres_url: str) -> None:
    held, go = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with locked(parse(postgres_url)):
            held.set()
            await go.wait()

    holder = asyncio.create_task(hold())
    await held.wait()
    waiting = asyncio.create_task(migrate(postgres_url))
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

    def count(connection: Connection) -> object:
        return connection.execute(text(locks)).scalar()

    while not await _run(parse(postgres_url), count):
        await asyncio.sleep(0)
    assert not waiting.done()
    assert await current(postgres_url) is None
    go.set()
    await holder
    assert await waiting


async def _process(script: str, *args: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *args, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


async def test_of_several_servers_that_start_at_once_one_migrates(database_url: str) -> None:
    processes = [await _process(MIGRATE, database_url) for _ in range(3)]
    outputs = await asyncio.gather(*(process.communicate() for process in processes))
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    answers = [out.decode().splitlines()[-1] for out, _ in outputs]
    assert sorted(answers) == ["False", "False", "True"]
    assert await current(database_url) == HEAD


@pytest.mark.parametrize("statements", [1, 9, 27])
async def test_a_server_killed_in_the_middle_leaves_nothing_half_applied(
    database_url: str, statements: int
) -> None:
    process = await _process(MIGRATE_AND_DIE, database_url, str(statements))
    _, errors = await process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()
    assert await current(database_url) is None
    # What it leaves is nothing, or no more than Alembic's own empty table.
    assert await _names(database_url) <= {"alembic_version"}
    assert await migrate(database_url)
    assert await current(database_url) == HEAD
