"""No regular expression of ours takes more than linear time, whatever text it is given."""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.architecture.sources import Module, modules
from tests.threats.backtracking import Counting, TooManyStepsError, attacks

SHORT, LONG = 12, 24  # repetitions of a piece
LINEAR = 2.5  # as many steps for twice the text: 2 where it is linear, 4 where it is quadratic
MOST = 30_000  # steps
SEARCHING = {"search", "findall", "finditer", "sub", "subn", "split"}
METHODS = SEARCHING | {"match", "fullmatch"}

PASSED_OVER = ("settings", "cli.demo", "migrations", "__main__")
"""The patterns in these see an operator's own words alone."""

Found = tuple[str, str, "re.Pattern[Any]"]


def found(capability: str) -> Iterator[Found]:
    """Each pattern of a package with its module, and `search`, `match` or `fullmatch`."""
    for module in modules():
        if module.capability != capability or module.name.startswith(PASSED_OVER):
            continue
        loaded = importlib.import_module(f"stationmaster.{module.name}".rstrip("."))
        for name, value in vars(loaded).items():
            if isinstance(value, re.Pattern) and _assigned(module, name):
                yield module.name, _use(module, name), value
        for node in ast.walk(module.tree):
            yield from _inline(module, node)


def _assigned(module: Module, name: str) -> bool:
    """Whether it is made here and not imported."""
    return any(
        isinstance(node, ast.Assign | ast.AnnAssign)
        and any(
            isinstance(target, ast.Name) and target.id == name
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        )
        for node in module.tree.body
    )


def _use(module: Module, name: str) -> str:
    """The use of it that takes longest."""
    used = {
        node.attr
        for each in (modules() if not name.startswith("_") else (module,))
        for node in ast.walk(each.tree)
        if isinstance(node, ast.Attribute)
        if ast.unparse(node.value).rpartition(".")[2] == name
    }
    if used & SEARCHING:
        return "search"
    return "match" if "match" in used else "fullmatch"


def _inline(module: Module, node: ast.AST) -> Iterator[Found]:
    """Patterns that are written where they are used, pydantic's included."""
    if not isinstance(node, ast.Call):
        return
    for keyword in node.keywords:
        if keyword.arg == "pattern" and isinstance(keyword.value, ast.Constant):
            yield module.name, "fullmatch", re.compile(str(keyword.value.value))
    function = ast.unparse(node.func)
    if function.startswith("re.") and function[3:] in METHODS:
        first = node.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            use = "search" if function[3:] in SEARCHING else function[3:]
            yield module.name, use, re.compile(first.value)


def steps(pattern: "re.Pattern[Any]", use: str, text: list[int]) -> int:
    counting = Counting(pattern, text, MOST)
    try:
        if use == "search":
            counting.search()
        else:
            counting.match(0, full=use == "fullmatch")
    except TooManyStepsError:
        return MOST
    return counting.steps


def weakness(pattern: "re.Pattern[Any]", use: str) -> str | None:
    """A piece that, repeated, takes more than linear time; None where none was found."""
    for piece in attacks(pattern):
        # Behind it something that does not fit: what matches at once takes no time.
        long = steps(pattern, use, piece * LONG + [33])
        if long == MOST or long > LINEAR * steps(pattern, use, piece * SHORT + [33]):
            return "".join(map(chr, piece))
    return None


@pytest.fixture(autouse=True)
def _deep() -> Iterator[None]:
    """The matcher calls itself for each character."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize("capability", sorted({module.capability for module in modules()}))
def test_twice_the_text_is_twice_the_time(capability: str) -> None:
    slow = [
        f"{module}: {pattern.pattern!r} to {use}, by {piece!r}"
        for module, use, pattern in found(capability)
        if (piece := weakness(pattern, use)) is not None
    ]
    assert slow == []


def test_what_is_slow_is_known_as_such() -> None:
    for pattern, use in (
        (r"(a+)+$", "match"),
        (r"(a|a)*b", "match"),
        (r"a*a*a*b", "match"),
        (r"<b>.*?</b>", "search"),
        (r"\s+$", "search"),
        (r"a+b", "search"),
    ):
        assert weakness(re.compile(pattern), use) is not None, pattern
    for pattern in (r"[a-z]{2,12}_[0-9a-z]{26}", r"(?:a++b?)++c", r"(?<=a)b+c?"):
        assert weakness(re.compile(pattern), "fullmatch") is None, pattern
