"""An API key without its secret, and its row."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Row, insert, select

from stationmaster.access import profiles, rates
from stationmaster.access.secret import Hasher
from stationmaster.access.tables import api_keys
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Invalid, NotFound
from stationmaster.kernel.ids import check_id, new_id
from stationmaster.kernel.principal import Limits, Owner, Principal
from stationmaster.kernel.profile import Profile
from stationmaster.storage import Transaction

Status = Literal["active", "inactive", "archived", "expired"]
MAX_MODELS = 100
MAX_MODEL_LENGTH = 256
MAX_ADDRESSES = 100
HINT_LENGTH = 4
_LONG_ENOUGH = 16  # characters; of a shorter secret four would tell too much


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a key is held to beyond its scopes. None is no bound of the key's own."""

    profile: Profile | None = None
    limits: Limits | None = None
    models: tuple[str, ...] | None = None
    addresses: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key, without its secret. `hint` is the secret's last four characters.

    Without `uncollected` somebody has been given the secret. A key that has a `successor_id` was
    replaced by it, and expires. One with an `environment_id` is for that environment's workers.
    """

    id: str
    owner: Owner
    name: str
    hint: str
    source: str
    scopes: frozenset[str]
    created_at: Millis
    expires_at: Millis | None
    revoked_at: Millis | None
    bounds: Bounds = field(default_factory=Bounds)
    user_id: str | None = None
    service_account_id: str | None = None
    created_by: str | None = None
    disabled_at: Millis | None = None
    last_used_at: Millis | None = None
    rotates_at: Millis | None = None
    successor_id: str | None = None
    uncollected: bool = False
    environment_id: str | None = None

    def status(self, now: Millis) -> Status:
        """As the Admin API has it; what is revoked is `archived`."""
        if self.revoked_at is not None:
            return "archived"
        if self.disabled_at is not None:
            return "inactive"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


def from_row(row: Row[Any]) -> ApiKey:
    """The key that a row holds."""
    return ApiKey(
        id=row.id,
        owner=Owner(row.organization_id, row.project_id),
        name=row.name,
        hint=row.hint,
        source=row.source,
        scopes=frozenset(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        bounds=Bounds(
            profile=profiles.from_row(row.profile),
            limits=rates.from_row(row.limits),
            models=None if row.models is None else tuple(row.models),
            addresses=None if row.addresses is None else tuple(row.addresses),
        ),
        user_id=row.user_id,
        service_account_id=row.service_account_id,
        created_by=row.created_by,
        disabled_at=row.disabled_at,
        last_used_at=row.last_used_at,
        rotates_at=row.rotates_at,
        successor_id=row.successor_id,
        uncollected=row.uncollected,
        environment_id=row.environment_id,
    )


def add(tx: Transaction, key: ApiKey, secret: str, hasher: Hasher) -> None:
    """Write a key down under its secret's hash."""
    tx.execute(
        insert(api_keys),
        {
            "id": key.id,
            "organization_id": key.owner.organization_id,
            "project_id": key.owner.project_id,
            "name": key.name,
            "hash": hasher.digest(secret),
            "hint": key.hint,
            "source": key.source,
            "scopes": sorted(key.scopes),
            "created_at": key.created_at,
            "expires_at": key.expires_at,
            "revoked_at": None,
            "user_id": key.user_id,
            "service_account_id": key.service_account_id,
            "created_by": key.created_by,
            "rotates_at": key.rotates_at,
            "uncollected": key.uncollected,
            "environment_id": key.environment_id,
            **bounds_values(key.bounds),
        },
    )


def bounds_values(bounds: Bounds) -> dict[str, Any]:
    """The columns of bounds."""
    return {
        "profile": profiles.to_row(bounds.profile),
        "limits": rates.to_row(bounds.limits),
        "models": None if bounds.models is None else list(bounds.models),
        "addresses": None if bounds.addresses is None else list(bounds.addresses),
    }


def fresh(name: str, owner: Owner, scopes: frozenset[str], secret: str, **values: Any) -> ApiKey:
    """A key that is not written down yet."""
    return ApiKey(
        id=new_id("key"),
        owner=owner,
        name=name,
        hint=hint_of(secret),
        scopes=scopes,
        revoked_at=None,
        **values,
    )


def hint_of(secret: str) -> str:
    """What may be shown of a secret."""
    return secret[-HINT_LENGTH:] if len(secret) >= _LONG_ENOUGH else ""


def lock(tx: Transaction, principal: Principal, key_id: str) -> Row[Any]:
    """The row of a key that the caller may see, until the end of `tx` nobody else's to change.

    It is one of the caller's project, or with `admin:organization` of its organisation. Raises
    `NotFound`.
    """
    check_id(key_id, "key")
    query = select(api_keys).where(api_keys.c.id == key_id, *seen_by(principal))
    row = tx.execute(query.with_for_update()).first()
    if row is None:
        raise NotFound("There is no key with this id.")
    return row


def seen_by(principal: Principal) -> list[Any]:
    """Which keys a caller may see, as conditions."""
    conditions: list[Any] = [api_keys.c.organization_id == principal.owner.organization_id]
    if not principal.may("admin:organization"):
        conditions.append(api_keys.c.project_id == principal.owner.project_id)
    return conditions


def check_models(models: Sequence[str]) -> tuple[str, ...]:
    """Names of models, and beginnings of names that end in `*`. Raises `Invalid`."""
    if len(models) > MAX_MODELS:
        raise Invalid(f"models has more than {MAX_MODELS} entries.", param="models")
    for model in models:
        if not 0 < len(model) <= MAX_MODEL_LENGTH or "*" in model[:-1] or not model.isprintable():
            raise Invalid(
                "models must be names, or beginnings of names that end in `*`.", param="models"
            )
    return tuple(dict.fromkeys(models))


def check_addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    """Addresses and networks, as `10.0.0.0/8`. Raises `Invalid`."""
    if len(addresses) > MAX_ADDRESSES:
        raise Invalid(f"addresses has more than {MAX_ADDRESSES} entries.", param="addresses")
    try:
        return tuple(dict.fromkeys(str(ipaddress.ip_network(each)) for each in addresses))
    except ValueError:
        raise Invalid(
            "addresses must be IP addresses or networks, such as 192.0.2.7 or 2001:db8::/32, with"
            " no bit set beyond the mask.",
            param="addresses",
        ) from None
