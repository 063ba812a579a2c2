"""The official TypeScript SDKs: a project with them, compiled, and its programs run."""

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.support.services import missing

SOURCES = Path(__file__).resolve().parents[1] / "acceptance" / "node"
SECONDS = 240.0


async def prepared(project: Path, *, types: bool = True) -> None:
    """Make the project in a directory that does not exist yet. Missing without node and npm.

    To check all types takes most of the time: without `types` it is left to who does.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing("node")
    shutil.copytree(SOURCES, project, ignore=shutil.ignore_patterns("node_modules", "out"))
    await run(project, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
    unchecked = () if types else ("--noCheck",)
    await run(project, "node", "node_modules/typescript/bin/tsc", "-p", ".", *unchecked)


async def run(directory: Path, *command: str, env: Mapping[str, str] | None = None) -> str:
    """What a command writes. Fails with that where the command does."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
        env={**os.environ, **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SECONDS):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    words = told.decode(errors="replace")
    assert process.returncode == 0, words
    return words
