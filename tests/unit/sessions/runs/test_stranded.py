"""Uploads that were never moved to the agent that was waiting for them."""

from pathlib import Path

import pytest
from sqlalchemy import update

from stationmaster.kernel.ids import new_id
from stationmaster.sessions.runs.files import Upload
from stationmaster.sessions.runs.options import RunOptions
from stationmaster.sessions.runs.record import Run
from stationmaster.sessions.runs.seats import Wanted
from stationmaster.sessions.runs.stranded import sweep_stranded
from stationmaster.sessions.runs.workspace import UploadedFile
from stationmaster.sessions.tables import sessions
from tests.support.core import ALICE, LEASE, Core

FILES = Upload(files=(UploadedFile("a.txt", b"brought along"),))


class Killed(BaseException):
    """The server is no more."""


async def started(core: Core, **options: str) -> tuple[Run, Path]:
    """A task with a file, and where that is."""
    run = await core.runs.start(ALICE, RunOptions(prompt="Do it.", **options), FILES)  # type: ignore[arg-type]
    return run, core.directory / "workspaces" / "sessions" / run.session_id


async def test_a_server_dies_between_the_books_word_and_the_files(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, own = await started(core)
    dying = core.beside()
    await dying.instances.register()
    claim = await dying.claims.next()
    assert claim is not None

    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(dying.files, "move", killed)
    with pytest.raises(Killed):
        await dying.seats.take(claim, Wanted())
    _, place = await core.runs.place(ALICE, run.id)
    assert place.workspace.name.startswith("slot_")
    assert (own / "a.txt").exists()
    # As long as its server may live, it may be about to move them.
    assert await sweep_stranded(core.database, core.files) == 0
    assert (own / "a.txt").exists()

    core.clock.advance(LEASE + 1)
    assert await core.claims.take_over(dying.instances.id) == 1
    assert (await core.get(run.id)).state.state == "interrupted"
    assert await sweep_stranded(core.database, core.files) == 1
    assert not own.exists()
    assert place.workspace.exists()
    assert await sweep_stranded(core.database, core.files) == 0


async def test_nothing_else_is_touched(core: Core) -> None:
    waiting, of_waiting = await started(core)
    cancelled, of_cancelled = await started(core)
    moved_root, of_moved_root = await started(core)
    for run in (cancelled, moved_root):
        await core.runs.cancel(ALICE, run.id)
    # The workspaces are called otherwise by now than they were when this was written.
    elsewhere = f"/elsewhere/sessions/{moved_root.session_id}"
    await core.database.write(
        lambda tx: tx.execute(
            update(sessions)
            .where(sessions.c.id == moved_root.session_id)
            .values(workspace=elsewhere, scope=elsewhere, directory=elsewhere)
        )
    )
    nobodys = core.directory / "workspaces" / "sessions" / new_id("sesn")
    nobodys.mkdir()
    assert await sweep_stranded(core.database, core.files) == 0
    for each in (of_waiting, of_cancelled, of_moved_root):
        assert (each / "a.txt").exists()
    assert nobodys.exists()
    assert waiting.state.state == "queued"


async def test_without_workspaces_there_is_nothing(core: Core) -> None:
    assert await sweep_stranded(core.database, core.files) == 0
