"""Copying a history as the agent's SDK does it, on entries that an agent has written."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from claude_agent_sdk import SessionKey, SessionStoreEntry, fork_session_via_store

from stationmaster.kernel.errors import Invalid, NotFound
from stationmaster.transcripts.history import Entry, Fork, HistoryKey

UNTITLED = "Fork"


class _Copier:
    """A store with one history in it, which takes one more."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self.taken: list[Any] = []

    async def load(self, _key: SessionKey) -> list[Any]:
        return list(self._entries)

    async def append(self, _key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        self.taken += entries


def fork(
    key: HistoryKey, entries: list[Entry] | None, up_to: str | None, title: str | None
) -> Fork:
    """See `Transcripts.copy`. Takes long for a long history: call it in a thread."""
    if entries is None:
        raise NotFound("There is no such history of an agent.", code="transcript_not_found")
    if up_to is not None and not any(entry.get("uuid") == up_to for entry in entries):
        raise NotFound("The history has no such entry.", code="transcript_position_not_found")
    if not _is_uuid(key.history_id) or not (up_to is None or _is_uuid(up_to)):
        raise _broken()
    _check_parents(entries)
    copier = _Copier(entries)
    try:
        made = asyncio.run(
            fork_session_via_store(
                copier,  # type: ignore[arg-type]  # all that is called of a store
                key.history_id,
                directory="/",
                up_to_message_id=up_to,
                # Without one the SDK looks for one with patterns that take quadratic time.
                title=(title or "").strip() or UNTITLED,
            )
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _broken() from error
    return Fork(made.session_id, tuple(copier.taken))


def _check_parents(entries: Sequence[Entry]) -> None:
    """The SDK follows parents until there is none: a ring of them would hold it for ever."""
    parents = {
        uuid: entry.get("parentUuid")
        for entry in entries
        if isinstance(uuid := entry.get("uuid"), str)
    }
    fine: set[str] = set()
    for start in parents:
        path: list[str] = []
        on_path: set[str] = set()
        at: object = start
        while isinstance(at, str) and at in parents and at not in fine:
            if at in on_path:
                raise _broken()
            path.append(at)
            on_path.add(at)
            at = parents[at]
        fine.update(path)


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _broken() -> Invalid:
    return Invalid("The agent's history cannot be copied.", code="transcript_broken")
