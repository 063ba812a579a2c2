"""The guide has every command, option and exit code."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from stationmaster.cli.application import build
from stationmaster.cli.exits import Exit

GUIDE = (Path(__file__).parents[3] / "docs" / "guides" / "cli.md").read_text(encoding="utf-8")


def commands(command: Any, *path: str) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", {})
    for name, each in below.items():
        yield from commands(each, *path, name)
    if not below:
        yield " ".join(path), command


def test_every_command_is_in_the_guide() -> None:
    found = [name for name, _ in commands(typer.main.get_command(build()))]
    assert len(found) > 40
    assert [name for name in found if f"`{name}" not in GUIDE] == []


def test_every_option_is_in_the_guide() -> None:
    missing = {
        f"{name} {option}"
        for name, command in commands(typer.main.get_command(build()))
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--") and option not in {"--help"}
        if not re.search(rf"`{option}[ `]|{option} ", GUIDE)
    }
    assert missing == set()


@pytest.mark.parametrize("code", list(Exit))
def test_every_exit_code_is_in_the_guide(code: Exit) -> None:
    assert re.search(rf"^\| {int(code)} \|", GUIDE, re.MULTILINE)


def test_every_command_says_what_it_does() -> None:
    silent = [name for name, each in commands(typer.main.get_command(build())) if not each.help]
    assert silent == []
