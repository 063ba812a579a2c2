"""A model call that the CLI can make: what of Anthropic's format it takes, and what it refuses.

The CLI asks one question of one user. It offers no way to say a temperature, to bring tools, or to
put words into the model's mouth: whatever of a request it cannot pass on is refused by its name.
"""

import json
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

_TAKEN = frozenset({"model", "messages", "max_tokens", "stream", "system"})
_BLOCKS = frozenset({"text", "image", "document"})


class QuestionRefusedError(Exception):
    """Part of a request cannot be asked through the CLI. The text begins with its name."""


@dataclass(frozen=True, slots=True)
class Question:
    """What goes to the CLI. `frame` is its one line of input."""

    model: str
    system: str
    max_tokens: int
    frame: bytes


def question_of(body: bytes, model: str) -> Question:
    """Read a request in Anthropic's format. Raises `QuestionRefusedError`."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise QuestionRefusedError("The request body is not valid JSON.") from None
    if not isinstance(asked, dict):
        raise QuestionRefusedError("The request body is not a JSON object.")
    for name in asked:
        if name not in _TAKEN:
            raise QuestionRefusedError(f"{name}: Claude Code as a provider does not take it.")
    max_tokens = asked.get("max_tokens")
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1:
        raise QuestionRefusedError("max_tokens: Input should be 1 or more.")
    message = {"role": "user", "content": _content(asked.get("messages"))}
    frame = json.dumps({"type": "user", "message": message}).encode() + b"\n"
    return Question(model, _system(asked.get("system")), max_tokens, frame)


def _content(messages: Any) -> list[Json]:
    if not isinstance(messages, list) or len(messages) != 1:
        raise QuestionRefusedError(
            "messages: Claude Code as a provider takes one message of a user; for conversations,"
            " use sessions."
        )
    (only,) = messages
    if not isinstance(only, dict) or only.get("role") != "user":
        raise QuestionRefusedError("messages.0.role: It must be a user's.")
    content = only.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list) or not content:
        raise QuestionRefusedError("messages.0.content: A text, or a list of blocks.")
    for number, block in enumerate(content):
        if not isinstance(block, dict) or block.get("type") not in _BLOCKS:
            raise QuestionRefusedError(
                f"messages.0.content.{number}: Claude Code as a provider takes text, images and"
                " documents."
            )
    return content


def _system(system: Any) -> str:
    if system is None or isinstance(system, str):
        return system or ""
    blocks = system if isinstance(system, list) else [None]
    texts = [block.get("text") if isinstance(block, dict) else None for block in blocks]
    if not all(isinstance(text, str) for text in texts):
        raise QuestionRefusedError("system: A text, or a list of texts.")
    return "\n\n".join(map(str, texts))
