"""What the scripted model understands of a request: the task, the tools, what was done so far."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

_OPENED, _CLOSED = "<system-reminder>", "</system-reminder>"
_DIRECTORY = re.compile(r"[Ww]orking directory: *(/[^\n<]*)")

BYTES_PER_TOKEN = 4

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """A tool call since the prompt, and what came of it. `failed` is None without a result."""

    tool: str
    input: Json
    result: str
    failed: bool | None


@dataclass(frozen=True, slots=True)
class Conversation:
    """`turn` counts prompts so far, from 1. `directory` is where the agent works, if it says."""

    prompt: str
    turn: int
    steps: tuple[Step, ...]
    tools: dict[str, Json]
    directory: str | None
    digest: str


def estimate_tokens(text: str) -> int:
    """A deterministic estimate: one token for each four bytes, rounded up."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def read_conversation(request: Json, raw: bytes) -> Conversation:
    """Read a request whose form was checked."""
    messages = [message for message in request["messages"] if isinstance(message, dict)]
    starts = [at for at, message in enumerate(messages) if _prompt_of(message)]
    start = starts[-1] if starts else 0
    tools = {
        tool["name"]: tool
        for tool in _list(request.get("tools"))
        if isinstance(tool, dict) and isinstance(tool.get("name"), str)
    }
    return Conversation(
        prompt=_prompt_of(messages[start]) if starts else "",
        turn=max(1, len(starts)),
        steps=_steps(messages[start:]),
        tools=tools,
        directory=_directory(request, messages),
        digest=hashlib.sha256(raw).hexdigest(),
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _blocks(content: Any) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in _list(content) if isinstance(block, dict)]


def text_of(content: Any) -> str:
    """The text in a string or in content blocks."""
    texts = (block.get("text") for block in _blocks(content) if block.get("type") == "text")
    return "\n".join(text for text in texts if isinstance(text, str))


def _prompt_of(message: Json) -> str:
    """What the user asks in a message; empty for tool results, reminders and other roles."""
    if message.get("role") != "user":
        return ""
    content = message.get("content")
    if any(block.get("type") == "tool_result" for block in _blocks(content)):
        return ""
    return _apart(text_of(content))[0].strip()


def _apart(text: str) -> tuple[str, list[str]]:
    """A text without its reminders, and these. One that is never closed is text."""
    # Not a pattern: of many that are opened and never closed, each would look to the text's end.
    rest, found, at = [], [], 0
    while (start := text.find(_OPENED, at)) >= 0:
        end = text.find(_CLOSED, start)
        if end < 0:
            break
        end += len(_CLOSED)
        rest.append(text[at:start])
        found.append(text[start:end])
        at = end
    return "".join([*rest, text[at:]]), found


def _steps(messages: list[Json]) -> tuple[Step, ...]:
    results: dict[str, Json] = {}
    for message in messages:
        for block in _blocks(message.get("content")):
            if block.get("type") == "tool_result":
                results[str(block.get("tool_use_id"))] = block
    steps: list[Step] = []
    for message in messages:
        for block in _blocks(message.get("content")):
            if block.get("type") == "tool_use":
                result = results.get(str(block.get("id")))
                given = block.get("input")
                steps.append(
                    Step(
                        tool=str(block.get("name")),
                        input=given if isinstance(given, dict) else {},
                        result=text_of(result.get("content")) if result else "",
                        failed=bool(result.get("is_error")) if result else None,
                    )
                )
    return tuple(steps)


def _directory(request: Json, messages: list[Json]) -> str | None:
    """Where the agent says that it works, in its instructions; a prompt's words do not count."""
    instructions = [text_of(request.get("system"))]
    for message in messages:
        text = text_of(message.get("content"))
        if message.get("role") == "system":
            instructions.append(text)
        else:
            instructions += _apart(text)[1]
    found = [match[1] for text in instructions for match in _DIRECTORY.finditer(text)]
    return found[-1].rstrip().rstrip("/") or "/" if found else None
