"""Whether a credential is still good, asked inside the transaction that spends by it.

The resolver remembers keys for a moment, so another server's revocation may go unseen by what only
looks. Money must not depend on that: a hold that is placed after a revocation has committed, on
whichever server, is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, bindparam, literal_column, or_, select

from stationmaster.access.standing import USER_PREFIX
from stationmaster.access.tables import (
    api_keys,
    organizations,
    projects,
    run_tokens,
    service_accounts,
    users,
)
from stationmaster.kernel.clock import Millis
from stationmaster.storage import Prepared, Transaction, among

_ACTIVE: ColumnElement[str] = literal_column(
    "'active'"
)  # a prepared statement takes what varies alone
_KEYS = Prepared(
    select(api_keys.c.id)
    .join(projects, projects.c.id == api_keys.c.project_id)
    .join(organizations, organizations.c.id == api_keys.c.organization_id)
    .outerjoin(users, users.c.id == api_keys.c.user_id)
    .outerjoin(service_accounts, service_accounts.c.id == api_keys.c.service_account_id)
    .where(
        among(api_keys.c.id, "ids"),
        api_keys.c.revoked_at.is_(None),
        api_keys.c.disabled_at.is_(None),
        or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > bindparam("now")),
        projects.c.archived_at.is_(None),
        organizations.c.archived_at.is_(None),
        or_(
            api_keys.c.user_id.is_(None),
            and_(users.c.status == _ACTIVE, users.c.removed_at.is_(None)),
        ),
        or_(
            api_keys.c.service_account_id.is_(None),
            and_(service_accounts.c.id.is_not(None), service_accounts.c.archived_at.is_(None)),
        ),
    )
)
_USERS = Prepared(
    select(users.c.id)
    .join(organizations, organizations.c.id == users.c.organization_id)
    .where(
        among(users.c.id, "ids"),
        users.c.status == _ACTIVE,
        users.c.removed_at.is_(None),
        organizations.c.archived_at.is_(None),
    )
)
_RUNS = Prepared(
    select(run_tokens.c.run_id).where(
        among(run_tokens.c.run_id, "ids"), run_tokens.c.revoked_at.is_(None)
    )
)


@dataclass(frozen=True, slots=True)
class Spender:
    """Who spends: the key, or the signed-in user, and the run whose token was shown."""

    key_id: str
    run_id: str | None


def still_good(tx: Transaction, spenders: Sequence[Spender], now: Millis) -> list[bool]:
    """Whether each of them may spend. A run needs its token, and what started it."""
    ids = {spender.key_id for spender in spenders}
    people = {each for each in ids if each.startswith(USER_PREFIX)}
    runs = {spender.run_id for spender in spenders if spender.run_id is not None}
    good: set[str] = set()
    if keys := ids - people:
        good |= {str(row[0]) for row in tx.run(_KEYS, {"ids": sorted(keys), "now": now})}
    if people:
        good |= {str(row[0]) for row in tx.run(_USERS, {"ids": sorted(people)})}
    bound = {str(row[0]) for row in tx.run(_RUNS, {"ids": sorted(runs)})} if runs else set()
    return [
        spender.key_id in good and (spender.run_id is None or spender.run_id in bound)
        for spender in spenders
    ]
