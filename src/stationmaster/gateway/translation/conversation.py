"""A request, in words that belong to no wire format.

Readers make one of a client's body, writers a provider's body of one: with it, each format is
known in one place, and what passes from one to another can be compared.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from stationmaster.kernel.errors import Invalid

Role = Literal["user", "assistant", "system"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: tuple[Effort, ...] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class Text:
    """Words."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """A picture: by `url`, or as base64 `data` of a `media_type`."""

    url: str | None = None
    media_type: str | None = None
    data: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A PDF file as base64 `data`."""

    data: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """What a model thought. `signature` is Anthropic's proof of it, empty for other models'."""

    text: str
    signature: str = ""


@dataclass(frozen=True, slots=True)
class HiddenThinking:
    """Thinking that only its provider can read."""

    data: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks for a tool."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gave. It comes first in its turn."""

    call_id: str
    parts: "tuple[Part, ...]"
    failed: bool = False


Part = Text | Image | Document | Thinking | HiddenThinking | ToolCall | ToolResult


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says at once. `at` names it in the client's body, for refusals."""

    role: Role
    parts: tuple[Part, ...]
    at: str = field(default="messages", compare=False)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask for. `schema` is JSON Schema of its arguments."""

    name: str
    schema: Mapping[str, Any]
    description: str | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether tools are asked for: as the model likes, never, some tool, or the one `name`."""

    mode: Literal["auto", "none", "any", "one"] = "auto"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """The answer must be JSON: of a schema, or any where `schema` is None."""

    schema: Mapping[str, Any] | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Reasoning:
    """How much to think. `budget` is in tokens. With neither, the model decides."""

    effort: Effort | None = None
    budget: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A request. None is what the client leaves to the provider.

    `names` tells what the client's format calls a field where it has another name than ours.
    """

    turns: tuple[Turn, ...]
    system: tuple[Text, ...] = ()
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    tools: tuple[Tool, ...] = ()
    choice: Choice | None = None
    parallel: bool = True
    reasoning: Reasoning | None = None
    format: Format | None = None
    user: str | None = None
    tier: Literal["auto", "default"] | None = None
    names: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def media_bytes(self) -> int:
        """How many bytes pictures and files take, which are no words."""
        return sum(_media_bytes(part) for turn in self.turns for part in turn.parts)

    def refusal(self, name: str, why: str) -> Invalid:
        """The error for a field that the provider's format cannot carry as it is."""
        param = self.names.get(name, name)
        return Invalid(f"{param}: {why}", param=param)


def arranged(
    turns: Iterable[Turn], system: Iterable[Text] = ()
) -> tuple[tuple[Text, ...], tuple[Turn, ...]]:
    """The instructions at the start, and the turns after them in the one order that all accept.

    What one side says in succession becomes one turn, the results of tools first in it. Empty
    texts and turns without anything are left out: they say nothing, and Anthropic refuses them.
    """
    instructions = [text for text in system if text.text]
    joined: list[Turn] = []
    for turn in turns:
        parts = tuple(part for part in turn.parts if part != Text(""))
        if not parts:
            continue
        if turn.role == "system" and not joined:
            instructions += [part for part in parts if isinstance(part, Text)]
        elif joined and joined[-1].role == turn.role:
            joined[-1] = Turn(turn.role, joined[-1].parts + parts, joined[-1].at)
        else:
            joined.append(Turn(turn.role, parts, turn.at))
    return tuple(instructions), tuple(map(_results_first, joined))


def _media_bytes(part: Part) -> int:
    match part:
        case Image(data=str(data)) | Document(data=data):
            return len(data)
        case ToolResult(parts=parts):
            return sum(map(_media_bytes, parts))
    return 0


def _results_first(turn: Turn) -> Turn:
    parts = sorted(turn.parts, key=lambda part: not isinstance(part, ToolResult))
    return Turn(turn.role, tuple(parts), turn.at)
