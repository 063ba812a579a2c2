"""An agent's history: put back where the CLI looks for it, and mirrored while it grows.

The CLI finds a history by its id and by the directory that it works in, below its own directory in
the home. The home is the agent's: nothing here follows a link in it.
"""

import asyncio
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog
from claude_agent_sdk import (
    SessionKey,
    SessionStoreEntry,
    project_key_for_directory,
)

from stationmaster.agents.base import (
    AgentHistoryLost,
    AgentHistoryMissing,
    AgentUnavailable,
    LaunchSpec,
    TranscriptSink,
)
from stationmaster.agents.claude_code.mask import Mask
from stationmaster.kernel.errors import StationmasterError

_log = structlog.get_logger(__name__)

_METADATA = "agent_metadata"
_PART = re.compile(r"[A-Za-z0-9_-]{1,128}")
_MAX_PARTS = 8

Entry = dict[str, Any]


class Mirror:
    """The part of the SDK's session store that is written to, for the one session of an agent."""

    def __init__(self, sink: TranscriptSink, session: str, *, mask: Mask | None = None) -> None:
        """`mask` hides what must not be kept."""
        self._mask = mask
        self._sink = sink
        self._session = session
        self._stopped = False
        self._reason: Exception | None = None

    def stop(self) -> AgentHistoryLost:
        """Keep no more: without what is lost the rest is no history. Returns why it is."""
        self._stopped = True
        if isinstance(self._reason, StationmasterError):
            return AgentHistoryLost(self._reason.message, code=self._reason.error_code)
        return AgentHistoryLost()

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Pass them on. What is not this agent's session is dropped: it may say anything."""
        subpath = key.get("subpath")
        if self._stopped:
            return
        if key["session_id"] != self._session or not (subpath is None or _parts(subpath)):
            _log.warning("An agent wrote into a history that is not its own; it is not kept.")
            return
        kept: list[Entry] = [dict(entry) for entry in entries]
        if self._mask is not None:
            kept = self._mask.value(kept)
        try:
            await self._sink.append(self._session, subpath, kept)
        except Exception as error:
            self._reason = error
            raise


async def restore(spec: LaunchSpec) -> None:
    """Put the history of `spec.resume` where the CLI will look.

    Raises `AgentHistoryMissing`, or `AgentUnavailable` where the id of a new history is taken.
    """
    sink, resume, new = spec.transcripts, spec.resume, spec.agent_session_id
    place = (".claude", "projects", project_key_for_directory(spec.directory or spec.workspace))
    if sink is None:
        if resume is not None:
            await asyncio.to_thread(_check_file, spec.home, place, resume, spec.resume_at)
        return
    if new is not None and new != resume and await sink.load(new, None):
        raise AgentUnavailable(
            "There is a history of this id already.", code="agent_history_exists"
        )
    if resume is not None:
        found = await _load(sink, resume)
        _check(found[(f"{resume}.jsonl",)], spec.resume_at)
        await asyncio.to_thread(_write, spec.home, place, found)


async def _load(sink: TranscriptSink, session: str) -> dict[tuple[str, ...], list[Entry]]:
    """The files of a history: what stands in them, by their place in the project's directory."""
    entries = await sink.load(session, None)
    if not entries:
        raise AgentHistoryMissing
    files: dict[tuple[str, ...], list[Entry]] = {(f"{session}.jsonl",): entries}
    for subpath in await sink.subpaths(session):
        parts = _parts(subpath)
        if not parts:
            _log.warning("A part of a history has no proper name; it is not restored.")
            continue
        *above, name = session, *parts
        lines = await sink.load(session, subpath) or []
        # The CLI keeps what it knows of a sub-agent in a file beside what that one said.
        for about in [line for line in lines if line.get("type") == _METADATA][-1:]:
            files[*above, f"{name}.meta.json"] = [_without_type(about)]
        files[*above, f"{name}.jsonl"] = [e for e in lines if e.get("type") != _METADATA]
    return files


def _without_type(entry: Entry) -> Entry:
    return {name: value for name, value in entry.items() if name != "type"}


def _check(entries: Iterable[Entry], position: str | None) -> None:
    if position is not None and all(entry.get("uuid") != position for entry in entries):
        raise AgentHistoryMissing("The agent's history has no such position.")


def _parts(subpath: str) -> list[str]:
    """The names in a subpath; none where it is not one that the CLI makes."""
    parts = subpath.split("/")
    good = len(parts) <= _MAX_PARTS and all(_PART.fullmatch(part) for part in parts)
    return parts if good else []


# --- files ------------------------------------------------------------------------------------


def _check_file(home: Path, place: Sequence[str], session: str, position: str | None) -> None:
    try:
        with _directory(home, place, make=False) as handle:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(f"{session}.jsonl", flags, dir_fd=handle)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise AgentHistoryMissing
            if position is not None:
                _check((_parsed(line) for line in file), position)
    except OSError:
        raise AgentHistoryMissing from None


def _parsed(line: bytes) -> Entry:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}


def _write(home: Path, place: Sequence[str], files: dict[tuple[str, ...], list[Entry]]) -> None:
    try:
        for (*above, name), lines in files.items():
            with _directory(home, (*place, *above), make=True) as handle:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=handle)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                descriptor = os.open(name, flags, 0o600, dir_fd=handle)
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.writelines(f"{json.dumps(line)}\n" for line in lines)
    except OSError as error:
        raise AgentUnavailable(
            f"The agent's history cannot be put into its home: {error.strerror}.",
            code="agent_history_failed",
        ) from error


@contextmanager
def _directory(home: Path, names: Sequence[str], *, make: bool) -> Iterator[int]:
    """A handle on a directory in `home`; never through a link that an agent has put."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    handle = os.open(home, flags)
    try:
        for name in names:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=handle)
            inner = os.open(name, flags, dir_fd=handle)
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)
