"""What the agent's SDK lists sessions by: its own fold over the entries, kept as it is."""

import asyncio
import importlib
import sys
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import structlog

from stationmaster.kernel.text import scrub
from stationmaster.transcripts.history import Entry, HistoryKey

log = structlog.get_logger(__name__)

_SDK = "claude_agent_sdk"
MAX_BYTES = 64 * 1024  # titles in it come from entries of any size
# The SDK searches prompts with patterns that take quadratic time; it keeps 200 characters of them.
LONGEST_PROMPT = 1000
MOST_BLOCKS = 20


async def load_sdk() -> None:
    """Import the SDK where it is not: a third of a second, which must not be in a transaction."""
    if _SDK not in sys.modules:
        await asyncio.to_thread(importlib.import_module, _SDK)


def fold(before: dict[str, Any] | None, key: HistoryKey, entries: Sequence[Entry]) -> Any:
    """The summary's data after `entries`; as it was before them where they make no sense."""
    from claude_agent_sdk import SessionKey, SessionStoreEntry, SessionSummaryEntry
    from claude_agent_sdk import fold_session_summary as fold_in

    short = [_shortened(entry) for entry in entries]
    known = SessionSummaryEntry(session_id=key.history_id, mtime=0, data=before or {})
    sdk_key = SessionKey(project_key=key.session_id, session_id=key.history_id)
    try:
        folded = fold_in(known, sdk_key, cast(list[SessionStoreEntry], short))
    except Exception as error:  # noqa: BLE001  whatever the SDK makes of an agent's entries
        log.info("An agent's entries have no summary.", reason=type(error).__name__)
        return before
    data = scrub(folded["data"])
    return data if len(msgspec.json.encode(data)) <= MAX_BYTES else before


def _shortened(entry: Entry) -> Entry:
    message = entry.get("message")
    if not isinstance(message, dict):
        return entry
    content = message.get("content")
    if isinstance(content, str):
        content = content[:LONGEST_PROMPT]
    elif isinstance(content, list):
        content = [_short_block(block) for block in content[:MOST_BLOCKS]]
    return {**entry, "message": {**message, "content": content}}


def _short_block(block: Any) -> Any:
    text = block.get("text") if isinstance(block, dict) else None
    return {**block, "text": text[:LONGEST_PROMPT]} if isinstance(text, str) else block
