"""Anthropic's Admin API by the official TypeScript SDK, typed and compiled, against a real server.

The Python SDK's calls are in `tests/http/test_admin_api.py`.
"""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from tests.support.server import ADMIN_KEY, ServerProcess
from tests.support.services import missing

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

NODE = Path(__file__).parent / "node"
NODE_SECONDS = 240.0
USER_KEY = "user-key-for-tests-0123456789"


async def test_the_typescript_sdk_manages_the_organisation(tmp_path: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing("node")
    project = tmp_path / "node"
    shutil.copytree(NODE, project)
    await _run(project, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
    await _run(project, "node", "node_modules/typescript/bin/tsc", "-p", ".")
    env = {"PROVIDER": "offline", "AGENT": "scripted", "API_KEYS": USER_KEY}
    async with ServerProcess(tmp_path, env) as server:
        keys = {"BASE_URL": server.url, "API_KEY": ADMIN_KEY, "USER_KEY": USER_KEY}
        told = await _run(project, "node", "out/admin.js", env=keys)
    assert told.splitlines()[-1] == "admin: ok"


async def _run(directory: Path, *command: str, env: dict[str, str] | None = None) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
        env={**os.environ, **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(NODE_SECONDS):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    words = told.decode(errors="replace")
    assert process.returncode == 0, words
    return words
