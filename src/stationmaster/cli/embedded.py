"""A server of the command's own, in this process, for one task."""

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from stationmaster.cli.target import Target

_SHUTDOWN = "5s"


@dataclass(frozen=True, slots=True)
class Embedded:
    """It runs until the block ends. `warnings` are for the person, a sentence each."""

    target: Target
    warnings: Sequence[str]


@asynccontextmanager
async def embedded(data_dir: Path | None) -> AsyncIterator[Embedded]:
    """Start a server on a free loopback port. None keeps nothing of it afterwards.

    The provider and the limits are those of the settings; database, workspaces and keys are not:
    a single task must not end up in another server's book by accident.
    """
    if data_dir is not None:
        async with _started(data_dir) as found:
            yield found
        return
    directory = tempfile.TemporaryDirectory(prefix="stationmaster-run-", ignore_cleanup_errors=True)
    try:
        async with _started(Path(directory.name)) as found:
            yield found
    finally:
        await asyncio.to_thread(directory.cleanup)


@asynccontextmanager
async def _started(data_dir: Path) -> AsyncIterator[Embedded]:
    data_dir = await asyncio.to_thread(data_dir.resolve)  # the sandbox refuses links on the way
    from stationmaster.bootstrap import listening
    from stationmaster.cli.settings import load, start_logging

    key = f"sm_key_{secrets.token_hex(24)}"
    settings = load(
        {
            "HOST": "127.0.0.1",
            "PORT": "0",
            "DATA_DIR": str(data_dir),
            "DATABASE_URL": f"sqlite:///{data_dir / 'stationmaster.db'}",
            "DATABASE_PATH": str(data_dir / "stationmaster.db"),
            "WORKSPACE_DIR": str(data_dir / "workspaces"),
            "API_KEY_ENABLED": "true",
            "ADMIN_API_KEY": key,
            "SHUTDOWN_TIMEOUT": _SHUTDOWN,
            "LOG_LEVEL": "error",
            "LOG_FORMAT": "console",
        }
    )
    redactor = start_logging(settings)
    async with listening(settings, redactor=redactor) as server:
        yield Embedded(Target(server.url, key), server.application.warnings)
