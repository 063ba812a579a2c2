"""Sizes and habits that keep a module readable and an import free of effects."""

import ast
import subprocess
import sys
from collections.abc import Iterator

from tests.architecture.sources import SOURCE, Module, modules

LONGEST_MODULE = 500  # lines; aim for 400, and for 150 in the middle
LONGEST_FUNCTION = 80  # lines; aim for 60
ATTICS = {"util", "utils", "common", "helpers", "misc"}  # what has no name of its own
HEAPS = {"models", "schemas", "services"}  # packages by kind instead of by capability
ENTRY_POINTS = {"__main__", "migrations.env"}  # running is what they are for
FIXED = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Expr)


def test_modules_are_short() -> None:
    long = {module.name: module.lines for module in modules() if module.lines > LONGEST_MODULE}
    assert long == {}


def test_functions_are_short() -> None:
    long = {
        f"{module.name}.{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
        if node.name not in {"upgrade", "downgrade"}  # a migration is one list of statements
    }
    assert long == {}


def test_files_are_named_for_nouns_with_a_life() -> None:
    parts = {module.name: set(module.name.split(".")) for module in modules()}
    assert [name for name, found in parts.items() if found & ATTICS] == []
    packages = {name: set(name.split(".")[:-1]) for name in parts}
    assert [name for name, found in packages.items() if found & HEAPS] == []


def test_no_function_rebinds_a_global() -> None:
    found = [
        f"{module.name} line {node.lineno}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Global)
    ]
    assert found == []


def test_no_statement_runs_at_import() -> None:
    def effects() -> Iterator[str]:
        for module in modules():
            if module.name in ENTRY_POINTS:
                continue
            for node in module.tree.body:
                if not _harmless(node):
                    yield f"{module.name} line {node.lineno}"

    assert list(effects()) == []


def _harmless(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    return isinstance(node, (*FIXED, ast.Assign, ast.AnnAssign))


def test_every_module_says_what_it_is() -> None:
    silent = [module.name for module in modules() if not _documented(module)]
    assert silent == []


def _documented(module: Module) -> bool:
    # An empty __init__ that only makes a directory a package has nothing to say.
    return ast.get_docstring(module.tree) is not None or not module.tree.body


def test_importing_everything_starts_nothing() -> None:
    names = [
        f"stationmaster.{module.name}".rstrip(".")
        for module in modules()
        if module.name not in ENTRY_POINTS
        if not module.name.startswith("migrations.versions")
    ]
    script = (
        "import asyncio, importlib, sys, threading\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert not [h for h in __import__('logging').getLogger().handlers], 'a log handler'\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", script, *names],
        cwd=SOURCE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
