"""The pool's ports: tokens from `access`, directories among those of sessions."""

import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import structlog

from stationmaster.access import RunTokens
from stationmaster.kernel.errors import Unavailable
from stationmaster.sessions.runs.workspace import Workspaces
from stationmaster.storage import Database

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DatabaseTokens:
    """See `SlotTokens`."""

    database: Database
    tokens: RunTokens

    async def issue(self) -> tuple[str, str]:
        """See `SlotTokens`."""
        return await self.database.write(self.tokens.issue)

    async def revoke(self, token_id: str) -> None:
        """See `SlotTokens`."""
        await self.database.write(lambda tx: self.tokens.revoke(tx, token_id))


class SessionPlaces:
    """Slots' directories stand where those of sessions do, under the slot's name.

    Until a session adopts them a file in `state/slots` names them, which this server holds locked:
    one that nobody holds was a dead server's. A server that dies after a slot was adopted and
    before its session wrote that down leaves two empty directories.
    """

    def __init__(self, workspaces: Workspaces, state: Path) -> None:
        """`state` is the server's own directory."""
        self._workspaces = workspaces
        self._homes = state / "homes"
        self._marks = state / "slots"
        self._held: dict[str, int] = {}

    def make(self, slot: str) -> tuple[Path, Path]:
        """See `SlotPlaces`. Raises `Unavailable`."""
        home = self._homes / slot
        try:
            self._marks.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._held[slot] = _made(self._marks / slot)
            home.mkdir(mode=0o700, parents=True)
        except OSError as error:
            self.discard(slot)
            raise Unavailable(
                f"An agent's home cannot be made: {error.strerror}.", code="disk_full"
            ) from error
        try:
            return self._workspaces.create(slot), home
        except BaseException:
            self.discard(slot)
            raise

    def adopt(self, slot: str) -> None:
        """See `SlotPlaces`."""
        (self._marks / slot).unlink(missing_ok=True)
        self._let_go(slot)

    def discard(self, slot: str) -> None:
        """See `SlotPlaces`."""
        self._workspaces.remove(self._workspaces.root / "sessions" / slot)
        shutil.rmtree(self._homes / slot, ignore_errors=True)
        self.adopt(slot)

    def sweep(self) -> int:
        """Delete the slots of servers that died; return how many there were. Blocks."""
        gone = 0
        for mark in self._marks.glob("slot_*"):
            try:
                handle = _locked(mark)
            except OSError:
                continue  # its server lives
            try:
                # One that is gone from its place was adopted between the look and the lock.
                if os.fstat(handle).st_nlink:
                    self.discard(mark.name)
                    gone += 1
            finally:
                os.close(handle)
        return gone

    def _let_go(self, slot: str) -> None:
        if (handle := self._held.pop(slot, None)) is not None:
            os.close(handle)


def _made(mark: Path) -> int:
    """Make a file, locked from the first: it gets its name when it is."""
    new = mark.with_name(f"new_{mark.name}")
    handle = os.open(new, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(mark)
    except BaseException:
        new.unlink(missing_ok=True)
        os.close(handle)
        raise
    return handle


def _locked(mark: Path) -> int:
    """Open and lock a file. Raises `BlockingIOError` where another holds it."""
    handle = os.open(mark, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle
