"""Roles: each is a set of scopes.

In an organisation a person is its owner, an admin, a member or a viewer. Owners and admins have
their role in every project of it. A member or viewer has it in the default project; in another
one, the role of their membership there, and without a membership none.
"""

from types import MappingProxyType
from typing import Literal, get_args

from stationmaster.access.first_keys import DEFAULT_OWNER
from stationmaster.access.scopes import USER_SCOPES
from stationmaster.kernel.errors import Denied, Invalid
from stationmaster.kernel.principal import ALL, Principal

Role = Literal["owner", "admin", "member", "viewer"]
ROLES: tuple[str, ...] = get_args(Role)
PROJECT_ROLES = ("admin", "member", "viewer")
ACCOUNT_ROLES = ("admin", "member")

ORGANIZATION_SCOPES = MappingProxyType(
    {
        "owner": frozenset({ALL}),
        "admin": frozenset({*USER_SCOPES, "admin:*", "list:*", "invite:*", "use:*", "work:*"}),
        "member": frozenset({*USER_SCOPES, "invite:*"}),
        "viewer": frozenset({"read:*"}),
    }
)
PROJECT_SCOPES = MappingProxyType(
    {
        # Not `admin:*`: that would reach beyond the project.
        "admin": frozenset(
            {
                *USER_SCOPES,
                *("list:*", "invite:*", "work:*"),
                *("admin:keys", "admin:rooms", "admin:budgets"),
            }
        ),
        "member": ORGANIZATION_SCOPES["member"],
        "viewer": ORGANIZATION_SCOPES["viewer"],
    }
)
_ABOVE = frozenset({"owner", "admin"})


def effective(role: str, *, default_project: bool, project_role: str | None) -> frozenset[str]:
    """The scopes in a project of somebody with `role` in the organisation."""
    if role in _ABOVE:
        return ORGANIZATION_SCOPES[role]
    if project_role is not None:
        return PROJECT_SCOPES[project_role]
    return ORGANIZATION_SCOPES[role] if default_project else frozenset()


def check_role(role: str, known: tuple[str, ...], *, param: str) -> str:
    """Return `role` if it is one of `known`; raise `Invalid`."""
    if role not in known:
        raise Invalid(f"{param} must be one of {', '.join(known)}.", param=param)
    return role


def require_rank(principal: Principal, *roles: str) -> None:
    """Raise `Denied` where the roles to be given, or taken, are above the caller's."""
    if not _ABOVE.isdisjoint(roles) and not principal.may("own:organization"):
        raise Denied("Only an owner gives and takes the roles of owners and admins.")


def is_operator(principal: Principal) -> bool:
    """Whether this is a key of the server's own organisation with every right.

    A tenant's master key has every right too, but in the tenant's house: what is the server
    owner's own, such as a login, is not for it.
    """
    return (
        principal.kind == "key"
        and ALL in principal.scopes
        and principal.owner.organization_id == DEFAULT_OWNER.organization_id
    )
