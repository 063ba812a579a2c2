"""API keys: made, listed, changed, revoked, and taken from the operator's settings."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update

from stationmaster.access import first_keys
from stationmaster.access.api_key import (
    ApiKey,
    Bounds,
    add,
    bounds_values,
    check_addresses,
    check_models,
    fresh,
    from_row,
    lock,
    seen_by,
)
from stationmaster.access.binding import Belongs, bind, place, within
from stationmaster.access.first_keys import DEFAULT_OWNER
from stationmaster.access.paging import Slice, Window, window
from stationmaster.access.resolver import Resolver
from stationmaster.access.scopes import parse, require_all
from stationmaster.access.secret import KEY_PREFIX, Hasher, generate
from stationmaster.access.tables import api_keys
from stationmaster.audit import SILENT, Actor, Recorder
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Invalid, NotFound
from stationmaster.kernel.ids import check_id
from stationmaster.kernel.paging import Page
from stationmaster.kernel.principal import ALL, Principal
from stationmaster.storage import Database, Transaction

__all__ = ["DEFAULT_OWNER", "ApiKey", "Bounds", "KeyChange", "Keys", "Sought"]

NAME = re.compile(r"[A-Za-z0-9_-]{3,50}")
SCOPE = "admin:keys"
LIST_SCOPE = "list:keys"
STATUSES = ("active", "inactive", "archived", "expired")
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What is to be different; None leaves a part as it is.

    `enabled` takes a key out of service and back in, `revoke` ends it for good. `bounds` replaces
    all of them. With `clear_expiry` the key no longer expires.
    """

    name: str | None = None
    scopes: Sequence[str] | None = None
    enabled: bool | None = None
    revoke: bool = False
    expires_at: Millis | None = None
    clear_expiry: bool = False
    bounds: Bounds | None = None


@dataclass(frozen=True, slots=True)
class Sought:
    """Which keys. Without a project it is every one that the caller may see."""

    project_id: str | None = None
    status: str | None = None
    created_by: str | None = None
    environment_id: str | None = None


class Keys:
    """The verbs on API keys."""

    def __init__(
        self,
        database: Database,
        hasher: Hasher,
        clock: Clock,
        resolver: Resolver,
        *,
        recorder: Recorder = SILENT,
        rotate_after_days: int | None = None,
    ) -> None:
        """`resolver` is told of what is revoked, so that it ends here at once.

        New keys are to be rotated after `rotate_after_days`; None is never.
        """
        self._database = database
        self._hasher = hasher
        self._clock = clock
        self._resolver = resolver
        self._recorder = recorder
        self._rotate_after_days = rotate_after_days

    async def bootstrap(self, *, admin: str | None, given: Sequence[str]) -> str | None:
        """Make the default organisation, project and first key; return that key if it is new.

        `admin` and `given` are the operator's own keys: they are added, and those of an earlier
        start that are no longer given are revoked. Keys of `given` may use the server, not manage
        it. Where there is no key at all, an admin key is made; it is returned this once.
        Idempotent, and safe for two servers at once.
        """
        return await self._database.write(
            lambda tx: first_keys.ensure(
                tx, self._hasher, self._clock.now(), admin=admin, given=given
            )
        )

    async def create_admin(self, *, name: str = "admin") -> str:
        """Make another key with every right in the default project: for who has the machine."""
        _check_name(name)
        actor = Actor.named("operator", "", DEFAULT_OWNER)

        def verb(tx: Transaction) -> str:
            first_keys.make_default_owner(tx, self._clock.now())
            secret = first_keys.make_admin(tx, self._hasher, self._clock.now(), name=name)
            self._recorder.record(tx, actor, "key.create", details={"name": name})
            return secret

        return await self._database.write(verb)

    async def create(
        self,
        principal: Principal,
        *,
        name: str,
        scopes: Sequence[str] = (ALL,),
        expires_at: Millis | None = None,
        bounds: Bounds | None = None,
        belongs: Belongs | None = None,
        rotates: bool = True,
        environment_id: str | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key; the secret is in the reply and never again.

        Needs `admin:keys`, and gives nothing that the caller lacks: no scope, and no looser bound.
        It belongs to `belongs`: its project is the caller's where none is named, and it is of the
        user or service account behind the caller unless another is named. With an
        `environment_id` it is for the workers of that environment, and good for nothing else.

        Raises `Invalid`, `Denied`, or `NotFound` for a project, user or account that is not there.
        """
        principal.require(SCOPE)
        _check_name(name)
        given = parse(scopes)
        require_all(principal, given)
        held = within(principal, _checked(bounds or Bounds()))
        now = self._clock.now()
        _check_expiry(expires_at, now)
        actor, secret = Actor.of(principal), generate(KEY_PREFIX)

        def verb(tx: Transaction) -> ApiKey:
            owner = place(tx, principal, belongs)
            user_id, account_id = bind(tx, principal, belongs)
            key = fresh(
                name,
                owner,
                given,
                secret,
                source="created",
                created_at=now,
                expires_at=expires_at,
                bounds=held,
                user_id=user_id,
                service_account_id=account_id,
                created_by=principal.actor_id,
                rotates_at=self.rotation_due(now) if rotates else None,
                environment_id=environment_id,
            )
            add(tx, key, secret, self._hasher)
            self._recorder.record(tx, actor, "key.create", target=key.id, details=_told(key))
            return key

        return await self._database.write(verb), secret

    def rotation_due(self, now: Millis) -> Millis | None:
        """When a key that is made now is to be rotated."""
        days = self._rotate_after_days
        return None if days is None else now + days * DAY_MS

    async def get(self, principal: Principal, key_id: str) -> ApiKey:
        """One key. Raises `NotFound`, also for one that the caller may not see."""
        _require_list(principal)
        check_id(key_id, "key")
        query = select(api_keys).where(api_keys.c.id == key_id, *seen_by(principal))
        row = await self._database.read(lambda tx: tx.execute(query).first())
        if row is None:
            raise NotFound("There is no key with this id.")
        return from_row(row)

    async def list(self, principal: Principal, *, limit: int, after: str | None) -> Page[ApiKey]:
        """The project's keys, newest first."""
        sought = Sought(project_id=principal.owner.project_id)
        found = await self.search(principal, sought, Window(limit=limit, after=after))
        return Page(found.items, found.items[-1].id if found.has_more else None)

    async def search(self, principal: Principal, sought: Sought, part: Window) -> Slice[ApiKey]:
        """Keys of the project, or with `admin:organization` of the organisation, newest first."""
        _require_list(principal)
        query = select(api_keys).where(*seen_by(principal))
        if sought.project_id is not None:
            query = query.where(api_keys.c.project_id == sought.project_id)
        if sought.created_by is not None:
            query = query.where(api_keys.c.created_by == sought.created_by)
        if sought.environment_id is not None:
            query = query.where(api_keys.c.environment_id == sought.environment_id)
        if sought.status is not None:
            query = query.where(*_of_status(sought.status, self._clock.now()))
        found = await self._database.browse(
            lambda tx: window(tx, query, api_keys.c.id, part, prefix="key")
        )
        return Slice([from_row(row) for row in found.items], found.has_more)

    async def counts(self, principal: Principal) -> Mapping[str, int]:
        """How many keys of each status the project has."""
        _require_list(principal)
        now = self._clock.now()
        mine = (api_keys.c.project_id == principal.owner.project_id,)

        def query(tx: Transaction) -> dict[str, int]:
            return {
                status: int(
                    tx.execute(
                        select(func.count()).where(*mine, *_of_status(status, now))
                    ).scalar_one()
                )
                for status in STATUSES
            }

        return await self._database.read(query)

    async def update(self, principal: Principal, key_id: str, change: KeyChange) -> ApiKey:
        """Change a key; what it may do changes here at once. Nobody gives what he lacks.

        Raises `Invalid`, `Denied`, `NotFound`. A key of the operator's settings keeps its name and
        scopes; a caller cannot take its own key out of service.
        """
        principal.require(SCOPE)
        values = self._changes(principal, key_id, change)
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> ApiKey:
            row = lock(tx, principal, key_id)
            if row.revoked_at is not None and values.keys() == {"revoked_at"}:
                return from_row(row)
            _check_changeable(row, values)
            new = dict(values)
            if change.enabled is False and row.disabled_at is not None:
                del new["disabled_at"]  # the time of it is kept
            if new:
                tx.execute(update(api_keys).where(api_keys.c.id == key_id).values(**new))
                tx.on_commit(lambda: self._resolver.forget_key(key_id))
                details = {"changed": sorted(new), **_scopes_told(new)}
                self._recorder.record(tx, actor, "key.update", target=key_id, details=details)
            return from_row(lock(tx, principal, key_id))

        return await self._database.write(verb)

    def _changes(self, principal: Principal, key_id: str, change: KeyChange) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if change.name is not None:
            _check_name(change.name)
            values["name"] = change.name
        if change.scopes is not None:
            given = parse(change.scopes)
            require_all(principal, given)
            values["scopes"] = sorted(given)
        if (change.revoke or change.enabled is False) and key_id == principal.key_id:
            raise Invalid("A key cannot end itself.", code="own_key")
        if change.revoke:
            values["revoked_at"] = self._clock.now()
        if change.enabled is not None:
            values["disabled_at"] = None if change.enabled else self._clock.now()
        if change.expires_at is not None or change.clear_expiry:
            _check_expiry(change.expires_at, self._clock.now())
            values["expires_at"] = change.expires_at
        if change.bounds is not None:
            values |= bounds_values(within(principal, _checked(change.bounds)))
        return values

    async def revoke(self, principal: Principal, key_id: str) -> ApiKey:
        """End a key. Idempotent. A caller cannot revoke the key it uses.

        It ends on this server at once, and on every server for what spends; another server may
        show it what there is for as long as its resolver remembers keys (`CACHE_S`).
        """
        principal.require(SCOPE)
        check_id(key_id, "key")
        if key_id == principal.key_id:
            raise Invalid("A key cannot revoke itself.", code="own_key")
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> ApiKey:
            row = lock(tx, principal, key_id)
            tx.on_commit(lambda: self._resolver.forget_key(key_id))
            if row.revoked_at is None:
                tx.execute(
                    update(api_keys)
                    .where(api_keys.c.id == key_id)
                    .values(revoked_at=self._clock.now())
                )
                self._recorder.record(tx, actor, "key.revoke", target=key_id)
            return from_row(lock(tx, principal, key_id))

        return await self._database.write(verb)


def _require_list(principal: Principal) -> None:
    if not principal.may(SCOPE):
        principal.require(LIST_SCOPE)


def _check_name(name: str) -> None:
    if NAME.fullmatch(name) is None:
        raise Invalid("name must be 3 to 50 letters, digits, '_' or '-'.", param="name")


def _check_expiry(expires_at: Millis | None, now: Millis) -> None:
    if expires_at is not None and expires_at <= now:
        raise Invalid("The key would already have expired.", param="expires_at")


def _checked(bounds: Bounds) -> Bounds:
    return Bounds(
        profile=bounds.profile,
        limits=bounds.limits,
        models=None if bounds.models is None else check_models(bounds.models),
        # None given is from anywhere, like nothing given.
        addresses=check_addresses(bounds.addresses or ()) or None,
    )


def _check_changeable(row: Any, values: Mapping[str, Any]) -> None:
    if row.revoked_at is not None and values:
        raise Invalid("A key that is revoked stays as it is.", code="key_revoked")
    if row.source == "environment" and not values.keys() <= set(bounds_values(Bounds())):
        raise Invalid(
            "This key stands in the server's settings: change it there.", code="configured_key"
        )


def _of_status(status: str, now: Millis) -> tuple[Any, ...]:
    columns = api_keys.c
    if status == "archived":
        return (columns.revoked_at.is_not(None),)
    alive = columns.revoked_at.is_(None)
    if status == "inactive":
        return alive, columns.disabled_at.is_not(None)
    if status == "expired":
        return alive, columns.disabled_at.is_(None), columns.expires_at <= now
    if status == "active":
        lasting = columns.expires_at.is_(None) | (columns.expires_at > now)
        return alive, columns.disabled_at.is_(None), lasting
    raise Invalid(f"status must be one of {', '.join(STATUSES)}.", param="status")


def _told(key: ApiKey) -> dict[str, Any]:
    return {"name": key.name, "hint": key.hint, "scopes": sorted(key.scopes)}


def _scopes_told(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"scopes": values["scopes"]} if "scopes" in values else {}
