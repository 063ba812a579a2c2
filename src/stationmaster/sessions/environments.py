"""Environments: where sessions run. What this server cannot give is refused by name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Conflict, Invalid, NotFound
from stationmaster.kernel.ids import check_id, new_id
from stationmaster.kernel.paging import Page
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.sessions.checks import bounded, patched, refuse_unknown, strings
from stationmaster.sessions.tables import environments, sessions
from stationmaster.storage import Database, Transaction

MAX_NAME_BYTES = 256
MAX_DESCRIPTION_BYTES = 2048
SELF_HOSTED = "self_hosted"
MANAGERS = ("apt", "cargo", "gem", "go", "npm", "pip")


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment. `config` is in the form of the Managed Agents API."""

    id: str
    name: str
    description: str | None
    config: dict[str, Any]
    metadata: dict[str, str]
    created_at: Millis
    updated_at: Millis
    archived_at: Millis | None = None

    @property
    def self_hosted(self) -> bool:
        """Whether workers elsewhere run the tools of its sessions."""
        return bool(self.config["type"] == SELF_HOSTED)


class Environments:
    """The verbs on environments. Scopes: `read:environments` and `write:environments`."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, principal: Principal, fields: Mapping[str, Any]) -> Environment:
        """Make one. `fields` are those of the API's request. Raises `Invalid` with `param`."""
        principal.require("write:environments")
        now = self._clock.now()
        blank = Environment(new_id("env"), "", None, _config({"type": "cloud"}), {}, now, now)
        made = _applied(blank, fields)
        if not made.name:
            raise Invalid("An environment needs a name.", param="name")
        owner = principal.owner
        await self._database.write(
            lambda tx: tx.execute(
                insert(environments),
                {
                    "id": made.id,
                    "organization_id": owner.organization_id,
                    "project_id": owner.project_id,
                    "created_at": now,
                    **_columns(made),
                },
            )
        )
        return made

    async def get(self, principal: Principal, environment_id: str) -> Environment:
        """One environment. Raises `NotFound`."""
        principal.require("read:environments")
        return await self._database.read(
            lambda tx: find_environment(tx, principal.owner, environment_id)
        )

    async def update(
        self, principal: Principal, environment_id: str, fields: Mapping[str, Any]
    ) -> Environment:
        """Change one; what `fields` leaves out stays, metadata is patched.

        Raises `Conflict` where it is archived.
        """
        principal.require("write:environments")

        def verb(tx: Transaction) -> Environment:
            present = self._lock(tx, principal.owner, environment_id)
            if present.archived_at is not None:
                raise Conflict("The environment is archived.", code="environment_archived")
            made = replace(_applied(present, fields), updated_at=self._clock.now())
            if made.self_hosted != present.self_hosted:
                raise Invalid(
                    "An environment's type cannot be changed: make another.",
                    code="unsupported",
                    param="config.type",
                )
            tx.execute(
                update(environments)
                .where(environments.c.id == environment_id)
                .values(**_columns(made))
            )
            return made

        return await self._database.write(verb)

    async def list(
        self,
        principal: Principal,
        *,
        limit: int,
        after: str | None = None,
        include_archived: bool = False,
    ) -> Page[Environment]:
        """The project's environments, newest first."""
        principal.require("read:environments")
        wanted = _owned(select(environments), principal.owner)
        if not include_archived:
            wanted = wanted.where(environments.c.archived_at.is_(None))
        if after is not None:
            wanted = wanted.where(environments.c.id < check_id(after, "env"))
        wanted = wanted.order_by(environments.c.id.desc()).limit(limit + 1)
        rows = await self._database.browse(lambda tx: tx.execute(wanted).all())
        items = [_from_row(row) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def archive(self, principal: Principal, environment_id: str) -> Environment:
        """Take one out of use: sessions it has go on, new ones are refused. Idempotent."""
        principal.require("write:environments")

        def verb(tx: Transaction) -> Environment:
            present = self._lock(tx, principal.owner, environment_id)
            if present.archived_at is not None:
                return present
            now = self._clock.now()
            made = replace(present, archived_at=now, updated_at=now)
            tx.execute(
                update(environments)
                .where(environments.c.id == environment_id)
                .values(**_columns(made))
            )
            return made

        return await self._database.write(verb)

    async def delete(self, principal: Principal, environment_id: str) -> None:
        """Delete one. Raises `Conflict` while sessions use it: archive it then."""
        principal.require("write:environments")

        def verb(tx: Transaction) -> None:
            self._lock(tx, principal.owner, environment_id)
            using = select(func.count()).where(
                sessions.c.environment_id == environment_id, sessions.c.deleted_at.is_(None)
            )
            if tx.execute(using).scalar():
                raise Conflict("Sessions use the environment.", code="environment_in_use")
            tx.execute(delete(environments).where(environments.c.id == environment_id))

        await self._database.write(verb)

    def _lock(self, tx: Transaction, owner: Owner, environment_id: str) -> Environment:
        return find_environment(tx, owner, environment_id, lock=True)


def find_environment(
    tx: Transaction, owner: Owner, environment_id: str, *, lock: bool = False
) -> Environment:
    """An owner's environment inside a transaction. Raises `NotFound`."""
    check_id(environment_id, "env")
    wanted = _owned(select(environments).where(environments.c.id == environment_id), owner)
    row = tx.execute(wanted.with_for_update() if lock else wanted).first()
    if row is None:
        raise NotFound("There is no environment with this id.")
    return _from_row(row)


def _applied(present: Environment, fields: Mapping[str, Any]) -> Environment:
    refuse_unknown(fields, {"name", "description", "config", "metadata", "scope"})
    if fields.get("scope") not in {None, "organization"}:
        raise Invalid("Only the scope organization is supported.", param="scope")
    made = present
    if fields.get("name") is not None:
        made = replace(made, name=bounded(fields["name"], MAX_NAME_BYTES, "name", least=1))
    if "description" in fields:
        text = fields["description"]
        if text is not None:
            bounded(text, MAX_DESCRIPTION_BYTES, "description")
        made = replace(made, description=text)
    if fields.get("config") is not None:
        made = replace(made, config=_config(fields["config"]))
    if "metadata" in fields:
        made = replace(made, metadata=patched(present.metadata, fields["metadata"]))
    return made


def _config(given: Any) -> dict[str, Any]:
    """Checked and filled in. Agents have no network: anything else is refused by name."""
    if not isinstance(given, Mapping):
        raise Invalid("config is not an object.", param="config")
    if given.get("type") == SELF_HOSTED:
        refuse_unknown(given, {"type"}, "config")
        return {"type": SELF_HOSTED}
    if given.get("type") != "cloud":
        raise Invalid("An environment is of type cloud or self_hosted.", param="config.type")
    refuse_unknown(given, {"type", "networking", "packages"}, "config")
    packages = given.get("packages") or {}
    if not isinstance(packages, Mapping):
        raise Invalid("config.packages is not an object.", param="config.packages")
    refuse_unknown(packages, {"type", *MANAGERS}, "config.packages")
    for manager in MANAGERS:
        if strings(packages.get(manager) or [], f"config.packages.{manager}"):
            raise Invalid(
                "Packages cannot be installed here: the operator provides them.",
                code="unsupported",
                param=f"config.packages.{manager}",
            )
    return {
        "type": "cloud",
        "networking": _networking(given.get("networking")),
        "packages": {"type": "packages", **{manager: [] for manager in MANAGERS}},
    }


def _networking(given: Any) -> dict[str, Any]:
    at = "config.networking"
    wanted = {"type": "limited"} if given is None else given
    if not isinstance(wanted, Mapping) or wanted.get("type") not in {"limited", "unrestricted"}:
        raise Invalid(f"{at}.type must be limited.", param=f"{at}.type")
    if wanted["type"] == "unrestricted":
        raise Invalid(
            "Agents have no network here but the model gateway: networking must be limited.",
            code="unsupported",
            param=f"{at}.type",
        )
    refuse_unknown(
        wanted, {"type", "allow_mcp_servers", "allow_package_managers", "allowed_hosts"}, at
    )
    if strings(wanted.get("allowed_hosts") or [], f"{at}.allowed_hosts"):
        raise Invalid("No host can be allowed.", code="unsupported", param=f"{at}.allowed_hosts")
    for name in ("allow_mcp_servers", "allow_package_managers"):
        if wanted.get(name):
            raise Invalid(f"{name} is not supported.", code="unsupported", param=f"{at}.{name}")
    return {
        "type": "limited",
        "allow_mcp_servers": False,
        "allow_package_managers": False,
        "allowed_hosts": [],
    }


def _owned(query: Any, owner: Owner) -> Any:
    return query.where(
        environments.c.organization_id == owner.organization_id,
        environments.c.project_id == owner.project_id,
    )


def _columns(made: Environment) -> dict[str, Any]:
    return {
        "name": made.name,
        "description": made.description,
        "config": made.config,
        "metadata": made.metadata,
        "updated_at": made.updated_at,
        "archived_at": made.archived_at,
    }


def _from_row(row: Any) -> Environment:
    return Environment(
        row.id,
        row.name,
        row.description,
        row.config,
        row.metadata,
        row.created_at,
        row.updated_at,
        row.archived_at,
    )
