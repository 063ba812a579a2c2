"""What belongs to whom: each library, each table, the settings and the environment.

The order of the layers is import-linter's (`make check`); these are the rules it cannot say.
"""

import ast
import sys
from collections.abc import Iterator

import pytest

from stationmaster.settings import Settings
from stationmaster.settings.field import settings_of
from tests.architecture.sources import PACKAGE, Module, modules

EVERYWHERE = "everywhere"

# Each library we import, and the only places that may. A new library gets its line here.
LIBRARIES: dict[str, set[str]] = {
    "aiormq": {"jobs.rabbitmq"},
    "alembic": {"migrations"},
    "asyncpg": {"storage"},
    "boto3": {"settings.references"},
    "botocore": {"settings.references"},
    "claude_agent_sdk": {"agents.claude_code", "transcripts"},
    "cryptography": {"storage.sealing", "access"},
    "dotenv": {"settings"},
    "fastapi": {"http", "bootstrap"},
    "genai_prices": {"gateway"},
    "httptools": {"providers.upstream"},
    "httpx": {"client", "cli", "access.oidc_provider"},
    "jwt": {"access", "providers.vertex"},
    "mcp": {"agents.claude_code"},
    "msgspec": {EVERYWHERE},
    "pamqp": {"jobs.rabbitmq"},
    "prometheus_client": {"telemetry"},
    "pwdlib": {"access"},
    "pydantic": {"http", "settings"},
    "re2": {"calls"},
    "redis": {"cache", "jobs.redis_streams", "limits", "live"},
    "rich": {"cli"},
    "sqlalchemy": {
        "storage",
        "audit",
        "events",
        "jobs",
        "access",
        "budgets",
        "calls",
        "files",
        "idempotency",
        "responses",
        "batches",
        "sessions",
        "transcripts",
        "migrations",
    },
    "starlette": {"http", "bootstrap"},
    "structlog": {EVERYWHERE},
    "typer": {"cli"},
    "uvicorn": {"bootstrap"},
    "uvloop": {"bootstrap", "cli"},
    "yaml": {"settings"},
}


def each(found: Iterator[tuple[Module, str]]) -> list[str]:
    return sorted({f"{module.name} imports {name}" for module, name in found})


def test_each_library_stays_in_its_place() -> None:
    def strays() -> Iterator[tuple[Module, str]]:
        for module in modules():
            for name in {full.partition(".")[0] for full in module.imports()}:
                if name == PACKAGE or name in sys.stdlib_module_names:
                    continue
                places = LIBRARIES.get(name, set())
                if EVERYWHERE not in places and not any(map(module.inside, places)):
                    yield module, name

    assert each(strays()) == []


def test_no_line_above_is_out_of_use() -> None:
    used = {full.partition(".")[0] for module in modules() for full in module.imports()}
    assert sorted(set(LIBRARIES) - used) == []


def test_the_client_library_stands_aside() -> None:
    """It can be used without the server, and only the command line uses it here."""
    client = f"{PACKAGE}.client"

    def strays() -> Iterator[tuple[Module, str]]:
        for module in modules():
            for name in module.imports():
                ours = name.startswith(f"{PACKAGE}.") and name != f"{PACKAGE}.__version__"
                of_client = name == client or name.startswith(client + ".")
                if module.capability == "client" and ours and not of_client:
                    yield module, name
                if module.capability not in {"client", "cli"} and of_client:
                    yield module, name

    assert each(strays()) == []


def test_settings_are_read_by_bootstrap_alone() -> None:
    strays = (
        (module, name)
        for module in modules()
        for name in module.imports()
        if name.startswith(f"{PACKAGE}.settings")
        if module.capability not in {"settings", "bootstrap"}
    )
    assert each(strays) == []


def test_a_table_is_known_to_its_capability_and_to_migrations() -> None:
    def strays() -> Iterator[tuple[Module, str]]:
        for module in modules():
            for name in module.imports():
                parts = name.split(".")
                if parts[0] != PACKAGE or "tables" not in parts:
                    continue
                if module.capability not in {parts[1], "migrations"}:
                    yield module, name

    assert each(strays()) == []


@pytest.mark.parametrize("name", ["environ", "environb", "getenv", "putenv"])
def test_the_environment_is_read_in_two_places(name: str) -> None:
    # The command line hands the environment to the settings; nothing else looks at it.
    strays = [
        f"{module.name} line {node.lineno}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr == name
        if isinstance(node.value, ast.Name) and node.value.id == "os"
        if module.capability not in {"settings", "bootstrap", "cli"}
    ]
    assert strays == []


def test_every_setting_is_read_by_something() -> None:
    read = {
        node.attr
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
    } | {
        node.value.lower()
        for module in modules()
        if module.name in {"settings.derivation", "settings.loading"}
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert [item.name for item in settings_of(Settings) if item.name.lower() not in read] == []
