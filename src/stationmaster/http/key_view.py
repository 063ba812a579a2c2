"""An API key on the wire, in and out."""

from typing import Any

from stationmaster.access import ApiKey, Bounds, profiles, rates
from stationmaster.access.keys import KeyChange
from stationmaster.http.shapes.key import (
    Key,
    KeyChanges,
    KeyLimits,
    KeyProfile,
    KeyRequest,
    ProfileChanges,
)
from stationmaster.kernel.clock import Millis, iso
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.money import parse_dollars, to_dollars
from stationmaster.kernel.principal import Limits
from stationmaster.kernel.profile import Profile

DAY_MS = 86_400_000
GB = 1024**3
MB = 1024**2


def view(key: ApiKey, now: Millis) -> Key:
    """A key as it is shown."""
    limits = rates.to_row(key.bounds.limits) or {}
    return Key(
        id=key.id,
        name=key.name,
        hint=key.hint,
        permissions=sorted(key.scopes),
        source=key.source,
        project_id=key.owner.project_id,
        status=key.status(now),
        enabled=key.revoked_at is None and key.disabled_at is None,
        rate_limit=limits.get("requests_per_minute"),
        limits=limits,
        profile=_profile(key.bounds.profile),
        models=None if key.bounds.models is None else list(key.bounds.models),
        addresses=None if key.bounds.addresses is None else list(key.bounds.addresses),
        user_id=key.user_id,
        service_account_id=key.service_account_id,
        created_by=key.created_by,
        created_at=iso(key.created_at),
        expires_at=_iso(key.expires_at),
        revoked_at=_iso(key.revoked_at),
        last_used=_iso(key.last_used_at),
        rotates_at=_iso(key.rotates_at),
        successor_id=key.successor_id,
        uncollected=key.uncollected,
    )


def bounds_of(body: KeyRequest | KeyChanges) -> Bounds:
    """The bounds that a new key is to have. Raises `Invalid`."""
    return Bounds(
        profile=_named(body),
        limits=_limits(body.limits, body.rate_limit),
        models=None if body.models is None else tuple(body.models),
        addresses=None if body.addresses is None else tuple(body.addresses),
    )


def change_of(body: KeyChanges, key: ApiKey, now: Millis) -> KeyChange:
    """What is to be different of a key. Raises `Invalid`."""
    given, days = body.model_fields_set, body.expires_in_days
    return KeyChange(
        name=body.name,
        scopes=body.permissions,
        enabled=body.enabled,
        expires_at=None if days is None else now + days * DAY_MS,
        clear_expiry="expires_in_days" in given and days is None,
        bounds=_changed(key.bounds, body) if given & _BOUNDS else None,
    )


_BOUNDS = {"profile", "profile_changes", "limits", "rate_limit", "models", "addresses"}


def _changed(old: Bounds, body: KeyChanges) -> Bounds:
    given, new = body.model_fields_set, bounds_of(body)
    return Bounds(
        profile=new.profile if given & {"profile", "profile_changes"} else old.profile,
        limits=new.limits if given & {"limits", "rate_limit"} else old.limits,
        models=new.models if "models" in given else old.models,
        addresses=new.addresses if "addresses" in given else old.addresses,
    )


def _limits(given: KeyLimits | None, rate_limit: int | None) -> Limits | None:
    values: dict[str, Any] = {} if given is None else given.model_dump()
    if rate_limit is not None:
        if values.get("requests_per_minute") not in {None, rate_limit}:
            raise Invalid("rate_limit and limits contradict each other.", param="rate_limit")
        values["requests_per_minute"] = rate_limit
    return rates.check_limits(values, param="limits")


def _named(body: KeyRequest | KeyChanges) -> Profile | None:
    if body.profile is None:
        if body.profile_changes is not None:
            raise Invalid("profile_changes are of a profile: name it.", param="profile_changes")
        return None
    return profiles.profile(body.profile, _changes(body.profile_changes or ProfileChanges()))


def _changes(given: ProfileChanges) -> dict[str, Any]:
    cost, memory, disk = given.max_cost_per_task, given.max_memory_gb, given.workspace_size_mb
    changes = {
        "tools": given.allowed_tools,
        "blocked_tools": given.blocked_tools,
        "agents": given.allowed_agents,
        "skills": given.allowed_skills,
        "concurrent_tasks": given.max_concurrent_tasks,
        "cpu_cores": given.max_cpu_cores,
        "memory_bytes": None if memory is None else round(memory * GB),
        "seconds": given.max_execution_seconds,
        "cost": None if cost is None else parse_dollars(cost, param="max_cost_per_task"),
        "network": given.network_access,
        "filesystem": given.filesystem_access,
        "workspace_bytes": None if disk is None else disk * MB,
        "priority": given.max_priority,
    }
    return {name: value for name, value in changes.items() if value is not None}


def _profile(given: Profile | None) -> KeyProfile | None:
    if given is None:
        return None
    return KeyProfile(
        name=given.name,
        allowed_tools=list(given.tools),
        blocked_tools=list(given.blocked_tools),
        allowed_agents=list(given.agents),
        allowed_skills=list(given.skills),
        max_concurrent_tasks=given.concurrent_tasks,
        max_cpu_cores=given.cpu_cores,
        max_memory_gb=None if given.memory_bytes is None else given.memory_bytes / GB,
        max_execution_seconds=given.seconds,
        max_cost_per_task=None if given.cost is None else to_dollars(given.cost),
        network_access=given.network,
        filesystem_access=given.filesystem,
        workspace_size_mb=None if given.workspace_bytes is None else given.workspace_bytes / MB,
        max_priority=given.priority,
    )


def _iso(at: Millis | None) -> str | None:
    return None if at is None else iso(at)
