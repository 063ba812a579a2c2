"""`stationmaster admin create`: a way back in for whoever has the machine."""

from pathlib import Path

import pytest

from stationmaster.access import Resolver
from stationmaster.access.secret import Hasher
from stationmaster.cli.application import run
from stationmaster.kernel.clock import SystemClock
from stationmaster.storage import open_database

SECRET = "a-secret-for-hashes-of-tests"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET_KEY", SECRET)
    return tmp_path


async def _may_do_everything(directory: Path, secret: str) -> bool:
    database = open_database(f"sqlite:///{directory / 'data' / 'stationmaster.db'}")
    try:
        resolver = Resolver(database, Hasher(SECRET.encode()), SystemClock())
        return (await resolver.resolve(secret)).may("own:organization")
    finally:
        await database.close()


def test_each_time_there_is_a_new_key_with_every_right(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import asyncio

    made = set()
    for _ in range(2):
        assert run(["admin", "create", "--name", "rescue"]) == 0
        secret = capsys.readouterr().out.strip()
        assert asyncio.run(_may_do_everything(here, secret))
        made.add(secret)
    assert len(made) == 2


def test_a_wrong_name_makes_none(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["admin", "create", "--name", "a b"]) != 0
    assert "name must be" in capsys.readouterr().err
    assert here.is_dir()
