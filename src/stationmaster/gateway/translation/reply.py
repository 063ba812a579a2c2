"""A provider's reply as events, in words that belong to no wire format.

A reply that was not streamed is the same events at once. Their order: `Begun`; pieces of blocks,
one block after the other; `Stopped`; `Counted`; `Finished`. `Broken` may take the place of all
that has not come yet. A piece of text or of arguments is never empty.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from stationmaster.kernel.errors import Upstream

MAX_REPLY_LENGTH = 32 * 1024 * 1024
"""Characters that are kept while a reply is put together; no model writes as many."""
MAX_TOKENS_BOUND = 2**53
"""What a JSON number carries exactly everywhere."""

_BLOCK_OVERHEAD = 64
"""Characters that a block counts for at least, so that empty ones have an end too."""

StopReason = Literal["end", "length", "sequence", "tools", "refusal"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """What was used. `input` is what neither came from a cache nor went into one."""

    input: int = 0
    output: int = 0
    cache_write: int = 0
    cache_read: int = 0
    thinking: int | None = None

    @property
    def prompt(self) -> int:
        """All of the input, as OpenAI counts it."""
        return self.input + self.cache_write + self.cache_read


@dataclass(frozen=True, slots=True)
class Begun:
    """The reply begins. `tokens` is what the provider says at its start, if anything."""

    id: str
    model: str
    tokens: Tokens | None = None


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Words of the answer; of a refusal where `refusal`."""

    text: str
    refusal: bool = False


@dataclass(frozen=True, slots=True)
class ThinkingPiece:
    """Words of what the model thinks."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingEnd:
    """A block of thinking is whole."""

    signature: str


@dataclass(frozen=True, slots=True)
class Hidden:
    """A block of thinking that only its provider can read."""

    data: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """A tool call begins; the one before it, if any, is whole."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A piece of the JSON text of the arguments of the call that began last."""

    text: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why there is no more. `explanation` is a refusal's."""

    reason: StopReason
    sequence: str | None = None
    explanation: str | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """What was used in all, None where the provider does not tell."""

    tokens: Tokens | None


@dataclass(frozen=True, slots=True)
class Finished:
    """The reply is whole."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The provider says that it failed. `status` is 0 where the stream had begun."""

    message: str
    status: int = 0
    kind: str | None = None
    code: str | None = None


Event = (
    Begun
    | TextPiece
    | ThinkingPiece
    | ThinkingEnd
    | Hidden
    | CallBegin
    | CallPiece
    | Stopped
    | Counted
    | Finished
    | Broken
)


@dataclass(slots=True)
class Block:
    """A part of the answer. `text` is words, thinking, or the JSON text of arguments."""

    kind: Literal["text", "refusal", "thinking", "hidden", "call"]
    pieces: list[str] = field(default_factory=list)
    signature: str = ""
    id: str = ""
    name: str = ""

    @property
    def text(self) -> str:
        """All pieces together."""
        return "".join(self.pieces)


class Draft:
    """The reply, put together from its events."""

    def __init__(self) -> None:
        self.begun = Begun("", "")
        self.blocks: list[Block] = []
        self.stopped = Stopped("end")
        self.tokens: Tokens | None = None
        self.size = 0
        self._open = False

    def take(self, event: Event) -> None:
        """Add one event. Raises `Upstream` for a reply over `MAX_REPLY_LENGTH`."""
        match event:
            case Begun():
                self.begun = event
            case TextPiece(text, refusal):
                self._add("refusal" if refusal else "text", text)
            case ThinkingPiece(text):
                self._add("thinking", text)
            case ThinkingEnd(signature):
                self._add("thinking", "").signature = signature
                self._grow(signature)
                self._open = False
            case Hidden(data):
                self._begin(Block("hidden"))
                self._add("hidden", data)
                self._open = False
            case CallBegin(call_id, name):
                self._begin(Block("call", id=call_id, name=name))
            case CallPiece(text):
                self._add("call", text)
            case Stopped():
                self.stopped = event
            case Counted(tokens):
                self.tokens = tokens
            case _:
                pass

    def of(self, *kinds: str) -> list[Block]:
        """The blocks of some kinds."""
        return [block for block in self.blocks if block.kind in kinds]

    def text(self, *kinds: str) -> str:
        """The words of all blocks of some kinds, as a stream would give them."""
        return "".join(block.text for block in self.of(*kinds))

    def _begin(self, block: Block) -> Block:
        self.blocks.append(block)
        self._open = True
        self._grow(block.id + block.name)
        self.size += _BLOCK_OVERHEAD
        return block

    def _add(
        self, kind: Literal["text", "refusal", "thinking", "hidden", "call"], text: str
    ) -> Block:
        fits = self._open and self.blocks[-1].kind == kind
        block = self.blocks[-1] if fits else self._begin(Block(kind))
        if text:
            block.pieces.append(text)
            self._grow(text)
        return block

    def _grow(self, text: str) -> None:
        self.size += len(text)
        if self.size > MAX_REPLY_LENGTH:
            raise Upstream("The model provider's reply is longer than any model's.")


def drafted(events: Iterable[Event]) -> Draft:
    """The reply that some events make."""
    draft = Draft()
    for event in events:
        draft.take(event)
    return draft


def counted(value: int | None) -> int:
    """A number of tokens as a provider tells it. Raises `Upstream` for one that cannot be."""
    if value is None:
        return 0
    if not 0 <= value < MAX_TOKENS_BOUND:
        raise Upstream("The model provider tells a number of tokens that cannot be.")
    return value
