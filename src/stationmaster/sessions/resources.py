"""The verbs on a session's resources: stored files that are copied into its workspace."""

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from sqlalchemy import select, update

from stationmaster.events import NewEvent
from stationmaster.kernel.errors import NotFound, StationmasterError
from stationmaster.kernel.ids import check_id
from stationmaster.kernel.principal import Principal
from stationmaster.sessions import state as states
from stationmaster.sessions.mounts import Mounting, Mounts, check_free
from stationmaster.sessions.record import SessionRecords
from stationmaster.sessions.runs.files import Place, RunFiles, Upload
from stationmaster.sessions.runs.record import place_of
from stationmaster.sessions.session import Mount, Session
from stationmaster.sessions.standing import busy, check_usable, no_task
from stationmaster.sessions.tables import runs, sessions
from stationmaster.sessions.toolset import unsupported
from stationmaster.storage import Database, Transaction

log = structlog.get_logger(__name__)

Resource = dict[str, Any]


class Resources:
    """Mount into a session that is there, show, list, take out. Scopes as of `Sessions`.

    What is mounted is there at once, and the agent is told of it from its next turn on. A copy is
    the session's own: the stored file may go.
    """

    def __init__(
        self, *, database: Database, records: SessionRecords, files: RunFiles, mounts: Mounts
    ) -> None:
        self._database = database
        self._records = records
        self._files = files
        self._mounts = mounts

    async def list(self, principal: Principal, session_id: str) -> Sequence[Resource]:
        """What is mounted, in the order in which it came."""
        principal.require("read:sessions")
        return (await self._find(principal, session_id)).state.resources

    async def get(self, principal: Principal, session_id: str, resource_id: str) -> Resource:
        """One resource. Raises `NotFound`."""
        found = await self.list(principal, session_id)
        return _one(found, resource_id)

    async def add(self, principal: Principal, session_id: str, wanted: Mount) -> Resource:
        """Copy a stored file into the workspace, over a file of the same path.

        Raises `NotFound` for the session or the file, `Invalid` and `TooLarge`, `Conflict` where
        the session takes no more, the path is another resource's, or the first turn is just being
        given its workspace (`session_busy`).
        """
        principal.require("write:sessions")
        session = await self._find(principal, session_id)
        check_usable(session)
        if session.self_hosted:
            raise unsupported("resources of a session in a self-hosted environment")
        present = session.state.resources
        async with self._mounts.opened(principal, [wanted], present) as mounting:
            return await self._add(principal, session, mounting)

    async def _add(self, principal: Principal, session: Session, mounting: Mounting) -> Resource:
        [resource] = mounting.resources
        place = await self._place(session)

        def verb(tx: Transaction) -> None:
            now = no_task(self._records.lock(tx, session.id, principal.owner))
            check_usable(now)
            check_free(now.state.resources, resource, "mount_path")
            if not now.directory:
                _settle(tx, now, place)
            elif place_of(tx, session.id) != place:
                raise busy()  # its first turn has brought it another meanwhile
            new = NewEvent(states.RESOURCE_ADDED, {"resource": resource})
            self._records.append(tx, session.id, [new])

        brought = False
        try:
            await asyncio.to_thread(self._bring, principal, place, mounting)
            brought = True
            await self._database.write(verb)
        except StationmasterError as error:
            # Where the outcome is unknown it may be there; at a path that is taken, it is another.
            if error.error_code != "commit_unknown":
                ours = brought and error.error_code != "mount_path_taken"
                await self._undo(session.id, place, resource["path"] if ours else None)
            raise
        return resource

    async def _undo(self, session_id: str, place: Place, path: str | None) -> None:
        """Remove what was brought: a file, or all of a place that the session has not taken."""
        try:
            now = await self._database.read(lambda tx: place_of(tx, session_id))
            if now != place:
                await asyncio.to_thread(self._files.discard, place)
            elif path is not None:
                await asyncio.to_thread(self._files.take_out, place, path)
        except StationmasterError as error:
            log.warning("A file that was not mounted stays behind.", reason=error.error_code)

    async def remove(self, principal: Principal, session_id: str, resource_id: str) -> None:
        """Take a resource out of the session, with its copy in the workspace.

        Raises `NotFound`, and `Conflict` where the session is archived or terminated.
        """
        principal.require("write:sessions")
        check_id(session_id, "sesn")

        def verb(tx: Transaction) -> tuple[Resource, Place]:
            session = no_task(self._records.lock(tx, session_id, principal.owner))
            resource = _one(session.state.resources, resource_id)
            check_usable(session)
            new = NewEvent(states.RESOURCE_REMOVED, {"resource_id": resource_id})
            self._records.append(tx, session_id, [new])
            return resource, place_of(tx, session_id)

        resource, place = await self._database.write(verb)
        try:
            await asyncio.to_thread(self._files.take_out, place, resource["path"])
        except StationmasterError as error:
            # The agent can make its directories such that nobody gets in.
            log.warning("A mounted file stays in its workspace.", reason=error.error_code)

    # --- within -------------------------------------------------------------------------------

    async def _find(self, principal: Principal, session_id: str) -> Session:
        check_id(session_id, "sesn")
        return no_task(
            await self._database.read(lambda tx: self._records.get(tx, session_id, principal.owner))
        )

    async def _place(self, session: Session) -> Place:
        if session.directory:
            return await self._database.read(lambda tx: place_of(tx, session.id))
        return await asyncio.to_thread(self._files.prepare, session.id, Upload())

    def _bring(self, principal: Principal, place: Place, mounting: Mounting) -> None:
        quota = self._mounts.quota(principal)
        self._files.bring(place, mounting.files, mounting.size, quota)


def _one(resources: Sequence[Resource], resource_id: str) -> Resource:
    for each in resources:
        if each["id"] == resource_id:
            return each
    raise NotFound("There is no resource with this id.", code="resource_not_found")


def _settle(tx: Transaction, session: Session, place: Place) -> None:
    """Give a session its place. Its row is locked, so no worker claims a turn meanwhile."""
    if session.state.run_id is not None:
        state = select(runs.c.state).where(runs.c.id == session.state.run_id)
        if tx.execute(state).scalar_one() != "queued":
            raise busy()  # its worker gives it another
    tx.execute(
        update(sessions)
        .where(sessions.c.id == session.id)
        .values(
            workspace=str(place.workspace),
            scope=str(place.scope),
            directory=str(place.directory),
        )
    )
