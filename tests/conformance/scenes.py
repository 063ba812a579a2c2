"""What the scripted providers answer, by the scene that a prompt names.

A prompt has a mark, `[[scene:tag]]`: the scene says what to answer, the tag says which check asked.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tests.support.wire_upstream import Reply, Text, Thought, Tool, Usage

Json = dict[str, Any]
Wire = Literal["messages", "chat", "ollama"]

MARK = re.compile(r"\[\[([a-z_]+)(\d*):([\w-]+)\]\]")

WORDS = "Here it is: a pear. 🍐 And some more words, so that there are several pieces."
LONG = "pear " * 400
SIGNATURE = "c2lnbmVkIGJ5IHRoZSBwcm92aWRlcg=="
THOUGHT = "First the city, then its weather."
CITY = {"city": "Ulm"}
FORECAST = {"city": "Ulm", "degrees": 21}
USAGE = Usage(40, 12, 5, 7)
PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A PNG of one pixel."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that arrived: `earlier` is how many came with the same mark before."""

    wire: Wire
    body: Json
    scene: str
    number: int
    earlier: int


def mark_of(body: Json) -> tuple[str, int, str] | None:
    """The last mark in a request."""
    said = {key: body[key] for key in ("messages", "input") if key in body}
    found = MARK.findall(json.dumps(said))
    if not found:
        return None
    scene, number, tag = found[-1]
    return scene, int(number or 0), tag


def seen(pictures: Sequence[str]) -> str:
    """What is said of pictures, given in base64."""
    named = [hashlib.sha256(each.encode()).hexdigest()[:8] for each in pictures]
    return f"I see {', '.join(named) or 'nothing'}."


def reply(asked: Asked) -> Reply:
    """The answer, in no wire's words yet."""
    scene = _SCENES.get(asked.scene)
    if scene is None:
        return Reply(status=400, message=f"There is no scene {asked.scene!r}.")
    return scene(asked)


def _text(_: Asked) -> Reply:
    return Reply((Text(WORDS),), USAGE)


def _long(_: Asked) -> Reply:
    return Reply((Text(LONG),), USAGE)


def _tools(asked: Asked) -> Reply:
    results = _results(asked)
    if not results:
        return Reply((Text("I look."), Tool(_tool(asked), _input(asked))), USAGE)
    return Reply((Text(f"The tool said: {' and '.join(results)}"),), USAGE)


def _parallel(asked: Asked) -> Reply:
    results = _results(asked)
    if not results:
        calls = tuple(Tool(_tool(asked), _input(asked, each)) for each in ("Ulm", "Bonn"))
        return Reply(calls, USAGE)
    return Reply((Text(f"The tool said: {' and '.join(results)}"),), USAGE)


def _image(asked: Asked) -> Reply:
    pictures = list(_pictures(asked.body))
    if not pictures and asked.body.get("tools"):  # an agent looks for itself
        tool = Tool("Read", {"file_path": _named_file(asked)})
        return Reply((tool,), USAGE)
    return Reply((Text(seen(pictures)),), USAGE)


def _structured(asked: Asked) -> Reply:
    body = asked.body
    if "StructuredOutput" in _tools_of(asked):  # the agent's way
        return Reply((Tool("StructuredOutput", FORECAST),), USAGE)
    if asked.wire == "chat":
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
    elif asked.wire == "ollama":
        schema = body.get("format")
    else:
        schema = body.get("output_config", {}).get("format", {}).get("schema")
    if not schema or set(schema["properties"]) != set(FORECAST):
        return Reply((Text(f"No schema came: {schema}"),), USAGE)
    return Reply((Text(json.dumps(FORECAST)),), USAGE)


def _thinking(asked: Asked) -> Reply:
    """Thinks, asks for a tool, and then wants its thoughts back as it had them."""
    if not _results(asked):
        thought = Thought(THOUGHT, SIGNATURE)
        return Reply((thought, Tool(_tool(asked), _input(asked))), USAGE)
    if asked.wire == "messages":
        signed = {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE}
        kept = any(
            message["role"] == "assistant" and signed in message["content"]
            for message in asked.body["messages"]
        )
    else:
        name = "thinking" if asked.wire == "ollama" else "reasoning_content"
        kept = any(m.get(name) == THOUGHT for m in asked.body["messages"])
    return Reply((Text("Kept." if kept else f"Lost: {json.dumps(asked.body)}"),), USAGE)


def _status(asked: Asked) -> Reply:
    return Reply(status=asked.number, message=f"scripted {asked.number}")


def _retry(asked: Asked) -> Reply:
    if asked.earlier == 0:
        return Reply(status=429, message="slowly", headers={"retry-after": "1"})
    return _text(asked)


def _slow(_: Asked) -> Reply:
    return Reply((Text("Never."),), USAGE, delay=3600)


def _endless(_: Asked) -> Reply:
    return Reply((Text(WORDS),), USAGE, hang_after=5)


_SCENES: Mapping[str, Callable[[Asked], Reply]] = {
    "text": _text,
    "long": _long,
    "tools": _tools,
    "parallel": _parallel,
    "image": _image,
    "structured": _structured,
    "thinking": _thinking,
    "status": _status,
    "retry": _retry,
    "slow": _slow,
    "endless": _endless,
}


def _tool(asked: Asked) -> str:
    """The check's own tool, or the agent's."""
    return "weather" if "weather" in _tools_of(asked) else "Bash"


def _tools_of(asked: Asked) -> list[str]:
    tools = asked.body.get("tools", ())
    return [tool.get("name") or tool["function"]["name"] for tool in tools]


def _input(asked: Asked, city: str = "Ulm") -> Json:
    if _tool(asked) == "weather":
        return {"city": city}
    return {"command": f"echo 21 degrees in {city}", "description": "Look"}


def _named_file(asked: Asked) -> str:
    found = re.search(r"file:(/[^\s\"\\]+)", json.dumps(asked.body))
    return found.group(1) if found else "/nowhere"


def _since_the_mark(asked: Asked) -> list[Json]:
    """The messages after the prompt: an agent's history has earlier turns."""
    messages: list[Json] = asked.body.get("messages") or []
    at = max((n for n, each in enumerate(messages) if MARK.search(json.dumps(each))), default=0)
    return messages[at + 1 :]


def _results(asked: Asked) -> list[str]:
    """The words of the tools' results in this turn."""
    found: list[str] = []
    for message in _since_the_mark(asked):
        if message["role"] == "tool":
            found.append(_words(message["content"]))
        elif isinstance(message.get("content"), list):
            blocks = [b for b in message["content"] if b.get("type") == "tool_result"]
            found += [_words(block.get("content", "")) for block in blocks]
    return found


def _words(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _pictures(value: Any) -> Iterator[str]:
    """The base64 of every picture in a request, whichever wire it came by."""
    if isinstance(value, list):
        for each in value:
            yield from _pictures(each)
    elif isinstance(value, dict):
        if str(value.get("media_type")).startswith("image/"):
            yield value["data"]
            return
        yield from value.get("images") or ()  # Ollama's
        for each in value.values():
            if isinstance(each, str) and each.startswith("data:image/"):
                yield each.partition(",")[2]
            else:
                yield from _pictures(each)
