"""What a credential's profile leaves of the server's limits, for runs of its own."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import func, select

from stationmaster.agents import base as agents
from stationmaster.kernel.errors import Denied, Exhausted
from stationmaster.kernel.principal import Principal
from stationmaster.kernel.profile import Profile
from stationmaster.sessions.runs.state import UNFINISHED
from stationmaster.sessions.tables import runs, sessions
from stationmaster.storage import Transaction

RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Shares:
    """How many unfinished runs one may have of which nothing else is said. None is any number."""

    key: int | None = None
    organization: int | None = None


class Bounds(msgspec.Struct, frozen=True):
    """What one run's agent is held to. None is as the server's settings say."""

    cpu_seconds: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    readonly: bool = False


def bounds_of(profile: Profile | None, timeout: float) -> Bounds | None:
    """What an agent that runs for `timeout` seconds is held to; None without a profile."""
    if profile is None:
        return None
    cores = profile.cpu_cores
    return Bounds(
        cpu_seconds=None if cores is None else max(1, round(cores * timeout)),
        memory_bytes=profile.memory_bytes,
        disk_bytes=profile.workspace_bytes,
        readonly=profile.filesystem == "readonly",
    )


def within(limits: agents.Limits, bounds: Bounds | None) -> agents.Limits:
    """An agent's limits, or the bounds where they are tighter."""
    if bounds is None:
        return limits
    return replace(
        limits,
        cpu_seconds=_least(limits.cpu_seconds, bounds.cpu_seconds),
        memory_bytes=_least(limits.memory_bytes, bounds.memory_bytes),
        disk_bytes=_least(limits.disk_bytes, bounds.disk_bytes),
        file_bytes=_least(limits.file_bytes, bounds.disk_bytes),
    )


def is_readonly(bounds: Bounds | None) -> bool:
    """Whether nothing in the workspace may be changed."""
    return bounds is not None and bounds.readonly


def _least(limit: int, bound: int | None) -> int:
    return limit if bound is None else min(limit, bound)


def check_concurrency(tx: Transaction, principal: Principal, usual: Shares) -> None:
    """Raise `Exhausted` where the credential, its project or organisation has as many as it may.

    What a key's profile or limits, and an organisation's, say takes the place of `usual`. Of a
    credential those sessions count too in which its messages wait behind another's turn: theirs
    follow without being asked for again. Call it after `one_at_a_time`.
    """
    owner, profile = principal.owner, principal.profile
    of_profile = None if profile is None else profile.concurrent_tasks
    of_key, of_project, of_organization = (
        None if limits is None else limits.concurrent_runs
        for limits in (principal.limits, principal.project_limits, principal.organization_limits)
    )
    for who, whose, most in (
        (
            "credential",
            runs.c.key_id == principal.key_id,
            _tightest(of_profile, of_key, usual=usual.key),
        ),
        ("project", runs.c.project_id == owner.project_id, of_project),
        (
            "organisation",
            runs.c.organization_id == owner.organization_id,
            _tightest(of_organization, usual=usual.organization),
        ),
    ):
        if most is None:
            continue
        unfinished = select(func.count()).where(whose, runs.c.state.in_(UNFINISHED))
        number = tx.execute(unfinished).scalar_one()
        if who == "credential" and number < most:
            number += _behind_others(tx, principal)
        if number >= most:
            raise Exhausted(
                f"This {who} has {most} tasks at work, and may have no more at once.",
                code="concurrent_tasks",
                retry_after=RETRY_S,
            )


def _behind_others(tx: Transaction, principal: Principal) -> int:
    """In how many sessions messages of the credential wait behind another's turn."""
    queues = (
        select(sessions.c.queue)
        .join(runs, runs.c.session_id == sessions.c.id)
        .where(
            runs.c.project_id == principal.owner.project_id,
            runs.c.key_id != principal.key_id,
            runs.c.state.in_(UNFINISHED),
            runs.c.message_id.is_not(None),
        )
    )
    return sum(is_waiting(queue, principal.key_id) for queue in tx.execute(queues).scalars())


def is_waiting(queue: Iterable[Mapping[str, Any]], key_id: str) -> bool:
    """Whether a message of this credential waits in a session's queue."""
    return any(each["key_id"] == key_id for each in queue)


def _tightest(*own: int | None, usual: int | None) -> int | None:
    return min((most for most in own if most is not None), default=usual)


def check_kit(
    profile: Profile | None,
    *,
    tools: tuple[str, ...] = (),
    sub_agents: tuple[str, ...] = (),
    skills: tuple[str, ...] = (),
    mcp_servers: tuple[str, ...] = (),
) -> None:
    """Raise `Denied` for what an agent is to have and the profile does not allow."""
    if profile is None:
        return
    for kind, names, allows, param in (
        ("tool", tools, profile.allows_tool, "allow_tools"),
        ("agent", sub_agents, profile.allows_agent, "allow_agents"),
        ("skill", skills, profile.allows_skill, "allow_skills"),
        ("mcp_server", mcp_servers, profile.allows_server, "mcp_servers"),
    ):
        for name in names:
            if not allows(name):
                what = kind.replace("mcp_", "MCP ")
                raise Denied(
                    f"The profile {profile.name!r} does not allow the {what} {name[:64]!r}.",
                    code=f"{kind}_not_allowed",
                    param=param,
                )
