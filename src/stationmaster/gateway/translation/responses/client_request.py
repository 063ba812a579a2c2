"""What a client of Responses asks for."""

from collections.abc import Iterator

from stationmaster.gateway.translation.chat.client_request import (
    TIERS,
    read_choice,
    read_format,
    unknown_kind,
    user_of,
)
from stationmaster.gateway.translation.content import (
    arguments_of,
    document_of,
    image_of,
    reasoning_of,
)
from stationmaster.gateway.translation.conversation import (
    Choice,
    Conversation,
    Format,
    Part,
    Reasoning,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
    arranged,
)
from stationmaster.gateway.translation.fields import Fields
from stationmaster.gateway.translation.responses import fields as decisions
from stationmaster.gateway.translation.responses.thinking import unsealed

_NAMES = {
    "choice": "tool_choice",
    "reasoning": "reasoning.effort",
    "format": "text.format",
    "turns": "input",
}
_ROLES: dict[str, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}
_LOGPROBS = "message.output_text.logprobs"


def read(request: Fields) -> Conversation:
    """The conversation of a request's body. Raises `Invalid`, naming the field."""
    request.take("model")
    instructions = request.text("instructions")
    first = [Text(instructions)] if instructions else []
    system, turns = arranged(list(_turns(request)), first)
    if _LOGPROBS in request.texts("include"):
        raise request.refuse("include", "The model of this request tells no probabilities.")
    parallel = request.flag("parallel_tool_calls")
    conversation = Conversation(
        turns=turns,
        system=system,
        max_tokens=request.count("max_output_tokens"),
        temperature=request.number("temperature"),
        top_p=request.number("top_p"),
        stream=bool(request.flag("stream")),
        include_usage=True,
        tools=tuple(map(_tool, request.objects("tools"))),
        choice=_choice(request),
        parallel=parallel is not False,
        reasoning=_reasoning(request),
        format=_format(request),
        user=user_of(request),
        tier=request.one_of("service_tier", TIERS),
        names=_NAMES,
    )
    request.done(decisions.REQUEST)
    return conversation


def _reasoning(request: Fields) -> Reasoning | None:
    wanted = request.inner("reasoning")
    if wanted is None:
        return None
    effort = reasoning_of(wanted, "effort")
    wanted.done(decisions.REASONING)
    return effort


def _format(request: Fields) -> Format | None:
    text = request.inner("text")
    wanted = None if text is None else text.inner("format")
    if text is not None:
        text.done(decisions.TEXT)
    if wanted is None:
        return None
    kind = wanted.one_of("type", ("text", "json_object", "json_schema"))
    if kind == "json_schema":
        return read_format(wanted)
    wanted.done()
    return Format() if kind == "json_object" else None


def _choice(request: Fields) -> Choice | None:
    if not isinstance(request.peek("tool_choice"), dict):
        return read_choice(request)
    chosen = request.inner("tool_choice")
    assert chosen is not None
    kind = chosen.word("type")
    if kind != "function":
        raise chosen.refuse("type", f"A choice of the type {kind[:40]!r} cannot be translated.")
    choice = Choice("one", chosen.word("name"))
    chosen.done()
    return choice


def _tool(tool: Fields) -> Tool:
    kind = tool.word("type")
    if kind != "function":
        raise tool.refuse("type", f"A tool of the type {kind[:40]!r} cannot be translated.")
    read_tool = Tool(
        name=tool.word("name"),
        schema=tool.object("parameters") or {"type": "object", "properties": {}},
        description=tool.text("description"),
        strict=tool.flag("strict"),
    )
    tool.done(decisions.TOOL)
    return read_tool


def _turns(request: Fields) -> Iterator[Turn]:
    given = request.peek("input")
    if given is None:
        raise request.refuse("input", "Field required.")
    if isinstance(given, str):
        yield Turn("user", (Text(request.text("input") or ""),), "input")
        return
    for item in request.objects("input"):
        turn = _turn(item)
        if turn is not None:
            yield turn


def _turn(item: Fields) -> Turn | None:
    kind = item.text("type") or "message"
    turn: Turn | None
    match kind:
        case "message":
            role = _ROLES.get(item.word("role"))
            if role is None:
                raise item.refuse("role", "Must be one of " + ", ".join(_ROLES) + ".")
            turn = Turn(role, tuple(_parts(item, "content", media=role == "user")), item.at)
            item.done(decisions.ITEM)
        case "function_call":
            call = ToolCall(item.word("call_id"), item.word("name"), arguments_of(item))
            turn = Turn("assistant", (call,), item.at)
            item.done(decisions.CALL)
        case "function_call_output":
            call_id = item.word("call_id")
            parts = tuple(part for part in _parts(item, "output", media=True) if part != Text(""))
            turn = Turn("user", (ToolResult(call_id, parts),), item.at)
            item.done(decisions.CALL)
        case "reasoning":
            turn = _thought(item)
        case _:
            raise item.refuse("type", f"An item of the type {kind[:40]!r} cannot be translated.")
    return turn


def _thought(item: Fields) -> Turn | None:
    told = [each for name in ("summary", "content") for each in item.objects(name)]
    words = [each.word("text") for each in told]
    thinking = unsealed("".join(words), item.text("encrypted_content"))
    item.done(decisions.ITEM)
    if thinking is None:
        item.ignored.append(item.path("encrypted_content"))
        return None
    return Turn("assistant", (thinking,), item.at)


def _parts(item: Fields, name: str, *, media: bool) -> Iterator[Part]:
    value = item.peek(name)
    if value is None:
        raise item.refuse(name, "Field required.")
    if isinstance(value, str):
        yield Text(item.text(name) or "")
        return
    for part in item.objects(name):
        yield _part(part, media=media)
        part.done(decisions.PART)


def _part(part: Fields, *, media: bool) -> Part:
    kind = part.word("type")
    match kind:
        case "input_text" | "output_text" | "text":
            return Text(part.word("text"))
        case "refusal" if not media:
            return Text(part.word("refusal"))
        case "input_image" if media:
            if part.take("file_id") is not None:
                raise part.refuse("file_id", "Only pictures given by URL can be translated.")
            return image_of(part, "image_url")
        case "input_file" if media:
            return document_of(part)
    raise unknown_kind(part, kind)
