"""A chat's request as what is said to an agent.

An agent remembers nothing of an earlier request: each is a session of its own. What was said
before, instructions included, comes first in its one message, as words and pictures with their
speaker's name; the last thing that the user says comes after it.
"""

from typing import Any

from stationmaster.gateway.translation.conversation import (
    Conversation,
    Document,
    Image,
    Part,
    Text,
    Thinking,
    Turn,
)
from stationmaster.kernel.errors import Invalid

BEFORE = "What was said before:"
NOW = "What is asked now:"

# What an agent decides by itself. Left out, and told as such.
_OWN = ("max_tokens", "temperature", "top_p", "reasoning")


def prompt_of(asked: Conversation) -> list[dict[str, Any]]:
    """The blocks of the one message. Raises `Invalid`, naming the field."""
    if asked.tools or asked.choice is not None:
        raise asked.refusal("tools", "An agent has tools of its own.")
    if asked.format is not None:
        raise asked.refusal("format", "An agent answers in words; give a task an output schema.")
    if asked.stop:
        raise asked.refusal("stop", "An agent stops when it is done.")
    if not asked.turns or asked.turns[-1].role != "user":
        raise Invalid("messages: The last one must be the user's.", param="messages")
    *before, last = asked.turns
    if not asked.system and not before:
        return _merged(_blocks(last))
    told: list[dict[str, Any]] = [_text(BEFORE)]
    for each in (Turn("system", asked.system), *before) if asked.system else before:
        told += [_text(f"\n{each.role}:"), *_blocks(each)]
    return _merged([*told, _text(f"\n{NOW}"), *_blocks(last)])


def left_out(asked: Conversation) -> tuple[str, ...]:
    """The fields that change nothing for an agent, by the client's names."""
    return tuple(asked.names.get(name, name) for name in _OWN if getattr(asked, name) is not None)


def _blocks(turn: Turn) -> list[dict[str, Any]]:
    return [_block(part, turn.at) for part in turn.parts if not isinstance(part, Thinking)]


def _block(part: Part, at: str) -> dict[str, Any]:
    match part:
        case Text(text):
            return _text(text)
        case Image(data=str(data), media_type=str(media_type)):
            return {
                "type": "image",
                "source": {"type": "base64", "media_type": media_type, "data": data},
            }
        case Document(data, name):
            source = {"type": "base64", "media_type": "application/pdf", "data": data}
            titled = {} if name is None else {"title": name}
            return {"type": "document", "source": source, **titled}
    raise Invalid(f"{at}: An agent is told words, and pictures and PDFs as base64.", param=at)


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _merged(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Texts in succession as one: a message has a bound on its blocks."""
    merged: list[dict[str, Any]] = []
    for block in blocks:
        if merged and block["type"] == merged[-1]["type"] == "text":
            merged[-1] = _text(merged[-1]["text"] + "\n" + block["text"])
        else:
            merged.append(block)
    return merged
