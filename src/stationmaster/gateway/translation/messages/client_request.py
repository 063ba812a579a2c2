"""What a client of Messages asks for."""

from collections.abc import Iterator

from stationmaster.gateway.translation.content import PDF, PICTURES
from stationmaster.gateway.translation.conversation import (
    EFFORTS,
    Choice,
    Conversation,
    Document,
    Format,
    HiddenThinking,
    Image,
    Part,
    Reasoning,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
    arranged,
)
from stationmaster.gateway.translation.fields import Fields
from stationmaster.gateway.translation.messages import fields as decisions

_NAMES = {
    "choice": "tool_choice",
    "reasoning": "thinking",
    "format": "output_config.format",
    "turns": "messages",
}
_ROLES: tuple[Role, ...] = ("user", "assistant", "system")
_STANDARD_ONLY = "standard_only"


def read(request: Fields) -> Conversation:
    """The conversation of a request's body. Raises `Invalid`, naming the field."""
    request.take("model")
    instructions = [part for part in _parts(request, "system") if isinstance(part, Text)]
    system, turns = arranged(list(_turns(request)), instructions)
    max_tokens = request.count("max_tokens")
    if max_tokens is None:
        raise request.refuse("max_tokens", "Field required.")
    effort, shape = _output(request)
    choice, parallel = _choice(request)
    tier = request.one_of("service_tier", ("auto", _STANDARD_ONLY))
    conversation = Conversation(
        turns=turns,
        system=system,
        max_tokens=max_tokens,
        temperature=request.number("temperature"),
        top_p=request.number("top_p"),
        stop=request.texts("stop_sequences"),
        stream=bool(request.flag("stream")),
        include_usage=True,
        tools=tuple(map(_tool, request.objects("tools"))),
        choice=choice,
        parallel=parallel,
        reasoning=_reasoning(request, effort),
        format=shape,
        user=_user(request),
        tier=None if tier is None else ("default" if tier == _STANDARD_ONLY else "auto"),
        names=_NAMES,
    )
    request.done(decisions.REQUEST)
    return conversation


def _user(request: Fields) -> str | None:
    metadata = request.inner("metadata")
    if metadata is None:
        return None
    user = metadata.text("user_id")
    metadata.done()
    return user


def _output(request: Fields) -> tuple[str | None, Format | None]:
    """How much effort, and which shape. `output_format` is the shape's older place."""
    effort, shape = None, request.inner("output_format")
    config = request.inner("output_config")
    if config is not None:
        effort = config.one_of("effort", EFFORTS[2:])
        shape = config.inner("format") or shape
        config.done()
    if shape is None:
        return effort, None
    shape.one_of("type", ("json_schema",))
    schema = shape.object("schema")
    if schema is None:
        raise shape.refuse("schema", "Field required.")
    shape.done()
    return effort, Format(schema=schema, strict=True)


def _reasoning(request: Fields, effort: str | None) -> Reasoning | None:
    chosen = next((each for each in EFFORTS if each == effort), None)
    thinking = request.inner("thinking")
    if thinking is None:
        return None if chosen is None else Reasoning(effort=chosen)
    kind = thinking.word("type")
    budget = thinking.count("budget_tokens")
    thinking.done(decisions.THINKING)
    match kind:
        case "disabled":
            return Reasoning(effort="none")
        case "enabled" if budget is None:
            raise thinking.refuse("budget_tokens", "Field required.")
        case "enabled" | "adaptive":
            return Reasoning(effort=chosen, budget=budget)
    raise thinking.refuse("type", f"Thinking of the type {kind[:40]!r} cannot be translated.")


def _choice(request: Fields) -> tuple[Choice | None, bool]:
    chosen = request.inner("tool_choice")
    if chosen is None:
        return None, True
    kind = chosen.one_of("type", ("auto", "any", "tool", "none"))
    alone = bool(chosen.flag("disable_parallel_tool_use"))
    name = chosen.word("name") if kind == "tool" else None
    chosen.done()
    modes = {"any": Choice("any"), "tool": Choice("one", name), "none": Choice("none")}
    return modes.get(kind or "auto", Choice("auto")), not alone


def _tool(tool: Fields) -> Tool:
    kind = tool.text("type") or "custom"
    if kind != "custom":
        raise tool.refuse("type", f"Anthropic's tool {kind[:40]!r} is not at hand for this model.")
    name, schema = tool.word("name"), tool.object("input_schema")
    if schema is None:
        raise tool.refuse("input_schema", "Field required.")
    read_tool = Tool(
        name=name, schema=schema, description=tool.text("description"), strict=tool.flag("strict")
    )
    tool.done(decisions.TOOL)
    return read_tool


def _turns(request: Fields) -> Iterator[Turn]:
    if request.peek("messages") is None:
        raise request.refuse("messages", "Field required.")
    for message in request.objects("messages"):
        role = message.one_of("role", _ROLES)
        if role is None:
            raise message.refuse("role", "Field required.")
        if message.peek("content") is None:
            raise message.refuse("content", "Field required.")
        parts = tuple(_parts(message, "content", role))
        message.done()
        yield Turn(role, parts, message.at)


def _parts(fields: Fields, name: str, role: Role = "system") -> Iterator[Part]:
    if isinstance(fields.peek(name), str):
        yield Text(fields.text(name) or "")
        return
    for block in fields.objects(name):
        yield _part(block, role)


def _part(block: Fields, role: Role) -> Part:
    kind = block.word("type")
    part: Part
    match kind, role:
        case "text", _:
            part = Text(block.word("text"))
            block.done(decisions.TEXT)
        case "image", "user":
            part = _image(block)
        case "document", "user":
            part = _document(block)
        case "tool_result", "user":
            part = _result(block)
        case "tool_use", "assistant":
            part = ToolCall(block.word("id"), block.word("name"), block.object("input") or {})
            block.done(decisions.CALL)
        case "thinking", "assistant":
            part = Thinking(block.text("thinking") or "", block.text("signature") or "")
            block.done()
        case "redacted_thinking", "assistant":
            part = HiddenThinking(block.word("data"))
            block.done()
        case _:
            raise block.refuse(
                "type", f"Content of the type {kind[:40]!r} cannot be translated here."
            )
    return part


def _result(block: Fields) -> ToolResult:
    call_id, failed = block.word("tool_use_id"), bool(block.flag("is_error"))
    parts = tuple(part for part in _parts(block, "content", "user") if part != Text(""))
    if any(isinstance(part, ToolResult) for part in parts):
        raise block.refuse("content", "A tool's result cannot be in another's.")
    block.done(decisions.CALL)
    return ToolResult(call_id, parts, failed)


def _source(block: Fields) -> tuple[Fields, str]:
    source = block.inner("source")
    if source is None:
        raise block.refuse("source", "Field required.")
    return source, source.word("type")


def _image(block: Fields) -> Image:
    source, kind = _source(block)
    if kind == "url":
        image = Image(url=source.word("url"))
    elif kind == "base64":
        media_type = source.one_of("media_type", PICTURES)
        if media_type is None:
            raise source.refuse("media_type", "Field required.")
        image = Image(media_type=media_type, data=source.word("data"))
    else:
        raise source.refuse("type", "Only pictures in base64 or by URL can be translated.")
    source.done()
    block.done(decisions.IMAGE)
    return image


def _document(block: Fields) -> Document | Text:
    source, kind = _source(block)
    name = block.text("title")
    part: Document | Text
    if kind == "base64":
        source.one_of("media_type", (PDF,))
        part = Document(source.word("data"), name)
    elif kind == "text":
        source.one_of("media_type", ("text/plain",))
        part = Text(f"{name}\n\n{source.word('data')}" if name else source.word("data"))
    else:
        raise source.refuse("type", "Only documents in base64 or as text can be translated.")
    source.done()
    block.done(decisions.DOCUMENT)
    return part
