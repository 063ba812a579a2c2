"""What the scripted model says and does next: plan, write, run, read back, sum up."""

import json
import re
from dataclasses import dataclass
from typing import Any

from stationmaster.providers.offline.conversation import Conversation, Step
from stationmaster.providers.offline.programs import Program, choose

Json = dict[str, Any]

WHO = "This is Stationmaster's offline scripted model, not a language model."
HOW_TO_CHANGE = "Set ANTHROPIC_API_KEY on the server for real answers."

_QUESTION = re.compile(
    r"^\W*(what|who|whom|why|when|where|which|how|explain|tell|reply|answer|say|hi|thanks?)\b",
    re.IGNORECASE,
)
_TITLE = re.compile(r"\btitles?\b|\btopic\b|\bsummari[sz]e\b", re.IGNORECASE)
_MAX_QUOTED = 600
_MAX_WRITES = 2


@dataclass(frozen=True, slots=True)
class Text:
    """A text block."""

    text: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool_use block, its id still to be made."""

    name: str
    input: Json


Block = Text | Tool


def next_blocks(talk: Conversation, request: Json) -> list[Block]:
    """The next message of the script. The same for the same request."""
    choice = request.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "tool" and isinstance(choice, dict):
        return [_forced(talk, str(choice.get("name")))]
    if kind == "any" and talk.tools and "Write" not in talk.tools:
        return [_forced(talk, next(iter(talk.tools)))]
    schema = _wanted_schema(request)
    if schema is not None:
        return [Text(json.dumps(_minimal(schema, talk.prompt), ensure_ascii=False))]
    if kind == "none" or "Write" not in talk.tools:
        return [Text(_words_only(talk, request))]
    if not talk.steps and _QUESTION.match(talk.prompt):
        return [Text(_words_only(talk, request))]
    return _work(talk)


def _words_only(talk: Conversation, request: Json) -> str:
    system = json.dumps(request.get("system", ""))
    if not talk.tools and (_TITLE.search(system) or _TITLE.search(talk.prompt[:200])):
        return _title(talk.prompt)
    asked = " ".join(talk.prompt.split())[:200]
    return f"{WHO} It cannot answer in words of its own. You said: “{asked}” {HOW_TO_CHANGE}"


def _title(prompt: str) -> str:
    words = re.findall(r"[^\W_]+", prompt)[:6]
    return " ".join(words) or "Offline"


def _work(talk: Conversation) -> list[Block]:
    program = choose(talk.prompt)
    last = talk.steps[-1] if talk.steps else None
    if last is None:
        return [Text(_plan(talk, program)), _write(talk, program, attempt=1)]
    done = [step.tool for step in talk.steps]
    if last.tool == "Write" and last.failed:
        if done.count("Write") < _MAX_WRITES:
            words = f"That could not be written: {_quoted(last.result)} I try another name."
            return [Text(words), _write(talk, program, attempt=2)]
        return [Text(f"{WHO} The file could not be written: {_quoted(last.result)} I stop here.")]
    path = _written(talk.steps)
    if path is None:
        return [Text(f"{WHO} I do not know how to go on from here, and stop.")]
    if "Bash" in talk.tools and "Bash" not in done:
        command = {"command": f"python3 {_quote(path)}", "description": f"Run {_name(path)}"}
        return [Text("The file is written. Now I run it."), Tool("Bash", command)]
    if "Read" in talk.tools and "Read" not in done:
        failed = last.tool == "Bash" and last.failed
        words = (
            f"Running it failed: {_quoted(last.result)} I look at what was written."
            if failed
            else "I read the file back to check it."
        )
        return [Text(words), Tool("Read", {"file_path": path})]
    return [Text(_summary(talk, program, path))]


def _plan(talk: Conversation, program: Program) -> str:
    steps = [f"Write `{_file_name(talk, program, 1)}`, a small program that {program.subject}."]
    if "Bash" in talk.tools:
        steps.append("Run it.")
    if "Read" in talk.tools:
        steps.append("Read it back and sum up.")
    plan = "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))
    return f"{WHO} It follows a small script.\n\nMy plan:\n{plan}"


def _summary(talk: Conversation, program: Program, path: str) -> str:
    ran = next((step for step in talk.steps if step.tool == "Bash"), None)
    parts = [f"Done: `{_name(path)}` {program.subject}."]
    if ran is not None and ran.failed:
        parts.append(f"Running it failed:\n\n```\n{_quoted(ran.result)}\n```")
    elif ran is not None:
        parts.append(f"It printed:\n\n```\n{_quoted(ran.result)}\n```")
    else:
        parts.append("It was not run: this session has no Bash tool.")
    parts.append(f"{WHO} {HOW_TO_CHANGE}")
    return "\n\n".join(parts)


def _write(talk: Conversation, program: Program, *, attempt: int) -> Tool:
    name = _file_name(talk, program, attempt)
    directory = "" if talk.directory is None else talk.directory.rstrip("/") + "/"
    return Tool("Write", {"file_path": directory + name, "content": program.source})


def _file_name(talk: Conversation, program: Program, attempt: int) -> str:
    """A new name in each turn: the Write tool refuses to replace a file that was not read."""
    number = "" if talk.turn == 1 else f"_{talk.turn}"
    return f"{program.stem}{number}{'' if attempt == 1 else '_again'}.py"


def _written(steps: tuple[Step, ...]) -> str | None:
    paths = [step.input.get("file_path") for step in steps if step.tool == "Write"]
    return paths[-1] if paths and isinstance(paths[-1], str) else None


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _quote(path: str) -> str:
    """Quoted for a shell, where it must be."""
    return path if re.fullmatch(r"[\w./-]+", path) else "'" + path.replace("'", "'\\''") + "'"


def _quoted(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + " …"


def _forced(talk: Conversation, name: str) -> Tool:
    schema = talk.tools.get(name, {}).get("input_schema")
    filled = _minimal(schema if isinstance(schema, dict) else {}, talk.prompt)
    return Tool(name, filled if isinstance(filled, dict) else {})


def _wanted_schema(request: Json) -> Json | None:
    config = request.get("output_config")
    wanted = config.get("format") if isinstance(config, dict) else request.get("output_format")
    schema = wanted.get("schema") if isinstance(wanted, dict) else None
    return schema if isinstance(schema, dict) else None


def _minimal(schema: Json, prompt: str, depth: int = 0) -> Any:
    """The least value that fits a simple JSON schema; a text is made of the prompt."""
    options = schema.get("enum")
    if isinstance(options, list) and options:
        return options[0]
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type")
    if kind == "string":
        return _title(prompt)
    if kind in ("integer", "number"):
        least = schema.get("minimum")
        return least if isinstance(least, int | float) and least > 0 else 0
    if kind in _EMPTY:
        return _EMPTY[kind]
    properties = schema.get("properties")
    if not isinstance(properties, dict) or depth >= _MAX_DEPTH:
        return {}
    required = schema.get("required")
    names = required if isinstance(required, list) else list(properties)
    return {
        name: _minimal(properties[name], prompt, depth + 1)
        for name in names
        if isinstance(name, str) and isinstance(properties.get(name), dict)
    }


_MAX_DEPTH = 8
_EMPTY: dict[Any, Any] = {"boolean": False, "array": (), "null": None}
