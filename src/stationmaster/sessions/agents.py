"""Agent definitions: named, versioned, never changed in place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, insert, select, update

from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Conflict, Invalid, NotFound
from stationmaster.kernel.ids import check_id, new_id
from stationmaster.kernel.paging import Page
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.sessions.catalogue import Catalogue
from stationmaster.sessions.definition import Definition, changed, define
from stationmaster.sessions.offers import check_team
from stationmaster.sessions.tables import agent_versions, agents
from stationmaster.storage import Database, Transaction


@dataclass(frozen=True, slots=True)
class AgentVersion:
    """One version of an agent. `updated_at` is when this version was made.

    `definition` is in the form of the Managed Agents API, every default filled in.
    """

    id: str
    version: int
    definition: Definition
    created_at: Millis
    updated_at: Millis
    archived_at: Millis | None = None

    def snapshot(self) -> dict[str, Any]:
        """As a session keeps it: the API's `session.agent`."""
        fields = self.definition.to_json()
        del fields["metadata"]
        if not fields["rules"]:  # ours: it stands there where it is used
            del fields["rules"]
        return {"type": "agent", "id": self.id, "version": self.version, **fields}


class Agents:
    """The verbs on agents. Scopes: `read:agents` and `write:agents`."""

    def __init__(self, *, database: Database, clock: Clock, catalogue: Catalogue) -> None:
        self._database = database
        self._clock = clock
        self._catalogue = catalogue

    async def create(self, principal: Principal, fields: Mapping[str, Any]) -> AgentVersion:
        """Make an agent at version 1. `fields` are those of the API's request.

        Raises `Invalid` and `TooLarge` with `param`, `Denied` where the key may not use what the
        definition names.
        """
        principal.require("write:agents")
        agent_id, now = new_id("agent"), self._clock.now()

        def verb(tx: Transaction) -> AgentVersion:
            definition = define(
                fields, self._catalogue, principal, self._others(tx, principal, agent_id)
            )
            made = AgentVersion(agent_id, 1, definition, now, now)
            self._check_team(tx, principal, made)
            tx.execute(
                insert(agents),
                {
                    "id": agent_id,
                    "organization_id": principal.owner.organization_id,
                    "project_id": principal.owner.project_id,
                    "key_id": principal.key_id,
                    "version": 1,
                    "created_at": now,
                },
            )
            self._keep(tx, made)
            return made

        return await self._database.write(verb)

    async def get(
        self, principal: Principal, agent_id: str, *, version: int | None = None
    ) -> AgentVersion:
        """An agent at its latest version, or at one of its earlier ones. Raises `NotFound`."""
        principal.require("read:agents")
        return await self._database.read(
            lambda tx: find_agent(tx, principal.owner, agent_id, version)
        )

    async def update(
        self,
        principal: Principal,
        agent_id: str,
        fields: Mapping[str, Any],
        *,
        version: int | None = None,
    ) -> AgentVersion:
        """Make the next version; what `fields` leaves out stays. Metadata is patched.

        With `version`, raises `Conflict` unless that is the latest. What changes nothing makes no
        version. Raises `Conflict` for an archived agent.
        """
        principal.require("write:agents")

        def verb(tx: Transaction) -> AgentVersion:
            present = _locked(tx, principal.owner, agent_id)
            if present.archived_at is not None:
                raise Conflict("The agent is archived.", code="agent_archived")
            if version is not None and version != present.version:
                raise Conflict(
                    f"The agent is at version {present.version}, not {version}.",
                    code="version_conflict",
                    param="version",
                )
            definition = changed(
                present.definition,
                fields,
                self._catalogue,
                principal,
                self._others(tx, principal, agent_id),
            )
            if definition == present.definition:
                return present
            made = AgentVersion(
                agent_id, present.version + 1, definition, present.created_at, self._clock.now()
            )
            self._check_team(tx, principal, made)
            tx.execute(update(agents).where(agents.c.id == agent_id).values(version=made.version))
            self._keep(tx, made)
            return made

        return await self._database.write(verb)

    async def versions(
        self, principal: Principal, agent_id: str, *, limit: int, after: int | None = None
    ) -> Page[AgentVersion]:
        """An agent's versions, newest first; `after` is a version, the cursor a number as text."""
        principal.require("read:agents")

        def query(tx: Transaction) -> list[AgentVersion]:
            find_agent(tx, principal.owner, agent_id, None)
            wanted = _query(principal.owner).where(agents.c.id == agent_id)
            if after is not None:
                wanted = wanted.where(agent_versions.c.version < after)
            wanted = wanted.order_by(agent_versions.c.version.desc()).limit(limit + 1)
            return [_from_row(row) for row in tx.execute(wanted)]

        rows = await self._database.read(query)
        items = rows[:limit]
        return Page(items, str(items[-1].version) if len(rows) > limit else None)

    async def list(
        self,
        principal: Principal,
        *,
        limit: int,
        after: str | None = None,
        include_archived: bool = False,
        created_from: Millis | None = None,
        created_to: Millis | None = None,
    ) -> Page[AgentVersion]:
        """The project's agents at their latest versions, newest first. Bounds are inclusive."""
        principal.require("read:agents")
        wanted = _query(principal.owner).where(agent_versions.c.version == agents.c.version)
        if not include_archived:
            wanted = wanted.where(agents.c.archived_at.is_(None))
        if created_from is not None:
            wanted = wanted.where(agents.c.created_at >= created_from)
        if created_to is not None:
            wanted = wanted.where(agents.c.created_at <= created_to)
        if after is not None:
            wanted = wanted.where(agents.c.id < check_id(after, "agent"))
        wanted = wanted.order_by(agents.c.id.desc()).limit(limit + 1)
        rows = await self._database.browse(lambda tx: tx.execute(wanted).all())
        items = [_from_row(row) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def archive(self, principal: Principal, agent_id: str) -> AgentVersion:
        """Take an agent out of use: no new session, no new version. Sessions it has go on.

        Idempotent.
        """
        principal.require("write:agents")

        def verb(tx: Transaction) -> AgentVersion:
            present = _locked(tx, principal.owner, agent_id)
            if present.archived_at is None:
                tx.execute(
                    update(agents)
                    .where(agents.c.id == agent_id)
                    .values(archived_at=self._clock.now())
                )
            return find_agent(tx, principal.owner, agent_id, None)

        return await self._database.write(verb)

    def _keep(self, tx: Transaction, made: AgentVersion) -> None:
        tx.execute(
            insert(agent_versions),
            {
                "agent_id": made.id,
                "version": made.version,
                "definition": made.definition.to_json(),
                "created_at": made.updated_at,
            },
        )

    def _check_team(self, tx: Transaction, principal: Principal, made: AgentVersion) -> None:
        multiagent = made.definition.multiagent or {"agents": []}
        others = [
            find_agent(tx, principal.owner, each["id"], each["version"]).snapshot()
            for each in multiagent["agents"]
        ]
        check_team(made.snapshot(), others, self._catalogue)

    def _others(self, tx: Transaction, principal: Principal, agent_id: str) -> Any:
        """Looks up the agents that a definition names as its sub-agents."""

        def look_up(other: str, version: int | None) -> int:
            if other == agent_id:
                raise Invalid("An agent is not its own sub-agent here.", param="multiagent")
            try:
                found = find_agent(tx, principal.owner, other, version)
            except NotFound:
                raise Invalid(
                    f"multiagent names an agent that is not there: {other[:64]!r}.",
                    param="multiagent",
                ) from None
            return found.version

        return look_up


def find_agent(
    tx: Transaction, owner: Owner, agent_id: str, version: int | None = None
) -> AgentVersion:
    """An owner's agent inside a transaction. Raises `NotFound`."""
    check_id(agent_id, "agent")
    wanted = _query(owner).where(
        agents.c.id == agent_id,
        agent_versions.c.version == (agents.c.version if version is None else version),
    )
    row = tx.execute(wanted).first()
    if row is None:
        raise NotFound("There is no agent with this id and version.")
    return _from_row(row)


def _locked(tx: Transaction, owner: Owner, agent_id: str) -> AgentVersion:
    check_id(agent_id, "agent")
    tx.execute(select(agents.c.id).where(agents.c.id == agent_id).with_for_update())
    return find_agent(tx, owner, agent_id)


def _query(owner: Owner) -> Select[Any]:
    return (
        select(
            agents.c.id,
            agents.c.created_at,
            agents.c.archived_at,
            agent_versions.c.version,
            agent_versions.c.definition,
            agent_versions.c.created_at.label("updated_at"),
        )
        .join(agent_versions, agent_versions.c.agent_id == agents.c.id)
        .where(
            agents.c.organization_id == owner.organization_id,
            agents.c.project_id == owner.project_id,
        )
    )


def _from_row(row: Any) -> AgentVersion:
    return AgentVersion(
        row.id,
        row.version,
        Definition.from_json(row.definition),
        row.created_at,
        row.updated_at,
        row.archived_at,
    )
