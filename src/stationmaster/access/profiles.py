"""Profiles: what the tasks of a key may use. Three have names, and each bound can be changed."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.money import PER_DOLLAR
from stationmaster.kernel.profile import Profile

MB = 1024**2
GB = 1024**3
MAX_NAMES = 100
MAX_NAME_LENGTH = 128
FILESYSTEMS = ("readonly", "readwrite")
PRIORITIES = ("low", "normal", "high")

PROFILES = MappingProxyType(
    {
        "free": Profile(
            name="free",
            tools=("Read",),
            blocked_tools=("Write", "Edit", "Bash"),
            concurrent_tasks=1,
            cpu_cores=0.5,
            memory_bytes=GB,
            seconds=60.0,
            cost=PER_DOLLAR // 10,
            workspace_bytes=50 * MB,
            priority="normal",
        ),
        "pro": Profile(
            name="pro",
            tools=("Read", "Grep", "Glob", "Bash"),
            agents=("security-auditor", "code-reviewer"),
            concurrent_tasks=3,
            cpu_cores=1.0,
            memory_bytes=GB,
            seconds=300.0,
            cost=PER_DOLLAR,
            workspace_bytes=100 * MB,
            priority="normal",
        ),
        "enterprise": Profile(
            name="enterprise",
            tools=("*",),
            agents=("*",),
            skills=("*",),
            concurrent_tasks=10,
            cpu_cores=4.0,
            memory_bytes=4 * GB,
            seconds=600.0,
            cost=10 * PER_DOLLAR,
            network=True,
            filesystem="readwrite",
            workspace_bytes=500 * MB,
            priority="high",
        ),
    }
)

Check = Callable[[Any], bool]


def _names(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) <= MAX_NAMES
        and all(
            isinstance(name, str) and 0 < len(name) <= MAX_NAME_LENGTH and "*" not in name[:-1]
            for name in value
        )
    )


def _whole(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> Check:
    return lambda value: type(value) in (int, float) and low <= value <= high


_CHECKS: Mapping[str, tuple[Check, str]] = MappingProxyType(
    {
        "tools": (_names, "a list of names, or beginnings of names that end in `*`"),
        "blocked_tools": (_names, "a list of names, or beginnings of names that end in `*`"),
        "agents": (_names, "a list of names, or beginnings of names that end in `*`"),
        "skills": (_names, "a list of names, or beginnings of names that end in `*`"),
        "concurrent_tasks": (_whole(0, 10_000), "a number from 0 to 10000"),
        "cpu_cores": (_number(0.1, 1024), "a number of cores from 0.1 to 1024"),
        "memory_bytes": (_whole(16 * MB, 2**50), "a size of at least 16 MB"),
        "seconds": (_number(1, 86_400), "a time from 1 to 86400 seconds"),
        "cost": (_whole(0, 10**15), "an amount of money"),
        "network": (lambda value: type(value) is bool, "true or false"),
        "filesystem": (lambda value: value in FILESYSTEMS, "`readonly` or `readwrite`"),
        "workspace_bytes": (_whole(0, 2**50), "a size in bytes"),
        "priority": (lambda value: value in PRIORITIES, "`low`, `normal` or `high`"),
    }
)


def profile(name: str, changes: Mapping[str, Any]) -> Profile:
    """The named profile but for `changes`, which are fields of `Profile`. Raises `Invalid`."""
    if name not in PROFILES:
        raise Invalid(f"profile must be one of {', '.join(PROFILES)}.", param="profile")
    checked: dict[str, Any] = {}
    for field, value in changes.items():
        check, words = _CHECKS.get(field, (None, ""))
        if check is None or not check(value):
            raise Invalid(
                f"profile.{field[:64]} must be {words}." if words else "There is no such bound.",
                param=f"profile.{field[:64]}",
            )
        checked[field] = tuple(value) if isinstance(value, list) else value
    return replace(PROFILES[name], **checked)


def to_row(given: Profile | None) -> dict[str, Any] | None:
    """As it is stored: whole, so that a later version's named profiles change no key."""
    if given is None:
        return None
    values = {field.name: getattr(given, field.name) for field in fields(Profile)}
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
    }


def from_row(row: dict[str, Any] | None) -> Profile | None:
    """As it was stored. What this version does not know of it is left out."""
    if row is None:
        return None
    known = {field.name for field in fields(Profile)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in row.items()
        if name in known
    }
    return Profile(**values)
