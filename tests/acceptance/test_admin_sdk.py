"""Anthropic's Admin API by the official TypeScript SDK, typed and compiled, against a real server.

Every route of it is called by the SDK, and its reports are the ledger to the micro-dollar.
The Python SDK's calls are in `tests/http/test_admin_api.py`.
"""

import json
import re
from pathlib import Path

import pytest

from tests.support import node
from tests.support.server import ADMIN_KEY, ServerProcess

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
OURS = ("POST", "/v1/organizations/spend_limit_increase_requests")
USER_KEY = "user-key-for-tests-0123456789"


async def test_the_typescript_sdk_manages_the_organisation(tmp_path: Path) -> None:
    project = tmp_path / "node"
    await node.prepared(project)
    env = {"PROVIDER": "offline", "AGENT": "scripted", "API_KEYS": USER_KEY}
    async with ServerProcess(tmp_path, env) as server:
        keys = {"BASE_URL": server.url, "API_KEY": ADMIN_KEY, "USER_KEY": USER_KEY}
        told = await node.run(project, "node", "out/admin.js", env=keys)
    assert told.splitlines()[-1] == "admin: ok"
    asked = [line.removeprefix("asked: ") for line in told.splitlines() if "asked: " in line]
    silent = [
        f"{method} {path}"
        for method, path in _routes()
        if not any(re.fullmatch(f"{method} {_pattern(path)}", each) for each in asked)
    ]
    assert silent == []


def _routes() -> list[tuple[str, str]]:
    """Every route of the Admin API but the one that is ours."""
    document = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
    found = [
        (method.upper(), path)
        for path, operations in document["paths"].items()
        if path.startswith("/v1/organizations/")
        for method in operations
    ]
    assert len(found) > 40
    return [each for each in found if each != OURS]


def _pattern(path: str) -> str:
    return re.sub(r"\{\w+\}", "[^/]+", path)
