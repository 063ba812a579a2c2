"""One session's histories, for its agent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stationmaster.kernel.errors import Conflict
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Transaction
from stationmaster.transcripts.history import HistoryKey
from stationmaster.transcripts.transcripts import Transcripts


@dataclass(frozen=True, slots=True)
class SessionSink:
    """A `TranscriptSink` of one session.

    `guard` is called in each append's transaction and raises where the agent's worker has lost the
    session to another: two must not write one history.
    """

    transcripts: Transcripts
    owner: Owner
    session_id: str
    guard: Callable[[Transaction], None] | None = None

    async def append(
        self, session: str, subpath: str | None, entries: Sequence[dict[str, Any]]
    ) -> None:
        """See `TranscriptSink`. Raises what `Transcripts.append` does, and what `guard` does."""
        key = HistoryKey(self.session_id, session, subpath)
        await self.transcripts.append(self.owner, key, entries, guard=self.guard)

    async def load(self, session: str, subpath: str | None) -> list[dict[str, Any]] | None:
        """See `TranscriptSink`. Raises `Conflict` where the end of the history is lost."""
        for history in await self.transcripts.histories(self.owner, self.session_id):
            if history.history_id == session and history.closed:
                raise Conflict(
                    "The agent's history has grown too large to go on with.", code="transcript_full"
                )
        return await self.transcripts.load(
            self.owner, HistoryKey(self.session_id, session, subpath)
        )

    async def subpaths(self, session: str) -> list[str]:
        """See `TranscriptSink`."""
        return [
            history.subpath
            for history in await self.transcripts.histories(self.owner, self.session_id)
            if history.history_id == session and history.subpath is not None and history.entries
        ]
