"""The programs that benchmarks start: found, or missed by name."""

import shutil
from pathlib import Path

HINT = "scripts/install-bench-tools installs it"


class MissingProgramError(Exception):
    """A program that a benchmark needs is not installed."""


def require(name: str) -> str:
    """The path of a program. Raises `MissingProgramError`."""
    # Debian keeps some of them where only root's PATH looks.
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        raise MissingProgramError(f"{name} is missing; {HINT}")
    return found


def require_cli() -> Path:
    """The Claude Code CLI that the server runs. Raises `MissingProgramError`."""
    from stationmaster.agents.claude_code.agent import bundled_cli

    found = bundled_cli()
    if found is None:
        raise MissingProgramError("The Claude Code CLI is missing; `make setup` installs it")
    return found
