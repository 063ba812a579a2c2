"""The page of threats names tests that exist, for every threat."""

import ast

from tests.docs.pages import NAMED, ROOT, missing_tests

PAGE = ROOT / "docs" / "threats.md"


def rows() -> list[list[str]]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    cells = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return [
        row for row in cells if not set("".join(row)) <= {"-"} and row[-1].strip() != "shown by"
    ]


def test_every_test_that_is_named_exists() -> None:
    assert missing_tests(PAGE) == []


def test_every_threat_has_a_test_or_says_why_not() -> None:
    assert len(rows()) > 40
    bare = [row[0] for row in rows() if not NAMED.search(row[-1]) and "yet" not in row[1]]
    assert bare == []


def test_every_test_of_the_threats_is_on_the_page() -> None:
    named = {name for _, name in NAMED.findall(PAGE.read_text(encoding="utf-8"))}
    silent = [
        f"{file.name}::{node.name}"
        for file in sorted((ROOT / "tests" / "threats").glob("test_*.py"))
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.startswith("test_") and node.name not in named
    ]
    assert silent == []
