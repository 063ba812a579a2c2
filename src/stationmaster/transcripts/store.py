"""An owner's histories, as the agent's SDK asks for them."""

from typing import TYPE_CHECKING, Any, cast

from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.principal import Owner
from stationmaster.transcripts.history import HistoryKey
from stationmaster.transcripts.transcripts import Transcripts

if TYPE_CHECKING:
    from claude_agent_sdk import SessionKey, SessionListSubkeysKey, SessionStoreEntry
    from claude_agent_sdk.types import SessionStoreListEntry, SessionSummaryEntry


class OwnedStore:
    """A `claude_agent_sdk.SessionStore`, with every optional method. Its project is our session."""

    def __init__(self, transcripts: Transcripts, owner: Owner) -> None:
        self._transcripts = transcripts
        self._owner = owner

    async def append(self, key: "SessionKey", entries: "list[SessionStoreEntry]") -> None:
        """See `SessionStore`."""
        plain = cast(list[dict[str, Any]], entries)
        await self._transcripts.append(self._owner, _key(key), plain)

    async def load(self, key: "SessionKey") -> "list[SessionStoreEntry] | None":
        """See `SessionStore`."""
        found = await self._transcripts.load(self._owner, _key(key))
        return cast("list[SessionStoreEntry] | None", found)

    async def list_sessions(self, project_key: str) -> "list[SessionStoreListEntry]":
        """See `SessionStore`."""
        found = await self._transcripts.summaries(self._owner, project_key)
        return [{"session_id": history, "mtime": at} for history, at, _ in found]

    async def list_session_summaries(self, project_key: str) -> "list[SessionSummaryEntry]":
        """See `SessionStore`."""
        found = await self._transcripts.summaries(self._owner, project_key)
        return [{"session_id": history, "mtime": at, "data": data} for history, at, data in found]

    async def delete(self, key: "SessionKey") -> None:
        """See `SessionStore`."""
        await self._transcripts.delete(self._owner, _key(key))

    async def list_subkeys(self, key: "SessionListSubkeysKey") -> list[str]:
        """See `SessionStore`."""
        named = HistoryKey(key["project_key"], key["session_id"])
        found = await self._transcripts.histories(self._owner, named.session_id)
        return [
            history.subpath
            for history in found
            if history.history_id == named.history_id
            and history.subpath is not None
            and history.entries
        ]


def _key(key: "SessionKey") -> HistoryKey:
    subpath = key.get("subpath")
    if subpath == "":
        raise Invalid("A subpath must not be empty.", code="transcript_name")
    return HistoryKey(key["project_key"], key["session_id"], subpath)
