"""The documentation's pages and what they point at."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
"""A test, as a page names it: its file and its function."""

_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@cache
def pages() -> tuple[Path, ...]:
    return (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))


def links(page: Path) -> Iterator[str]:
    """Targets of links in a page's prose."""
    yield from _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """The names that headings can be linked by, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in _HEADING.findall(text)
    }


def missing_tests(page: Path) -> list[str]:
    """Tests that a page names and that are not there."""
    missing = []
    for path, name in NAMED.findall(page.read_text(encoding="utf-8")):
        file = ROOT / path
        tree = ast.parse(file.read_text(encoding="utf-8")) if file.exists() else ast.parse("")
        kinds = ast.FunctionDef | ast.AsyncFunctionDef
        if not any(isinstance(node, kinds) and node.name == name for node in ast.walk(tree)):
            missing.append(f"{path}::{name}")
    return missing
