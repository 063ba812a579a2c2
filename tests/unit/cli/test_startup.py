"""What the command line and a server cost before they do anything: modules, not seconds."""

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


# What a server that is up to date can start without. Some of it comes with its first use.
NOT_TO_START = {
    "aiohttp",
    "alembic",
    "asyncpg",
    "claude_agent_sdk",
    "genai_prices",
    "httpx",
    "mcp",
    "sqlalchemy.orm",
    "stationmaster.http.routes.managed.app",
    "stationmaster.http.routes.openai.app",
}


def test_a_server_starts_without_what_it_may_never_need() -> None:
    script = "import json, sys, stationmaster.bootstrap; print(json.dumps([*sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert set(json.loads(done.stdout)) & NOT_TO_START == set()
