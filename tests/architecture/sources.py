"""The modules of the package and what each imports, read from their text."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = "stationmaster"
ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / PACKAGE


@dataclass(frozen=True)
class Module:
    """One file of the package. `name` is without the package: `gateway.dispatch`."""

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def capability(self) -> str:
        return self.name.partition(".")[0]

    def inside(self, place: str) -> bool:
        return self.name == place or self.name.startswith(place + ".")

    def imports(self) -> Iterator[str]:
        """Every module imported, anywhere in the file; `from a import b` gives `a` and `a.b`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def modules() -> tuple[Module, ...]:
    return tuple(_read(path) for path in sorted(SOURCE.rglob("*.py")))


def _read(path: Path) -> Module:
    text = path.read_text(encoding="utf-8")
    parts = path.relative_to(SOURCE).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, ast.parse(text), text.count("\n"))
