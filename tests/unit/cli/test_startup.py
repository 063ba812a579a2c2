"""What the command line costs before it does anything: modules counted, not seconds."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "aiohttp",
    "alembic",
    "claude_agent_sdk",
    "fastapi",
    "httpx",
    "pydantic",
    "rich",
    "sqlalchemy",
    "starlette",
    "structlog",
    "uvicorn",
    "yaml",
}
MOST_MODULES = 260  # Python itself and Typer are about 200


def modules_after(*arguments: str) -> set[str]:
    script = (
        "import json, sys\n"
        "from stationmaster.cli.application import run\n"
        "code = run(sys.argv[1:])\n"
        "print('\\n' + json.dumps([code, *sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    code, *names = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    return set(names)


def heavy(loaded: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in loaded} & HEAVY


def test_help_loads_nothing_heavy() -> None:
    loaded = modules_after("--help")
    assert heavy(loaded) == set()
    assert len(loaded) < MOST_MODULES


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["version"], ["run", "--help"], ["tasks", "list", "--help"]],
    ids=" ".join,
)
def test_commands_load_what_they_need(arguments: list[str]) -> None:
    # Typer checks the values of options with pydantic; nothing of ours may add to that.
    assert heavy(modules_after(*arguments)) <= {"pydantic"}
