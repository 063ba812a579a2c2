"""What `doctor` tries. Each check changes nothing and names what to do."""

import asyncio
import os
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stationmaster.cli.finding import Check, Finding

if TYPE_CHECKING:
    from stationmaster.bootstrap.configuration import Settings

_DISK_FAIL = 512 * 1024**2  # bytes; below it /health is degraded too
_DISK_WARN = 5 * 1024**3
_AGENT_BYTES = 210 * 1024**2  # resident memory of one Claude Code, as measured
_SQLITE = "sqlite:///"
_INSTALL_SANDBOX = "Install bubblewrap and socat (apt-get install bubblewrap socat)."


async def agent(settings: "Settings") -> Finding:
    """Is there a Claude Code that starts?"""
    name = "agent"
    if settings.agent == "scripted":
        return Finding(name, "warn", "AGENT is scripted: tasks play a fixed script")
    from stationmaster.agents.claude_code.agent import bundled_cli

    path = bundled_cli()
    again = "Install claude-agent-sdk again; its wheel brings the CLI."
    if path is None:
        return Finding(name, "fail", "Claude Code's CLI is not there", again)
    with tempfile.TemporaryDirectory(prefix="stationmaster-doctor-") as home:
        process = await asyncio.create_subprocess_exec(
            str(path),
            "--version",
            env={"PATH": "/usr/bin:/bin", "HOME": home},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
    words = said.decode("utf-8", "replace").strip()[:200]
    if process.returncode != 0:
        return Finding(name, "fail", f"the CLI ends with {process.returncode}: {words}", again)
    return Finding(name, "ok", words)


async def sandbox(settings: "Settings") -> Finding:
    """Which rung of the sandbox do agents get? Found by running it."""
    name = "sandbox"
    if settings.agent == "scripted":
        return Finding(name, "ok", "not needed: the scripted agent runs no process")
    from stationmaster.agents.base import AgentFailure
    from stationmaster.agents.claude_code import ClaudeCodeAgent

    with tempfile.TemporaryDirectory(prefix="stationmaster-doctor-") as directory:
        tried = ClaudeCodeAgent(
            state_dir=_resolved(directory),
            sandbox=settings.sandbox,
            readonly_paths=settings.sandbox_readonly,
            agent_uid_base=settings.agent_uid_base,
        )
        try:
            found = await tried.probe()
        except AgentFailure as error:
            return Finding(name, "fail", error.message, _INSTALL_SANDBOX)
        finally:
            await tried.aclose()
    if found.rung == "bubblewrap":
        return Finding(name, "ok", "bubblewrap works")
    advice = _INSTALL_SANDBOX if settings.sandbox != "off" else "Set SANDBOX=auto or require."
    return Finding(name, "warn", f"only the rung {found.rung}: {found.reason}", advice)


async def database(settings: "Settings") -> Finding:
    """Can the database be reached, and does its schema fit?"""
    from stationmaster.kernel.errors import StationmasterError
    from stationmaster.migrations import HEAD, current

    name, url = "database", settings.database_url.get_secret_value()
    if url.startswith(_SQLITE):
        path = Path(url.removeprefix(_SQLITE))
        if (new := await asyncio.to_thread(_new_sqlite, path)) is not None:
            return new
        shown = f"SQLite at {path}"
    else:
        parts = urlsplit(url)
        shown = f"PostgreSQL at {parts.hostname}{parts.path}"
    try:
        found = await current(url)
    except StationmasterError as error:
        return Finding(name, "fail", error.message, "Start it, or mend DATABASE_URL.")
    if found is None:
        return Finding(name, "ok", f"{shown}, still empty; the first start fills it")
    if found == HEAD:
        return Finding(name, "ok", f"{shown}, schema {found}")
    if found < HEAD:
        advice = "Make a backup; `stationmaster migrate` or the next start brings it up to date."
        return Finding(name, "warn", f"{shown}, schema {found} of an older version", advice)
    return Finding(
        name, "fail", f"{shown}, schema {found} of a newer version", "Start that version."
    )


def _new_sqlite(path: Path) -> Finding | None:
    if path.exists():
        return None
    # Connecting would make the file.
    parent = _existing(path.parent)
    if os.access(parent, os.W_OK | os.X_OK):
        return Finding("database", "ok", f"SQLite at {path}, made at the first start")
    return Finding(
        "database", "fail", f"{parent} cannot be written", "Change its owner, or set DATA_DIR."
    )


async def disk(settings: "Settings") -> Finding:
    """Is there room for workspaces, and may they be written?"""
    name, path = "disk", _existing(settings.workspace_dir)
    if not os.access(path, os.W_OK | os.X_OK):
        return Finding(name, "fail", f"{path} cannot be written", "Set WORKSPACE_DIR elsewhere.")
    free = (await asyncio.to_thread(shutil.disk_usage, path)).free
    shown = f"{free / 1024**3:.1f} GB free at {path}"
    if free < _DISK_FAIL:
        return Finding(name, "fail", shown, "Make room, or set WORKSPACE_DIR elsewhere.")
    if free < _DISK_WARN:
        return Finding(name, "warn", shown, "Workspaces hold up to WORKSPACE_QUOTA each.")
    return Finding(name, "ok", shown)


async def memory(settings: "Settings") -> Finding:
    """Is there memory for all agents at once?"""
    name, wanted = "memory", settings.max_workers * _AGENT_BYTES
    free = await asyncio.to_thread(_available)
    if free is None:
        return Finding(name, "ok", "the system does not tell")
    shown = f"{free / 1024**3:.1f} GB available for {settings.max_workers} agents at once"
    if free < wanted:
        return Finding(name, "warn", shown, f"Set MAX_WORKERS to {max(1, free // _AGENT_BYTES)}.")
    return Finding(name, "ok", shown)


def _available() -> int | None:
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


async def model(settings: "Settings") -> Finding:
    """Does the model provider answer, and take the key? Costs nothing."""
    name, key = "model", settings.anthropic_api_key
    if settings.provider == "offline" or key is None:
        return Finding(
            name,
            "warn",
            "offline: a built-in script answers, not a language model",
            "Set ANTHROPIC_API_KEY for Claude.",
        )
    import httpx

    base = settings.anthropic_base_url
    headers = {"x-api-key": key.get_secret_value(), "anthropic-version": "2023-06-01"}
    try:
        async with httpx.AsyncClient(timeout=settings.connect_timeout) as client:
            answer = await client.get(f"{base}/v1/models", params={"limit": 1}, headers=headers)
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        return Finding(name, "fail", f"{base} does not answer: {why}", "Check ANTHROPIC_BASE_URL.")
    if answer.status_code in {401, 403}:
        return Finding(name, "fail", f"{base} refuses the key", "Check ANTHROPIC_API_KEY.")
    return Finding(name, "ok", f"{base} answers ({answer.status_code})")


async def port(settings: "Settings") -> Finding:
    """Is the address free?"""
    name, shown = "port", f"{settings.host}:{settings.port}"
    try:
        family, kind, *_, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        why = error.strerror or str(error)
        return Finding(name, "warn", f"{shown}: {why}", "A server may run there; else set PORT.")
    return Finding(name, "ok", f"{shown} is free")


def _resolved(directory: str) -> Path:
    return Path(directory).resolve()  # the sandbox refuses paths through links


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


ALL: dict[str, Check] = {
    "agent": agent,
    "sandbox": sandbox,
    "database": database,
    "disk": disk,
    "memory": memory,
    "model": model,
    "port": port,
}
