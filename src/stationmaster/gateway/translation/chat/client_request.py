"""What a client of chat completions asks for."""

from collections.abc import Iterator
from typing import Literal

from stationmaster.gateway.translation.chat import fields as decisions
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
    HiddenThinking,
    Part,
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
from stationmaster.kernel.errors import Invalid

TIERS: tuple[Literal["auto"], Literal["default"]] = ("auto", "default")

_NAMES = {
    "choice": "tool_choice",
    "reasoning": "reasoning_effort",
    "format": "response_format",
    "turns": "messages",
}


def read(request: Fields) -> Conversation:
    """The conversation of a request's body. Raises `Invalid`, naming the field."""
    request.take("model")
    system, turns = arranged(list(_turns(request)))
    stream = bool(request.flag("stream"))
    choice, tools = _choice(request), tuple(map(_tool, request.objects("tools")))
    parallel = request.flag("parallel_tool_calls")
    conversation = Conversation(
        turns=turns,
        system=system,
        max_tokens=_max_tokens(request),
        temperature=request.number("temperature"),
        top_p=request.number("top_p"),
        stop=request.texts("stop"),
        stream=stream,
        include_usage=_include_usage(request),
        tools=tools,
        choice=choice,
        parallel=parallel is not False,
        reasoning=reasoning_of(request, "reasoning_effort"),
        format=_format(request),
        user=user_of(request),
        tier=request.one_of("service_tier", TIERS),
        names=_NAMES,
    )
    request.done(decisions.REQUEST)
    return conversation


def user_of(request: Fields) -> str | None:
    """Who the end user is: `safety_identifier` has taken the place of `user`."""
    identifier = request.text("safety_identifier")
    if identifier is None:
        return request.text("user")
    request.leave("user")
    return identifier


def _max_tokens(request: Fields) -> int | None:
    old, new = request.count("max_tokens"), request.count("max_completion_tokens")
    if old is not None and new is not None and old != new:
        raise request.refuse("max_tokens", "It contradicts max_completion_tokens.")
    return old if new is None else new


def _include_usage(request: Fields) -> bool:
    options = request.inner("stream_options")
    if options is None:
        return False
    wanted = bool(options.flag("include_usage"))
    options.done(decisions.STREAM_OPTIONS)
    return wanted


def _format(request: Fields) -> Format | None:
    wanted = request.inner("response_format")
    if wanted is None:
        return None
    kind = wanted.one_of("type", ("text", "json_object", "json_schema"))
    described = wanted.inner("json_schema")
    wanted.done()
    if kind != "json_schema":
        return Format() if kind == "json_object" else None
    if described is None:
        raise wanted.refuse("json_schema", "Field required.")
    return read_format(described)


def read_format(described: Fields) -> Format:
    """A schema with its name, as both of OpenAI's formats write it."""
    schema = described.object("schema")
    if schema is None:
        raise described.refuse("schema", "Field required.")
    wanted = Format(
        schema=schema,
        name=described.text("name"),
        description=described.text("description"),
        strict=described.flag("strict"),
    )
    described.done()
    return wanted


def _choice(request: Fields) -> Choice | None:
    if not isinstance(request.peek("tool_choice"), dict):
        return read_choice(request)
    chosen = request.inner("tool_choice")
    assert chosen is not None
    kind = chosen.word("type")
    if kind != "function":
        raise chosen.refuse("type", f"A choice of the type {kind[:40]!r} cannot be translated.")
    function = chosen.inner("function")
    if function is None:
        raise chosen.refuse("function", "Field required.")
    choice = Choice("one", function.word("name"))
    function.done()
    chosen.done()
    return choice


def read_choice(request: Fields) -> Choice | None:
    """A tool choice that is one word."""
    word = request.one_of("tool_choice", ("auto", "none", "required"))
    if word is None:
        return None
    return Choice("none") if word == "none" else Choice("any" if word == "required" else "auto")


def _tool(tool: Fields) -> Tool:
    kind = tool.word("type")
    if kind != "function":
        raise tool.refuse("type", f"A tool of the type {kind[:40]!r} cannot be translated.")
    function = tool.inner("function")
    if function is None:
        raise tool.refuse("function", "Field required.")
    tool.done()
    read_tool = Tool(
        name=function.word("name"),
        schema=function.object("parameters") or {"type": "object", "properties": {}},
        description=function.text("description"),
        strict=function.flag("strict"),
    )
    function.done()
    return read_tool


def _turns(request: Fields) -> Iterator[Turn]:
    if request.peek("messages") is None:
        raise request.refuse("messages", "Field required.")
    for message in request.objects("messages"):
        role = message.one_of("role", ("system", "developer", "user", "assistant", "tool"))
        if role is None:
            raise message.refuse("role", "Field required.")
        match role:
            case "assistant":
                turn = Turn("assistant", tuple(_answer(message)), message.at)
            case "tool":
                turn = Turn("user", (_result(message),), message.at)
            case "user":
                turn = Turn("user", tuple(_content(message, media=True)), message.at)
            case _:
                said: Role = "system"
                turn = Turn(said, tuple(_content(message)), message.at)
        message.done(decisions.MESSAGE)
        yield turn


def _result(message: Fields) -> ToolResult:
    call_id = message.word("tool_call_id")
    return ToolResult(call_id, tuple(part for part in _content(message) if part != Text("")))


def _answer(message: Fields) -> Iterator[Part]:
    """An assistant's message: what it thought, what it said, what it asked for."""
    words = message.text("reasoning_content")
    proofs = list(message.objects("thinking_blocks"))
    for proof in proofs:
        yield _thinking(proof)
    if words and not proofs:
        yield Thinking(words)
    yield from _content(message)
    if refusal := message.text("refusal"):
        yield Text(refusal)
    for call in message.objects("tool_calls"):
        kind = call.text("type") or "function"
        if kind != "function":
            raise call.refuse("type", f"A call of the type {kind[:40]!r} cannot be translated.")
        call.take("index")
        function = call.inner("function")
        if function is None:
            raise call.refuse("function", "Field required.")
        yield ToolCall(call.word("id"), function.word("name"), arguments_of(function))
        function.done()
        call.done()


def _thinking(proof: Fields) -> Part:
    kind = proof.one_of("type", ("thinking", "redacted_thinking"))
    proof.take("index")
    part: Part
    if kind == "redacted_thinking":
        part = HiddenThinking(proof.word("data"))
    else:
        part = Thinking(proof.text("thinking") or "", proof.text("signature") or "")
    proof.done()
    return part


def _content(message: Fields, *, media: bool = False) -> Iterator[Part]:
    content = message.peek("content")
    if content is None or isinstance(content, str):
        yield Text(message.text("content") or "")
        return
    for part in message.objects("content"):
        yield _part(part, media=media)
        part.done(decisions.PART)


def _part(part: Fields, *, media: bool) -> Part:
    kind = part.word("type")
    match kind:
        case "text":
            return Text(part.word("text"))
        case "refusal" if not media:
            return Text(part.word("refusal"))
        case "image_url" if media:
            image = part.inner("image_url")
            if image is None:
                raise part.refuse("image_url", "Field required.")
            found = image_of(image, "url")
            image.done(decisions.IMAGE)
            return found
        case "file" if media:
            file = part.inner("file")
            if file is None:
                raise part.refuse("file", "Field required.")
            document = document_of(file)
            file.done()
            return document
    raise unknown_kind(part, kind)


def unknown_kind(part: Fields, kind: str) -> Invalid:
    """The error for a part of a message that has no place here."""
    return part.refuse("type", f"Content of the type {kind[:40]!r} cannot be translated here.")
