"""`check`, `audit verify` and `secrets reseal`: for who has the machine."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from sqlalchemy import text

from stationmaster.audit import Actor, Audit, Keyring
from stationmaster.cli.application import run
from stationmaster.kernel.clock import SystemClock
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Database, open_database
from stationmaster.storage.sealing import Sealer

SECRET = "Zt5gkq8WmR2vXcYp0aHd7LsNfJ3uEiB9"
NEXT = "Qp7wE3rT9yU1iO5aS8dF2gH6jK4lZ0xC"


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sqlite_template: Path) -> str:
    """A server's database, with a chain of three, and its settings in the environment."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "stationmaster.db"
    shutil.copyfile(sqlite_template, path)
    monkeypatch.setenv("DATABASE_PATH", str(path))
    monkeypatch.setenv("SECRET_KEY", SECRET)
    monkeypatch.setenv("LOG_LEVEL", "error")

    async def fill(database: Database) -> None:
        keyring = Keyring(database, Sealer([SECRET.encode()]), SystemClock())
        await keyring.prepare()
        audit, actor = Audit(database, keyring, SystemClock()), Actor.server(Owner("org_a", "p"))
        for n in range(3):
            await database.write(lambda tx, n=n: audit.record(tx, actor, f"thing.n{n}"))  # type: ignore[misc]

    made = f"sqlite:///{path}"
    _with(made, fill)
    return made


def _with(url: str, work: object) -> None:
    async def opened() -> None:
        database = open_database(url)
        try:
            await work(database)  # type: ignore[operator]
        finally:
            await database.close()

    asyncio.run(opened())


def execute(url: str, statement: str) -> None:
    async def work(database: Database) -> None:
        await database.write(lambda tx: tx.execute(text(statement)))

    _with(url, work)


def test_a_whole_chain_is_told_with_its_end(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "verify"]) == 0
    said = capsys.readouterr().out
    assert "org_a: whole, 3 entries" in said
    end = said.partition("end ")[2].split()[0]
    assert run(["audit", "verify", "--expect", end]) == 0
    execute(url, "DELETE FROM audit_entries WHERE seq = 3")
    execute(
        url,
        "UPDATE audit_chains SET seq = 2, hash = (SELECT hash FROM audit_entries WHERE seq = 2)",
    )
    assert run(["audit", "verify"]) == 0  # nobody can see that by itself
    assert run(["audit", "verify", "--expect", end]) == 1


def test_a_broken_chain_is_told_and_the_exit_code_says_so(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(url, "UPDATE audit_entries SET action = 'other.thing' WHERE seq = 2")
    assert run(["audit", "verify"]) == 1
    said = capsys.readouterr().out
    assert "org_a: BROKEN" in said
    assert "entry 2: it was changed" in said
    assert run(["-o", "json", "audit", "verify"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["whole"], found["faults"][0]["seq"]) == (False, 2)


@pytest.mark.parametrize("text", ["x", "org_a=1", "org_a=x:y", "org_a=1:" + "g" * 64])
def test_an_end_that_is_none_is_a_wrong_command_line(url: str, text: str) -> None:
    assert run(["audit", "verify", "--expect", text]) == 2


def test_without_a_database_there_is_nothing_to_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["audit", "verify"]) == 5
    assert "stationmaster migrate" in capsys.readouterr().err


def test_stored_secrets_change_their_key(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENCRYPTION_KEYS", f"{NEXT},{SECRET}")
    assert run(["secrets", "reseal"]) == 0
    assert "1 secret was sealed again" in capsys.readouterr().out
    assert run(["secrets", "reseal"]) == 0
    assert "0 secrets were" in capsys.readouterr().out
    # The old one can go, and what it sealed can still be read.
    monkeypatch.setenv("ENCRYPTION_KEYS", NEXT)
    monkeypatch.setenv("SECRET_KEY", SECRET[::-1])
    assert run(["audit", "verify"]) == 0


def test_check_says_what_production_needs_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["check"]) == 0
    assert "fit for development" in capsys.readouterr().out
    monkeypatch.setenv("HOST", "0.0.0.0")
    assert run(["-o", "json", "check", "--production"]) == 78
    found = json.loads(capsys.readouterr().out)
    assert [(f["name"], f["status"]) for f in found] == [("SECRET_KEY", "fail"), ("HOST", "fail")]
    assert list(tmp_path.iterdir()) == []


def test_serve_refuses_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENVIRONMENT", "production")
    assert run(["serve"]) == 78
    assert "SECRET_KEY must be set in production" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
