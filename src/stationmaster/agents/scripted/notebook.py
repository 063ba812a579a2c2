"""A scripted agent's history, in the shape of the real one's."""

import itertools
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from stationmaster.agents.base import (
    AgentHistoryMissing,
    AgentUnavailable,
    LaunchSpec,
    TranscriptSink,
)

Entry = dict[str, Any]
Histories = dict[str, list[Entry]]


@dataclass(slots=True)
class Notebook:
    """One session's entries: `kept` in memory, and in the sink where there is one."""

    session: str
    kept: list[Entry]
    sink: TranscriptSink | None
    _last: dict[str | None, str] = field(default_factory=dict)

    @property
    def position(self) -> str | None:
        """The last entry of the conversation itself."""
        return self._last.get(None)

    async def add(self, role: str, content: Any, subpath: str | None = None) -> None:
        """Write an entry; it is safe when this returns."""
        entry = {
            "type": role,
            "uuid": str(uuid4()),
            "parentUuid": self._last.get(subpath),
            "sessionId": self.session,
            "isSidechain": subpath is not None,
            "message": {"role": role, "content": content},
        }
        self._last[subpath] = str(entry["uuid"])
        if subpath is None:
            self.kept.append(entry)
        if self.sink is not None:
            await self.sink.append(self.session, subpath, [entry])


async def open_notebook(spec: LaunchSpec, histories: Histories) -> Notebook:
    """The history that `spec` asks for: a new one, one to go on with, or a copy.

    Raises `AgentHistoryMissing`, or `AgentUnavailable` where the id of a new one is taken.
    """
    sink, new = spec.transcripts, spec.agent_session_id
    if new is not None and new != spec.resume and (sink and await sink.load(new, None)):
        raise AgentUnavailable(
            "There is a history of this id already.", code="agent_history_exists"
        )
    session = new or spec.resume or str(uuid4())
    if spec.resume is None:
        return Notebook(session, histories.setdefault(session, []), sink)
    found = await sink.load(spec.resume, None) if sink else histories.get(spec.resume)
    if not found:
        raise AgentHistoryMissing
    found = _until(found, spec.resume_at)
    if session == spec.resume:
        book = Notebook(session, histories.setdefault(session, found), sink)
    else:
        copy = [{**entry, "sessionId": session} for entry in found]
        book = Notebook(session, histories.setdefault(session, copy), sink)
        if sink is not None:
            await sink.append(session, None, copy)
    book._last[None] = str(found[-1]["uuid"])
    return book


def _until(entries: list[Entry], position: str | None) -> list[Entry]:
    if position is None:
        return list(entries)
    before = list(itertools.takewhile(lambda entry: entry.get("uuid") != position, entries))
    if len(before) == len(entries):
        raise AgentHistoryMissing("The agent's history has no such position.")
    return entries[: len(before) + 1]
