"""Who may come from where, with which models, and what a profile allows."""

import ipaddress
from dataclasses import replace

import pytest

from stationmaster.access.profiles import PROFILES, from_row, profile, to_row
from stationmaster.access.roles import is_operator
from stationmaster.kernel.errors import Denied, Invalid
from stationmaster.kernel.principal import Owner, Principal

ANYBODY = Principal("key", "key_1", Owner("org_1", "proj_1"), "key_1", frozenset({"*"}))


def come_from(*networks: str) -> Principal:
    return replace(ANYBODY, networks=tuple(map(ipaddress.ip_network, networks)))


@pytest.mark.parametrize(
    ("networks", "address", "allowed"),
    [
        ((), None, True),
        ((), "203.0.113.1", True),
        (("192.0.2.0/24",), "192.0.2.9", True),
        (("192.0.2.0/24",), "192.0.3.9", False),
        (("192.0.2.0/24", "2001:db8::/32"), "2001:db8::1", True),
        (("192.0.2.0/24",), "::ffff:192.0.2.9", True),  # the same address by another name
        (("192.0.2.0/24",), "::ffff:192.0.3.9", False),
        (("192.0.2.0/24",), None, False),
        (("192.0.2.0/24",), "", False),
        (("192.0.2.0/24",), "192.0.2.9, 203.0.113.1", False),
        (("192.0.2.0/24",), "localhost", False),
        (("0.0.0.0/0",), "203.0.113.1", True),
        (("0.0.0.0/0",), "2001:db8::1", False),
    ],
)
def test_where_a_credential_may_come_from(
    networks: tuple[str, ...], address: str | None, allowed: bool
) -> None:
    principal = come_from(*networks)
    if allowed:
        principal.require_address(address)
        return
    with pytest.raises(Denied) as caught:
        principal.require_address(address)
    assert caught.value.error_code == "address_not_allowed"


@pytest.mark.parametrize(
    ("models", "names", "allowed"),
    [
        (None, ("anything",), True),
        ((), ("haiku",), False),
        (("haiku",), ("haiku", "claude-haiku-5-5"), True),
        (("claude-haiku-5-5",), ("haiku", "claude-haiku-5-5"), True),
        (("claude-haiku-*",), ("haiku", "claude-haiku-5-5"), True),
        (("claude-haiku-*",), ("claude-opus-5-5",), False),
        (("*",), ("anything",), True),
        (("opus",), ("claude-opus-5-5",), False),
        (("claude-opus[1m]",), ("claude-opus[1m]",), True),
    ],
)
def test_which_models_it_may_use(
    models: tuple[str, ...] | None, names: tuple[str, ...], allowed: bool
) -> None:
    principal = replace(ANYBODY, models=None if models is None else frozenset(models))
    if allowed:
        principal.require_model(*names)
        return
    with pytest.raises(Denied) as caught:
        principal.require_model(*names)
    assert caught.value.error_code == "model_not_allowed"


@pytest.mark.parametrize(
    ("name", "changes", "tools"),
    [
        ("free", {}, {"Read"}),
        ("pro", {}, {"Read", "Bash"}),
        ("pro", {"tools": ["*"]}, {"Read", "Bash", "mcp__docs__find"}),
        ("enterprise", {}, {"Read", "Bash", "Write", "WebFetch", "mcp__docs__find"}),
        ("enterprise", {"network": False}, {"Read", "Bash", "Write", "mcp__docs__find"}),
        ("enterprise", {"blocked_tools": ["mcp__*"]}, {"Read", "Bash", "Write", "WebFetch"}),
        ("free", {"tools": ["Bash"], "filesystem": "readwrite"}, set()),  # blocked all the same
    ],
)
def test_which_tools_a_profile_allows(
    name: str, changes: dict[str, object], tools: set[str]
) -> None:
    made = profile(name, changes)
    every = ("Read", "Bash", "Write", "WebFetch", "mcp__docs__find")
    assert {tool for tool in every if made.allows_tool(tool)} == tools


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gold", {}),
        ("pro", {"tool": ["Read"]}),
        ("pro", {"name": "other"}),
        ("pro", {"tools": "Read"}),
        ("pro", {"tools": ["a*b"]}),
        ("pro", {"tools": ["x"] * 101}),
        ("pro", {"concurrent_tasks": True}),
        ("pro", {"concurrent_tasks": -1}),
        ("pro", {"cpu_cores": float("nan")}),
        ("pro", {"seconds": 0}),
        ("pro", {"network": 1}),
        ("pro", {"filesystem": "none"}),
        ("pro", {"memory_bytes": 1}),
    ],
)
def test_profiles_that_are_none(name: str, changes: dict[str, object]) -> None:
    with pytest.raises(Invalid) as caught:
        profile(name, changes)
    assert (caught.value.param or "").startswith("profile")


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_kept_whole_and_a_newer_field_of_it_left_out(name: str) -> None:
    row = to_row(PROFILES[name])
    assert row is not None
    assert from_row(row) == PROFILES[name]
    assert from_row({**row, "of_a_later_version": 1}) == PROFILES[name]


def test_a_tenants_master_key_is_not_the_operators() -> None:
    assert not is_operator(ANYBODY)
    operator = replace(ANYBODY, owner=Owner("org_default", "proj_default"))
    assert is_operator(operator)
    assert not is_operator(replace(operator, scopes=frozenset({"admin:*", "read:*"})))
    assert not is_operator(replace(operator, kind="run"))
