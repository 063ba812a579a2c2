"""Scopes: what there is, what older names mean, and what is nearest to a wrong one."""

import difflib
import re
from collections.abc import Iterable
from types import MappingProxyType

from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.principal import ALL, Principal

MAX_SCOPES = 50
MAX_LENGTH = 64
_FORM = re.compile(r"\*|[a-z_]+:(\*|[a-z_]+)|\*:[a-z_]+|use:[a-z]+\.[A-Za-z0-9_-]+")

SCOPES = MappingProxyType(
    {
        "write:messages": "Call models.",
        "read:tasks": "See tasks, their events and their files.",
        "write:tasks": "Start and cancel tasks.",
        "read:sessions": "See sessions, their events and what they remember.",
        "write:sessions": "Make sessions, speak in them, compress and import them.",
        "read:agents": "See definitions of agents.",
        "write:agents": "Define agents.",
        "read:environments": "See environments.",
        "write:environments": "Define environments.",
        "work:environments": "Serve self-hosted environments: take their work, run its tools.",
        "read:approvals": "See what waits for a person's word.",
        "write:approvals": "Approve and deny.",
        "read:files": "See and download files.",
        "write:files": "Upload and delete files.",
        "read:rooms": "Read rooms.",
        "write:rooms": "Write in rooms.",
        "admin:rooms": "Make, change and close rooms.",
        "invite:rooms": "Bring people into rooms.",
        "read:usage": "See what was used and what it cost.",
        "read:budgets": "See budgets.",
        "admin:budgets": "Make, change and delete budgets.",
        "use:mcp": "Give agents the operator's tool servers; `use:mcp.NAME` is one of them.",
        "use:skills": "Give agents the operator's skills; `use:skills.NAME` is one of them.",
        "use:priority": "Start tasks that are served before the organisation's others.",
        "list:keys": "See the project's keys, without their secrets.",
        "admin:keys": "Make, change, rotate and revoke the project's keys.",
        "admin:members": "Manage users, invites and members of projects.",
        "admin:organization": "Manage the organisation: projects, service accounts, limits.",
        "admin:calls": "Read and delete what models were asked and answered, where it is kept.",
        "admin:audit": "Read and export the audit log.",
        "admin:jobs": "See the server's background jobs; replay and discard those given up.",
        "admin:server": "See the parts of the server and how they fare.",
        "own:organization": "Give and take the roles of owners and admins.",
    }
)
"""Every scope that a verb asks for, and what it permits."""

ALIASES = MappingProxyType(
    {
        "admin:api_keys": "admin:keys",
        "read:api_keys": "list:keys",
        "read:security_events": "admin:audit",
        "read_messages": "read:rooms",
        "send_messages": "write:rooms",
        "manage_rooms": "admin:rooms",
        "invite_users": "invite:rooms",
    }
)
"""Names that people have from older guides."""

USER_SCOPES = frozenset({"read:*", "write:*"})  # may use the server, not manage it


def parse(names: Iterable[str], *, param: str = "scopes") -> frozenset[str]:
    """The scopes that the names mean. Raises `Invalid`, with the nearest name there is."""
    found = frozenset(ALIASES.get(name, name) for name in names)
    if not found:
        raise Invalid(f"{param} must name at least one scope.", param=param)
    if len(found) > MAX_SCOPES:
        raise Invalid(f"{param} names more than {MAX_SCOPES} scopes.", param=param)
    for scope in sorted(found):
        if len(scope) > MAX_LENGTH or _FORM.fullmatch(scope) is None or not expand(scope):
            raise Invalid(
                f"There is no scope {scope[:MAX_LENGTH]!r}; the nearest is {nearest(scope)!r}.",
                code="unknown_scope",
                param=param,
            )
    return found


def expand(scope: str) -> list[str]:
    """Every scope that a name or wildcard stands for."""
    if scope == ALL:
        return list(SCOPES)
    action, _, resource = scope.partition(":")
    whole, _, named = resource.partition(".")
    if named:
        return [scope] if f"{action}:{whole}" in SCOPES else []
    return [
        known
        for known in SCOPES
        if action in {ALL, known.partition(":")[0]} and resource in {ALL, known.partition(":")[2]}
    ]


def require_all(principal: Principal, scopes: Iterable[str]) -> None:
    """Raise `Denied` unless the caller has every one of them: nobody gives what he lacks."""
    for scope in scopes:
        if scope == ALL:
            principal.require(ALL)
        for single in expand(scope):
            if not principal.may(single.partition(".")[0]):  # of one that has a name, every one
                principal.require(single)


def narrow(scopes: frozenset[str], bound: frozenset[str]) -> frozenset[str]:
    """What both sets of scopes grant."""
    if ALL in bound:
        return scopes
    if ALL in scopes:
        return bound
    both = {single for single in _every(scopes) if _grants(bound, single)}
    both |= {single for single in _every(bound) if _grants(scopes, single)}
    # Wildcards that both have are kept as they are: they may grant what comes later.
    return (scopes & bound) | both


def nearest(scope: str) -> str:
    """The name that a wrong one was perhaps meant to be."""
    wildcards = {f"{name.partition(':')[0]}:*" for name in SCOPES}
    candidates = [*SCOPES, *ALIASES, *sorted(wildcards), ALL]
    found = difflib.get_close_matches(scope[:MAX_LENGTH].lower(), candidates, n=1, cutoff=0.0)
    return ALIASES.get(found[0], found[0])


def _every(scopes: frozenset[str]) -> set[str]:
    return {single for scope in scopes for single in expand(scope)}


def _grants(scopes: frozenset[str], single: str) -> bool:
    whole = single.partition(".")[0]
    action, _, resource = whole.partition(":")
    return not scopes.isdisjoint({ALL, single, whole, f"{action}:*", f"*:{resource}"})
