"""What a credential may do now: its own rights, and never more than those of whom it belongs to.

A key is good while it, its project and its organisation are, and the user or service account that
it belongs to. A run's token is good while what started the run is.
"""

import ipaddress
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, and_, bindparam, func, select

from stationmaster.access import profiles, rates
from stationmaster.access.roles import effective
from stationmaster.access.scopes import narrow
from stationmaster.access.tables import (
    api_keys,
    organizations,
    project_members,
    projects,
    run_tokens,
    service_accounts,
    users,
)
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.principal import Network, Owner, Principal
from stationmaster.storage import Transaction

RUN_SCOPES = frozenset({"write:messages"})
WORK_SCOPES = frozenset({"work:environments"})
USER_PREFIX = "user_"

Standing = tuple[Principal, Millis | None]
"""A principal, and when its credential expires."""

_KEYS = (
    select(
        api_keys,
        projects.c.is_default,
        projects.c.limits.label("project_limits"),
        organizations.c.limits.label("organization_limits"),
        users.c.id.label("live_user_id"),
        users.c.role.label("user_role"),
        service_accounts.c.id.label("live_account_id"),
        service_accounts.c.role.label("account_role"),
        project_members.c.role.label("project_role"),
    )
    .join(projects, projects.c.id == api_keys.c.project_id)
    .join(organizations, organizations.c.id == api_keys.c.organization_id)
    .outerjoin(
        users,
        and_(
            users.c.id == api_keys.c.user_id,
            users.c.status == "active",
            users.c.removed_at.is_(None),
        ),
    )
    .outerjoin(
        service_accounts,
        and_(
            service_accounts.c.id == api_keys.c.service_account_id,
            service_accounts.c.archived_at.is_(None),
        ),
    )
    .outerjoin(
        project_members,
        and_(
            project_members.c.project_id == api_keys.c.project_id,
            project_members.c.member_id
            == func.coalesce(api_keys.c.user_id, api_keys.c.service_account_id),
        ),
    )
    .where(
        api_keys.c.revoked_at.is_(None),
        api_keys.c.disabled_at.is_(None),
        api_keys.c.uncollected.is_(False),
        projects.c.archived_at.is_(None),
        organizations.c.archived_at.is_(None),
    )
)
BY_HASH = _KEYS.where(api_keys.c.hash == bindparam("digest"))
BY_ID = _KEYS.where(api_keys.c.id == bindparam("key_id"))
BY_TOKEN = select(run_tokens).where(
    run_tokens.c.hash == bindparam("digest"),
    run_tokens.c.run_id.is_not(None) | run_tokens.c.work_id.is_not(None),
    run_tokens.c.revoked_at.is_(None),
)
_IN_PROJECT = (
    select(
        users,
        projects.c.id.label("project_id"),
        projects.c.is_default,
        projects.c.limits.label("project_limits"),
        organizations.c.limits.label("organization_limits"),
        project_members.c.role.label("project_role"),
    )
    .join(organizations, organizations.c.id == users.c.organization_id)
    .join(projects, projects.c.organization_id == users.c.organization_id)
    .outerjoin(
        project_members,
        and_(
            project_members.c.project_id == projects.c.id,
            project_members.c.member_id == users.c.id,
        ),
    )
    .where(
        users.c.id == bindparam("user_id"),
        users.c.status == "active",
        users.c.removed_at.is_(None),
        projects.c.archived_at.is_(None),
        organizations.c.archived_at.is_(None),
    )
)


def of_digest(tx: Transaction, digest: str) -> Standing | None:
    """Of the key or run token with this hash; None where there is none, or no longer."""
    row = tx.execute(BY_HASH, {"digest": digest}).first()
    if row is not None:
        return _of_key(row)
    token = tx.execute(BY_TOKEN, {"digest": digest}).first()
    return None if token is None else _of_token(tx, token)


def of_user(tx: Transaction, user_id: str, project_id: str | None = None) -> Principal | None:
    """Of a signed-in user in a project, the default one where none is named.

    None where the user or the project is not there, or no longer, or of another organisation.
    """
    which = projects.c.is_default if project_id is None else projects.c.id == project_id
    row = tx.execute(_IN_PROJECT.where(which), {"user_id": user_id}).first()
    if row is None:
        return None
    return Principal(
        kind="user",
        id=row.id,
        owner=Owner(row.organization_id, row.project_id),
        key_id=row.id,
        scopes=effective(row.role, default_project=row.is_default, project_role=row.project_role),
        user_id=row.id,
        project_limits=rates.from_row(row.project_limits),
        organization_limits=rates.from_row(row.organization_limits),
    )


def of_id(tx: Transaction, key_id: str, project_id: str) -> Standing | None:
    """Of the key, or the user in that project, with this id: what work that it began may do now.

    None where it is not there, or no longer.
    """
    if key_id.startswith(USER_PREFIX):
        user = of_user(tx, key_id, project_id)
        return None if user is None else (user, None)
    row = tx.execute(BY_ID, {"key_id": key_id}).first()
    return None if row is None else _of_key(row)


def _of_key(row: Row[Any]) -> Standing | None:
    scopes = frozenset(row.scopes)
    if row.user_id is not None or row.service_account_id is not None:
        role = row.user_role if row.user_id is not None else row.account_role
        if role is None:
            return None
        scopes = narrow(
            scopes,
            effective(role, default_project=row.is_default, project_role=row.project_role),
        )
    principal = Principal(
        kind="key",
        id=row.id,
        owner=Owner(row.organization_id, row.project_id),
        key_id=row.id,
        scopes=scopes,
        user_id=row.user_id,
        service_account_id=row.service_account_id,
        limits=rates.from_row(row.limits),
        project_limits=rates.from_row(row.project_limits),
        organization_limits=rates.from_row(row.organization_limits),
        profile=profiles.from_row(row.profile),
        models=None if row.models is None else frozenset(row.models),
        networks=networks(row.addresses),
        hint=row.hint,
        environment_id=row.environment_id,
    )
    return principal, row.expires_at


def _of_token(tx: Transaction, token: Row[Any]) -> Standing | None:
    found = of_id(tx, token.key_id, token.project_id)
    if found is None:
        return None
    behind, expires_at = found
    if token.work_id is not None:
        principal = replace(
            behind,
            kind="work",
            id=token.id,
            scopes=WORK_SCOPES,
            session_id=token.session_id,
            hint="",
            environment_id=token.environment_id,
            work_id=token.work_id,
        )
        return principal, min(token.expires_at, expires_at or token.expires_at)
    principal = replace(
        behind,
        kind="run",
        id=token.id,
        owner=Owner(token.organization_id, token.project_id),
        key_id=token.key_id,
        scopes=RUN_SCOPES,
        run_id=token.run_id,
        session_id=token.session_id,
        networks=(),  # it comes from the agent's socket
        hint="",
    )
    return principal, None


def networks(addresses: list[str] | None) -> tuple[Network, ...]:
    """The networks that stored addresses name."""
    return tuple(ipaddress.ip_network(address) for address in addresses or ())
