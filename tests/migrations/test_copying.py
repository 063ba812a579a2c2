"""An installation moves from SQLite to PostgreSQL: whole, checked, in as many tries as needed."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from stationmaster.kernel.clock import SystemClock
from stationmaster.kernel.errors import Conflict, Invalid, Unavailable
from stationmaster.migrations import SchemaError, copying, migrate
from stationmaster.migrations.connection import run
from stationmaster.migrations.copying import Copied, Progress, copy_database
from stationmaster.migrations.tables import metadata
from stationmaster.storage.address import parse
from tests.support.server import ADMIN_KEY, ServerProcess

CLOCK = SystemClock()
STREAMS, EVENTS = 20, 400
LARGE = "x" * (copying.BYTES + 1)


@pytest.fixture
def source(tmp_path: Path, sqlite_template: Path) -> str:
    """A SQLite installation with rows that are many, large and odd."""
    path = tmp_path / "old.db"
    path.write_bytes(sqlite_template.read_bytes())
    with sqlite3.connect(path) as connection:
        for number in range(STREAMS):
            stream = (f"ses_{number}", "session", "org", "proj", EVENTS, 0, 1)
            connection.execute("INSERT INTO streams VALUES (?, ?, ?, ?, ?, ?, ?)", stream)
            connection.executemany(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (f"ses_{number}", seq, seq, "agent.message", 1, f'{{"text": "ü\\u0000 {seq}"}}')
                    for seq in range(1, EVENTS + 1)
                ],
            )
        connection.execute(
            "INSERT INTO events VALUES ('ses_0', 9999, 1, 'agent.message', 1, ?)", (LARGE,)
        )
        connection.execute(
            "INSERT INTO organizations (id, name, created_at) VALUES ('org', 'Größe', 1)"
        )
    connection.close()
    return f"sqlite:///{path}"


def silent(_progress: Progress) -> None:
    pass


async def copied(
    source: str, target: str, tell: Callable[[Progress], None] = silent
) -> list[Copied]:
    return await copy_database(source, target, CLOCK, tell=tell)


async def ask(url: str, query: str) -> object:
    def work(connection: Connection) -> object:
        return connection.execute(text(query)).scalar()

    return await run(parse(url), work)


async def test_every_row_is_there_and_the_same(source: str, postgres_url: str) -> None:
    told: list[Progress] = []
    found = await copied(source, postgres_url, told.append)
    assert {each.table for each in found} == set(metadata.tables)
    rows = {each.table: each.rows for each in found}
    assert rows["events"] == STREAMS * EVENTS + 1
    assert rows["admission"] == 1
    assert await ask(postgres_url, "SELECT count(*) FROM events") == rows["events"]
    assert await ask(postgres_url, "SELECT length(data) FROM events WHERE seq = 9999") == len(LARGE)
    assert await ask(postgres_url, "SELECT data FROM events WHERE seq = 7 LIMIT 1") == (
        '{"text": "ü\\u0000 7"}'
    )
    assert {each.step for each in told if each.table == "events"} == {"copying", "comparing"}
    # Keys are made by the program: there are no sequences to be set.
    assert await ask(postgres_url, "SELECT count(*) FROM pg_sequences") == 0
    assert not await migrate(postgres_url), "a server could not start on it"


async def test_a_target_that_is_not_empty_is_left_alone(source: str, postgres_url: str) -> None:
    await copied(source, postgres_url)
    with pytest.raises(Conflict, match="not empty") as caught:
        await copied(source, postgres_url)
    assert caught.value.error_code == "not_empty"
    assert await ask(postgres_url, "SELECT count(*) FROM events") == STREAMS * EVENTS + 1


async def test_what_is_refused(source: str, postgres_url: str, tmp_path: Path) -> None:
    for from_, to in (
        (postgres_url, source),
        (source, source),
        (f"sqlite:///{tmp_path}/none.db", postgres_url),
        (f"sqlite:///{__file__}", postgres_url),
        (source, "mysql://user@host/name"),
    ):
        with pytest.raises(Invalid):
            await copied(from_, to)
    with pytest.raises(Unavailable, match="nothing listens"):
        await copied(source, "postgresql://nobody@127.0.0.1:1/nothing")
    with sqlite3.connect(parse(source).database or "") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    connection.close()
    with pytest.raises(Conflict, match="schema 0001"):
        await copied(source, postgres_url)
    assert await ask(postgres_url, "SELECT count(*) FROM information_schema.tables"
                     " WHERE table_schema = 'public'") == 0  # fmt: skip


async def test_a_source_with_a_server_is_refused(source: str, postgres_url: str) -> None:
    path = parse(source).database or ""
    with sqlite3.connect(path) as connection:
        row = ("ins_alive", CLOCK.now(), CLOCK.now() + 3_600_000)
        connection.execute(
            "INSERT INTO instances (id, started_at, lease_until) VALUES (?, ?, ?)", row
        )
    connection.close()
    with pytest.raises(Conflict, match="A server is running"):
        await copied(source, postgres_url)
    writing = sqlite3.connect(path, isolation_level=None)
    writing.execute("DELETE FROM instances")
    writing.execute("BEGIN IMMEDIATE")
    with pytest.raises(Conflict, match="being written to"):
        await copied(source, postgres_url)
    writing.close()


async def test_text_that_cannot_be_kept_is_named(source: str, postgres_url: str) -> None:
    with sqlite3.connect(parse(source).database or "") as connection:
        connection.execute("UPDATE organizations SET name = 'a' || char(0) || 'b'")
    connection.close()
    with pytest.raises(Invalid, match=r"A text in organizations.*org, holds a character"):
        await copied(source, postgres_url)


async def test_a_source_that_changed_between_two_tries_is_noticed(
    source: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopError(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.step == "comparing":
            raise StopError

    with pytest.raises(StopError):
        await copied(source, postgres_url, stop)
    with sqlite3.connect(parse(source).database or "") as connection:
        connection.execute("UPDATE events SET at = 77 WHERE stream_id = 'ses_3' AND seq = 5")
    connection.close()
    with pytest.raises(Conflict, match="differ in events") as caught:
        await copied(source, postgres_url)
    assert caught.value.error_code == "copy_differs"
    with pytest.raises(SchemaError):  # and no server starts on it
        await migrate(postgres_url)


COPY_AND_DIE = """
import asyncio, os, signal, sys
from stationmaster.kernel.clock import SystemClock
from stationmaster.migrations import copying

copying.ROWS = 500
batches = int(sys.argv[3])

def tell(progress):
    global batches
    batches -= 1
    if not batches:
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(copying.copy_database(sys.argv[1], sys.argv[2], SystemClock(), tell=tell))
"""


async def test_a_copy_that_is_killed_goes_on_where_it_was(
    source: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for batches in (2, 5, 9):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", COPY_AND_DIE, source, postgres_url, str(batches),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        _, errors = await process.communicate()
        assert process.returncode == -signal.SIGKILL, errors.decode()
        seen.append(int(str(await ask(postgres_url, "SELECT sum(rows) FROM copy_unfinished"))))
        with pytest.raises(SchemaError) as caught:
            await migrate(postgres_url)
        assert caught.value.error_code == "copy_unfinished"
    assert seen == sorted(set(seen)), "each try went on where the one before was killed"
    told: list[Progress] = []
    found = await copied(source, postgres_url, told.append)
    assert sum(each.rows for each in found) == STREAMS * EVENTS + STREAMS + 3
    already = sum(progress.rows for progress in told if progress.step == "copying")
    assert already, "there was something left to copy"
    assert not await migrate(postgres_url)


@pytest.mark.timeout(300)
async def test_an_installation_goes_on_where_it_was(tmp_path: Path, postgres_url: str) -> None:
    """Served on SQLite, moved by the command, served on PostgreSQL: keys, tasks, books, audit."""
    env = {"AGENT": "scripted", "SECRET_KEY": "a-secret-key-for-tests-0123456789abcdef"}
    async with ServerProcess(tmp_path, env) as server:
        task = await server.run_task()
        await server.client.post("/v1/messages", json={
            "model": "haiku", "max_tokens": 16, "messages": [{"role": "user", "content": "Hi"}],
        })  # fmt: skip
        made = await server.client.post("/api/admin/keys", json={"name": "of-before"})
        assert made.is_success, made.text
        assert await server.stop() == 0
    moved = {**env, "DATABASE_URL": postgres_url}

    async def command(*words: str) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "stationmaster", *words,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "data"),
                 "ADMIN_API_KEY": ADMIN_KEY, **moved},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()

    said = await command("copy-database", f"sqlite:///{tmp_path}/data/stationmaster.db")
    assert "rows are there, and the same" in said
    assert "agree to the micro-dollar" in await command("ledger", "verify")
    assert "BROKEN" not in await command("audit", "verify")
    async with ServerProcess(tmp_path, moved) as server:
        assert (await server.task(task["task_id"]))["status"] == "completed"
        assert await server.events(task["task_id"])
        server.client.headers["authorization"] = f"Bearer {made.json()['key']}"
        assert (await server.client.get("/v1/tasks")).status_code == 200
        server.client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        assert (await server.run_task())["status"] == "completed"
