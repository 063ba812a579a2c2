"""Where a new key is, whose it is, and that it is held to no less than who makes it."""

from dataclasses import dataclass

from sqlalchemy import select

from stationmaster.access.api_key import Bounds
from stationmaster.access.roles import require_rank
from stationmaster.access.tables import projects, service_accounts, users
from stationmaster.kernel.errors import Denied, Invalid, NotFound
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.kernel.profile import matches
from stationmaster.storage import Transaction


@dataclass(frozen=True, slots=True)
class Belongs:
    """The project that a key is to be in, and the user or service account that it is to be of."""

    project_id: str | None = None
    user_id: str | None = None
    service_account_id: str | None = None


def place(tx: Transaction, principal: Principal, belongs: Belongs | None) -> Owner:
    """The owner of the new key. Raises `NotFound` and `Denied`."""
    wanted = None if belongs is None else belongs.project_id
    if wanted is None or wanted == principal.owner.project_id:
        return principal.owner
    found = tx.execute(
        select(projects.c.id).where(
            projects.c.id == wanted,
            projects.c.organization_id == principal.owner.organization_id,
            projects.c.archived_at.is_(None),
        )
    ).first()
    # Who may not see other projects is told the same whether this one is there or not.
    if not principal.may("admin:organization") or found is None:
        raise NotFound("There is no project with this id.")
    return Owner(principal.owner.organization_id, found.id)


def bind(
    tx: Transaction, principal: Principal, belongs: Belongs | None
) -> tuple[str | None, str | None]:
    """The user and the service account of the new key, one of them at most.

    Raises `Invalid`, `Denied`, `NotFound`.
    """
    user_id = None if belongs is None else belongs.user_id
    account_id = None if belongs is None else belongs.service_account_id
    if user_id is None and account_id is None:
        return principal.user_id, principal.service_account_id
    if user_id is not None and account_id is not None:
        raise Invalid("A key is of a user or of a service account.", param="service_account_id")
    if (user_id, account_id) != (principal.user_id, principal.service_account_id):
        principal.require("admin:members" if user_id is not None else "admin:organization")
    organization_id = principal.owner.organization_id
    if user_id is not None:
        found = tx.execute(
            select(users.c.id, users.c.role).where(
                users.c.id == user_id,
                users.c.organization_id == organization_id,
                users.c.removed_at.is_(None),
            )
        ).first()
    else:
        found = tx.execute(
            select(service_accounts.c.id).where(
                service_accounts.c.id == account_id,
                service_accounts.c.organization_id == organization_id,
                service_accounts.c.archived_at.is_(None),
            )
        ).first()
    if found is None:
        raise NotFound("There is no such user or service account.")
    if user_id not in {None, principal.user_id}:
        require_rank(principal, found.role)  # what it does is put down to them
    return user_id, account_id


def within(principal: Principal, bounds: Bounds) -> Bounds:
    """The bounds, with those of the caller where none are given. Raises `Denied` for a looser one.

    Without this, a key that is held to a profile, to some models or to an address could make one
    that is not.
    """
    addresses = tuple(str(network) for network in principal.networks) or None
    models = None if principal.models is None else tuple(sorted(principal.models))
    if bounds.profile is not None and principal.profile not in {None, bounds.profile}:
        raise _looser("profile")
    if bounds.limits is not None and principal.limits not in {None, bounds.limits}:
        raise _looser("limits")
    if bounds.addresses is not None and addresses and set(bounds.addresses) - set(addresses):
        raise _looser("addresses")
    # A pattern fits another one where its beginning does.
    if models is not None and not all(matches(model, models) for model in bounds.models or ()):
        raise _looser("models")
    return Bounds(
        profile=bounds.profile or principal.profile,
        limits=bounds.limits or principal.limits,
        models=models if bounds.models is None else bounds.models,
        addresses=addresses if bounds.addresses is None else bounds.addresses,
    )


def _looser(what: str) -> Denied:
    return Denied(
        f"This credential has {what} of its own and gives no others.",
        code="looser_bounds",
        param=what,
    )
