"""The first start: the default organisation and project, an admin's key, and the operator's own."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, or_, select, update

# Its ON CONFLICT is SQLite's too.
from sqlalchemy.dialects.postgresql import insert as upsert

from stationmaster.access.api_key import add, fresh
from stationmaster.access.scopes import USER_SCOPES
from stationmaster.access.secret import KEY_PREFIX, Hasher, generate
from stationmaster.access.tables import api_keys, organizations, projects
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.principal import ALL, Owner
from stationmaster.storage import Transaction

DEFAULT_OWNER = Owner("org_default", "proj_default")
_ALL = frozenset({ALL})


def ensure(
    tx: Transaction, hasher: Hasher, now: Millis, *, admin: str | None, given: Sequence[str]
) -> str | None:
    """See `Keys.bootstrap`."""
    make_default_owner(tx, now)
    # By hash: the name and the rights of the operator's own keys. A key that is the admin's and
    # also in the list is the admin's.
    wanted = {hasher.digest(secret): (secret, "environment", USER_SCOPES) for secret in given}
    if admin is not None:
        wanted[hasher.digest(admin)] = (admin, "admin", _ALL)
    known = or_(api_keys.c.source == "environment", api_keys.c.hash.in_(wanted))
    present = {row.hash: row for row in tx.execute(select(api_keys).where(known))}
    for row in present.values():
        if row.source == "environment":
            _keep_up(tx, row, wanted.get(row.hash), now)
    for digest, (secret, name, scopes) in wanted.items():
        if digest not in present:
            _add(tx, hasher, secret, now, name=name, source="environment", scopes=scopes)
    if tx.execute(select(api_keys.c.id).limit(1)).first() is not None:
        return None
    return make_admin(tx, hasher, now, name="admin")


def make_admin(tx: Transaction, hasher: Hasher, now: Millis, *, name: str) -> str:
    """Make a key with every right in the default project, and return its secret.

    It is not rotated by itself: whoever runs the server must not be locked out.
    """
    secret = generate(KEY_PREFIX)
    _add(tx, hasher, secret, now, name=name, source="created", scopes=_ALL)
    return secret


def make_default_owner(tx: Transaction, now: Millis) -> None:
    """Make the default organisation and project. Idempotent."""
    organization = {"id": DEFAULT_OWNER.organization_id, "name": "Default", "created_at": now}
    tx.execute(upsert(organizations).on_conflict_do_nothing(), organization)
    # From here on a second server that starts at the same moment waits.
    tx.execute(
        select(organizations.c.id)
        .where(organizations.c.id == DEFAULT_OWNER.organization_id)
        .with_for_update()
    )
    project = {
        "id": DEFAULT_OWNER.project_id,
        "organization_id": DEFAULT_OWNER.organization_id,
        "name": "default",
        "created_at": now,
        "is_default": True,
    }
    tx.execute(upsert(projects).on_conflict_do_nothing(), project)


def _add(
    tx: Transaction,
    hasher: Hasher,
    secret: str,
    now: Millis,
    *,
    name: str,
    source: str,
    scopes: frozenset[str],
) -> None:
    key = fresh(name, DEFAULT_OWNER, scopes, secret, source=source, created_at=now, expires_at=None)
    add(tx, key, secret, hasher)


def _keep_up(
    tx: Transaction,
    row: Row[Any],
    wanted: tuple[str, str, frozenset[str]] | None,
    now: Millis,
) -> None:
    """Bring a key of an earlier start up to what the operator gives now."""
    if wanted is None:
        values = {"revoked_at": row.revoked_at or now}
    else:
        _, name, scopes = wanted
        values = {"revoked_at": None, "name": name, "scopes": sorted(scopes)}
    if any(getattr(row, column) != value for column, value in values.items()):
        tx.execute(update(api_keys).where(api_keys.c.id == row.id).values(**values))
