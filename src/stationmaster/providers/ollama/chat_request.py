"""A chat request in OpenAI's format, told in Ollama's.

What Ollama has no word for is refused by name; nothing is left out silently but what cannot
change the answer (who the user is, what to keep of it).
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from stationmaster.kernel.errors import Invalid
from stationmaster.providers.ollama.context import ContextSizes

Json = dict[str, Any]

_DATA_URL = re.compile(r"data:(?:image/[a-z0-9.+-]+)?;base64,")
_WITHOUT_EFFECT = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
)
_EFFORTS: dict[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
}


# Below one it would mean to Ollama: without an end.
_Bound = Annotated[int, msgspec.Meta(ge=1)]


class _ImageUrl(msgspec.Struct):
    url: str


class _Part(msgspec.Struct):
    type: str
    text: str = ""
    image_url: _ImageUrl | None = None


class _Function(msgspec.Struct):
    name: str
    arguments: str = ""


class _ToolCall(msgspec.Struct):
    function: _Function
    id: str = ""


class _Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str = ""
    reasoning_content: str | None = None


class _Schema(msgspec.Struct):
    schema: Json


class _ResponseFormat(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What of OpenAI's request is understood here."""

    model: str
    messages: list[_Message]
    stream: bool = False
    stream_options: _StreamOptions = msgspec.field(default_factory=_StreamOptions)
    max_tokens: _Bound | None = None
    max_completion_tokens: _Bound | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: str | list[str] | None = None
    response_format: _ResponseFormat | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json = "auto"
    parallel_tool_calls: bool = True
    reasoning_effort: str | None = None
    n: int = 1
    logprobs: bool = False

    @property
    def include_usage(self) -> bool:
        """Whether the last event of a stream tells the usage."""
        return bool(self.stream_options.include_usage)


def read_chat(body: bytes) -> ChatRequest:
    """Read a request. Raises `Invalid` naming what is wrong, or is nothing to Ollama."""
    try:
        given = msgspec.json.decode(body, type=Json)
        fields = {
            name: value
            for name, value in given.items()
            if value is not None and name not in _WITHOUT_EFFECT
        }
        asked = msgspec.convert(fields, ChatRequest)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Invalid(f"Ollama cannot be asked this: {error}.") from None
    for name, refused in (
        ("n", asked.n != 1),
        ("logprobs", asked.logprobs),
        ("parallel_tool_calls", not asked.parallel_tool_calls),
        ("tool_choice", asked.tool_choice not in ("auto", "none")),
        ("reasoning_effort", asked.reasoning_effort not in {None, *_EFFORTS}),
    ):
        if refused:
            raise Invalid(f"Ollama cannot be asked for this {name}.", param=name)
    return asked


def told(
    asked: ChatRequest,
    *,
    model: str,
    sizes: ContextSizes,
    preset: Mapping[str, Any],
    keep_alive: str | int | None,
) -> Json:
    """The body for `/api/chat`. `preset` holds options that the request may overrule."""
    messages = _messages(asked.messages)
    tools = asked.tools if asked.tool_choice != "none" else None
    answer = asked.max_completion_tokens or asked.max_tokens
    texts = [{**message, "images": None} for message in messages]
    options: Json = {
        **preset,
        **{name: value for name in _SAMPLING if (value := getattr(asked, name)) is not None},
    }
    if answer is not None:
        options["num_predict"] = answer
    if asked.stop is not None:
        options["stop"] = [asked.stop] if isinstance(asked.stop, str) else asked.stop
    size = sizes.fitting(
        prompt_bytes=len(msgspec.json.encode([texts, tools])),
        images=sum(len(message.get("images", ())) for message in messages),
        answer=answer,
    )
    options["num_ctx"] = max(size, options.get("num_ctx", 0))
    body: Json = {
        "model": model,
        "messages": messages,
        "stream": asked.stream,
        # Else the beginning of what is too long goes missing, of the prompt and of the answer.
        "truncate": False,
        "shift": False,
        "options": options,
    }
    if tools:
        body["tools"] = tools
    if asked.reasoning_effort is not None:
        body["think"] = _EFFORTS[asked.reasoning_effort]
    if (form := _form(asked.response_format)) is not None:
        body["format"] = form
    if keep_alive is not None:
        body["keep_alive"] = keep_alive
    return body


def _messages(messages: list[_Message]) -> list[Json]:
    called = {
        call.id: call.function.name for message in messages for call in message.tool_calls or ()
    }
    return [_message(message, called) for message in messages]


def _message(message: _Message, called: dict[str, str]) -> Json:
    text, images = _content(message.content)
    role = "system" if message.role == "developer" else message.role
    shown: Json = {"role": role, "content": text}
    if images:
        shown["images"] = images
    if message.reasoning_content:
        shown["thinking"] = message.reasoning_content
    if message.tool_calls:
        shown["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    if message.role == "tool":
        if message.tool_call_id not in called:
            raise Invalid("A tool message answers no tool call.", param="messages")
        shown["tool_name"] = called[message.tool_call_id]
        shown["tool_call_id"] = message.tool_call_id
    return shown


def _content(content: str | list[_Part] | None) -> tuple[str, list[str]]:
    """The text, and the images in base64."""
    if content is None or isinstance(content, str):
        return content or "", []
    texts: list[str] = []
    images: list[str] = []
    for part in content:
        if part.type == "text":
            texts.append(part.text)
        elif part.type == "image_url" and part.image_url is not None:
            images.append(_image(part.image_url.url))
        else:
            raise Invalid(f"Ollama takes no content of type {part.type!r}.", param="messages")
    return "\n".join(texts), images


def _image(url: str) -> str:
    # Not fetched for the client: an address inside the operator's network would do as well.
    start = _DATA_URL.match(url[:64])
    if start is None:
        raise Invalid("Images must be data URLs in base64.", param="messages")
    return url[start.end() :]


def _tool_call(call: _ToolCall) -> Json:
    try:
        arguments = msgspec.json.decode(call.function.arguments or "{}", type=Json)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise Invalid("A tool call's arguments must be a JSON object.", param="messages") from None
    return {"id": call.id, "function": {"name": call.function.name, "arguments": arguments}}


def _form(wanted: _ResponseFormat | None) -> str | Json | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return "json"
    if wanted.json_schema is None:
        raise Invalid("A json_schema is required.", param="response_format")
    return wanted.json_schema.schema
