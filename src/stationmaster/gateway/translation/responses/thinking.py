"""Thinking as Responses carry it: a reasoning item.

Its summary is the words. Its `encrypted_content` is what the thinking's own provider wants back:
a signature, or thinking that only it can read; what is in front of the colon tells which. What
OpenAI itself has encrypted begins otherwise.
"""

from stationmaster.gateway.translation.conversation import HiddenThinking, Thinking
from stationmaster.gateway.translation.reply import Block

_SIGNED = "signature:"
_HIDDEN = "redacted:"


def sealed(block: Block) -> str | None:
    """The `encrypted_content` of a block of thinking."""
    if block.kind == "hidden":
        return _HIDDEN + block.text
    return _SIGNED + block.signature if block.signature else None


def unsealed(words: str, content: str | None) -> Thinking | HiddenThinking | None:
    """The thinking of a reasoning item, or None where it is another provider's secret."""
    if content is None:
        return Thinking(words)
    if content.startswith(_SIGNED):
        return Thinking(words, content.removeprefix(_SIGNED))
    if content.startswith(_HIDDEN):
        return HiddenThinking(content.removeprefix(_HIDDEN))
    return None
