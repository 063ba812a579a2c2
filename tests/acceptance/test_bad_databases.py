"""A database that cannot be used: what the operator is told, and how the process ends."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from stationmaster.migrations import migrate
from tests.support.server import ADMIN_KEY

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

UNAVAILABLE, SETTINGS = 7, 78
SECRET = "a-very-secret-word"


async def refused(directory: Path, url: str, command: str = "serve") -> tuple[int, str]:
    """The exit code and all that is said by a command that cannot use the database at `url`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stationmaster", command,
        cwd=directory,
        env={
            "PATH": os.environ["PATH"], "DATA_DIR": str(directory / "data"), "PORT": "0",
            "ADMIN_API_KEY": ADMIN_KEY, "AGENT": "scripted", "DATABASE_URL": url,
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    said = output.decode()
    assert process.returncode is not None
    assert "Traceback" not in said
    assert SECRET not in said
    return process.returncode, said


def changed(url: str, **parts: object) -> str:
    return make_url(url).set(**parts).render_as_string(hide_password=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("command", ["serve", "migrate"])
@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"password": SECRET}, "the password is wrong"),
        ({"database": "no_such"}, "Make it (createdb"),
        ({"port": 1, "password": SECRET}, "nothing listens at 127.0.0.1:1"),
    ],
)
async def test_a_server_that_will_not_do(
    tmp_path: Path, postgres_url: str, command: str, parts: dict[str, object], words: str
) -> None:
    code, said = await refused(tmp_path, changed(postgres_url, **parts), command)
    assert code == UNAVAILABLE, said
    assert words in said


async def test_a_database_that_is_not_supported(tmp_path: Path) -> None:
    code, said = await refused(tmp_path, f"mysql://user:{SECRET}@host/name")
    assert code == SETTINGS, said
    assert "use PostgreSQL 13 or newer" in said


async def test_a_schema_that_is_not_ours_to_serve(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    url = f"sqlite:///{path}"
    await asyncio.to_thread(lambda: asyncio.run(migrate(url)))
    for statement, words in (
        ("ALTER TABLE instances DROP COLUMN lease_until", "instances.lease_until is not there"),
        ("UPDATE alembic_version SET version_num = '9999'", "newer than this version"),
        ("DELETE FROM alembic_version", "does not say of which schema"),
    ):
        with create_engine(url).begin() as connection:
            connection.execute(text(statement))
        code, said = await refused(tmp_path, url)
        assert code == UNAVAILABLE, said
        assert words in said


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    if os.getuid() != 0:
        pytest.skip("mounting a disk needs root")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], check=True)
    asyncio.run(migrate(f"sqlite:///{place / 'file.db'}"))
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


async def test_a_file_that_cannot_be_written(tmp_path: Path, read_only_disk: Path) -> None:
    code, said = await refused(tmp_path, f"sqlite:///{read_only_disk / 'file.db'}")
    assert code == UNAVAILABLE, said
    assert "may not write" in said or "cannot be opened" in said or "read-only" in said


async def test_files_that_are_no_databases(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, whatever its name says" * 100)
    for place, words in ((tmp_path, "cannot be opened"), (tmp_path / "text.db", "no SQLite data")):
        code, said = await refused(tmp_path, f"sqlite:///{place}")
        assert code == UNAVAILABLE, said
        assert words in said
