"""Entries of an agent's history, as the CLI writes them."""

from typing import Any
from uuid import uuid4


def conversation(*, turns: int) -> tuple[str, list[dict[str, Any]]]:
    """A history's id, and a question and an answer for each turn."""
    history = str(uuid4())
    entries: list[dict[str, Any]] = []
    for turn in range(turns):
        for role, text in (("user", f"Question {turn}?"), ("assistant", f"Answer {turn}.")):
            entries.append(
                {
                    "type": role,
                    "uuid": str(uuid4()),
                    "parentUuid": entries[-1]["uuid"] if entries else None,
                    "sessionId": history,
                    "timestamp": f"2026-01-01T00:00:{len(entries):02d}.000Z",
                    "cwd": "/workspace",
                    "isSidechain": False,
                    "message": {"role": role, "content": [{"type": "text", "text": text}]},
                }
            )
    return history, entries
