"""Scopes: names, wildcards, what two sets grant together; and that every one in use is known."""

import ast
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stationmaster
from stationmaster.access.roles import ORGANIZATION_SCOPES, PROJECT_SCOPES, effective
from stationmaster.access.scopes import ALIASES, SCOPES, expand, narrow, nearest, parse
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.principal import Owner, Principal

ACTIONS = sorted({name.partition(":")[0] for name in SCOPES})
RESOURCES = sorted({name.partition(":")[2] for name in SCOPES})
WRITTEN = st.one_of(
    st.sampled_from(sorted(SCOPES)),
    st.sampled_from(ACTIONS).map(lambda action: f"{action}:*"),
    st.sampled_from(RESOURCES).map(lambda resource: f"*:{resource}"),
    st.sampled_from(["*", "use:skills.pdf", "use:mcp.docs"]),
)
SETS = st.frozensets(WRITTEN, max_size=5)


def who(scopes: frozenset[str]) -> Principal:
    return Principal("key", "k", Owner("o", "p"), "k", scopes)


@given(SETS, SETS)
def test_what_two_sets_grant_together_is_what_each_grants(
    one: frozenset[str], other: frozenset[str]
) -> None:
    together = who(narrow(one, other))
    for scope in (*SCOPES, "own:everything"):
        assert together.may(scope) == (who(one).may(scope) and who(other).may(scope)), scope


@given(SETS.filter(bool))
def test_what_is_written_is_understood_and_stays_as_it_is(scopes: frozenset[str]) -> None:
    assert parse(scopes) == scopes
    for scope in scopes:
        assert expand(scope)


@given(st.text(max_size=80))
def test_what_is_no_scope_is_refused_with_one_that_is(text: str) -> None:
    if text in ALIASES or expand(text):
        assert parse([text])
        return
    with pytest.raises(Invalid) as caught:
        parse([text])
    assert caught.value.param == "scopes"
    assert parse([nearest(text)])


def test_every_scope_that_is_asked_for_is_known() -> None:
    asked = set()
    for path in Path(stationmaster.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            asked |= _asked(node)
    asked = {scope for scope in asked if "://" not in scope}  # others have scopes too
    assert asked, "the search finds none at all"
    assert asked <= set(SCOPES) | {"*"}, "a scope is asked for that no key can be given"


def _asked(node: ast.AST) -> set[str]:
    """Scopes in `x.require("…")`, `x.may("…")` and `SCOPE = "…"`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        values = node.args if node.func.attr in {"require", "may"} else []
    elif isinstance(node, ast.Assign):
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        values = [node.value] if any(name.endswith("SCOPE") for name in names) else []
    else:
        values = []
    return {
        value.value
        for value in values
        if isinstance(value, ast.Constant) and isinstance(value.value, str) and ":" in value.value
    }


@pytest.mark.parametrize("roles", [ORGANIZATION_SCOPES, PROJECT_SCOPES])
def test_a_role_is_a_set_of_scopes_and_each_has_less_than_the_one_above(
    roles: dict[str, frozenset[str]],
) -> None:
    order = [role for role in ("owner", "admin", "member", "viewer") if role in roles]
    for above, below in pairwise(order):
        more = {scope for scope in SCOPES if who(roles[above]).may(scope)}
        less = {scope for scope in SCOPES if who(roles[below]).may(scope)}
        assert less < more
    for role in order:
        assert parse(roles[role]) == roles[role]


def test_a_projects_admin_does_not_reach_beyond_it() -> None:
    admin = who(PROJECT_SCOPES["admin"])
    assert admin.may("admin:keys")
    for scope in ("admin:organization", "admin:members", "admin:audit", "own:organization"):
        assert not admin.may(scope)


@pytest.mark.parametrize(
    ("role", "default", "in_project", "may"),
    [
        ("owner", False, None, {"own:organization", "write:tasks"}),
        ("admin", False, "viewer", {"admin:organization", "write:tasks"}),
        ("member", True, None, {"write:tasks", "read:tasks"}),
        ("member", False, None, set()),
        ("member", False, "viewer", {"read:tasks"}),
        ("viewer", False, "member", {"write:tasks", "read:tasks"}),
        ("member", True, "viewer", {"read:tasks"}),
        ("viewer", True, None, {"read:tasks"}),
    ],
)
def test_what_a_role_is_in_a_project(
    role: str, default: bool, in_project: str | None, may: set[str]
) -> None:
    person = who(effective(role, default_project=default, project_role=in_project))
    probed = {"own:organization", "admin:organization", "write:tasks", "read:tasks"}
    granted = {scope for scope in probed if person.may(scope)}
    assert may <= granted
    if "admin:organization" not in may and "own:organization" not in may:
        assert granted == may
