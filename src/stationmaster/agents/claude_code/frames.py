"""Frames: one JSON object a line, each of bounded size."""

import json
from collections.abc import AsyncIterator
from typing import Any, Protocol

from stationmaster.agents.base import AgentProtocolError

# The CLI sends a tool's whole result in one line; 16 MB holds a large file or picture in base64.
MAX_FRAME_BYTES = 16 * 1024**2

_CHUNK_BYTES = 64 * 1024
_SHOWN_CHARACTERS = 120


class ByteSource(Protocol):
    """Where bytes come from: a process's stdout."""

    async def read(self, n: int) -> bytes:
        """At most `n` bytes; empty at the end."""
        ...


def parse_frame(line: bytes) -> dict[str, Any] | None:
    """The object in one line; None for an empty line.

    Raises `AgentProtocolError` for anything else. The message shows only the line's start: a line
    may hold what a user wrote.
    """
    stripped = line.strip()
    if not stripped:
        return None
    try:
        frame = json.loads(stripped)
    except (ValueError, RecursionError):
        frame = None
    if not isinstance(frame, dict):
        shown = stripped[:_SHOWN_CHARACTERS].decode("utf-8", "replace")
        raise AgentProtocolError(f"The agent wrote a line that is not a JSON object: {shown!r}.")
    return frame


async def read_frames(
    source: ByteSource, *, max_bytes: int = MAX_FRAME_BYTES
) -> AsyncIterator[dict[str, Any]]:
    """Yield each frame until the end of `source`.

    Holds at most one frame and one chunk. Raises `AgentProtocolError` for a line over `max_bytes`
    or one that is not an object. A last line without its newline was cut off and is dropped.
    """
    pending = bytearray()
    while chunk := await source.read(_CHUNK_BYTES):
        searched = len(pending)
        pending += chunk
        begin = 0
        while (end := pending.find(b"\n", max(begin, searched))) >= 0:
            _check(end - begin, max_bytes)
            frame = parse_frame(bytes(pending[begin:end]))
            begin = end + 1
            if frame is not None:
                yield frame
        del pending[:begin]
        _check(len(pending), max_bytes)


def _check(length: int, max_bytes: int) -> None:
    if length > max_bytes:
        raise AgentProtocolError(
            f"The agent wrote a frame over {max_bytes} bytes.", max_frame_bytes=max_bytes
        )
