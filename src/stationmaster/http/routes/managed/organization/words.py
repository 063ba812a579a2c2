"""Words of Anthropic's Admin API for ours, pages, and moments."""

from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from fastapi import Query

from stationmaster.access.paging import Slice, Window
from stationmaster.http.shapes.organization import DataResidency
from stationmaster.kernel.clock import Millis, iso
from stationmaster.kernel.errors import Invalid

T = TypeVar("T")

PAGE_SIZE = 20
PageLimit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
AfterId = Annotated[str | None, Query(max_length=64, description="Those that follow this one.")]
BeforeId = Annotated[str | None, Query(max_length=64, description="Those right before this one.")]
EmailFilter = Annotated[str | None, Query(max_length=320)]
RolesFilter = Annotated[list[str] | None, Query(alias="roles[]", max_length=16)]

ROLES = MappingProxyType(
    {"owner": "owner", "admin": "admin", "member": "developer", "viewer": "user"}
)
WORKSPACE_ROLES = MappingProxyType(
    {"admin": "workspace_admin", "member": "workspace_developer", "viewer": "workspace_user"}
)
ACCOUNT_ROLES = MappingProxyType({"admin": "admin", "member": "developer"})

_RATES = MappingProxyType(
    {
        "requests_per_minute": "requests_per_minute",
        "input_tokens_per_minute": "input_tokens_per_minute",
        "input_tokens_per_minute_cache_aware": "input_tokens_per_minute",
        "output_tokens_per_minute": "output_tokens_per_minute",
    }
)
SHOWN_RATES = ("requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute")


def role_of(name: str) -> str:
    """Our role for a role of the API. Raises `Invalid`."""
    return _ours(name, ROLES, "role")


def workspace_role_of(name: str) -> str:
    """Our role in a project for one of the API. Raises `Invalid`."""
    return _ours(name, WORKSPACE_ROLES, "workspace_role")


def account_role_of(name: str) -> str:
    """Our role of a service account for one of the API. Raises `Invalid`."""
    return _ours(name, ACCOUNT_ROLES, "organization_role")


def rate_of(name: str) -> str:
    """Our limit for one of the API. Raises `Invalid`."""
    if name not in _RATES:
        raise Invalid(
            f"There is no limit of this type here; there are {', '.join(SHOWN_RATES)}.",
            code="unsupported",
            param="limits",
        )
    return _RATES[name]


def _ours(name: str, names: MappingProxyType[str, str], param: str) -> str:
    for ours, theirs in names.items():
        if theirs == name:
            return ours
    raise Invalid(
        f"There is no such role here; there are {', '.join(names.values())}.",
        code="unsupported",
        param=param,
    )


def window(limit: int, after: str | None, before: str | None) -> Window:
    """A part of a list, as it was asked for; an empty id is none."""
    return Window(limit, after or None, before or None)


def page(found: Slice[T], items: list[Any]) -> dict[str, Any]:
    """The parts of a page of `items`, which are shown for what was found."""
    ids = [_id(item) for item in items]
    return {
        "data": items,
        "has_more": found.has_more,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
    }


def _id(item: Any) -> str:
    return str(getattr(item, "id", None) or item.user_id)


def actor(actor_id: str | None) -> str | None:
    """Somebody's id, where the API knows such: a key is nobody."""
    return actor_id if actor_id is not None and actor_id.startswith(("user_", "svac_")) else None


def moment(at: Millis | None) -> str | None:
    """A point in time, or none."""
    return None if at is None else iso(at)


def unsupported(value: Any, param: str, *allowed: Any) -> None:
    """Raise `Invalid` for a value of a field that this server has nothing for."""
    if value is not None and value not in allowed:
        raise Invalid(f"{param} is not supported here.", code="unsupported", param=param)


def check_residency(value: Any) -> None:
    """Raise `Invalid` for another place of data than the one that there is."""
    known = DataResidency().model_dump()
    if value is None or (
        isinstance(value, dict)
        and all(name in known and part in (None, known[name]) for name, part in value.items())
    ):
        return
    unsupported(value, "data_residency")
