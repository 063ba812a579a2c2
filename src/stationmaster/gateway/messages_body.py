"""Anthropic's requests: Messages, and the count of their tokens."""

import msgspec

from stationmaster.gateway.body import MAX_TOKENS_BOUND, CallBody
from stationmaster.gateway.members import (
    Members,
    check_once,
    decode,
    escaping,
    model_of,
    read,
    refuse_lone_surrogates,
)
from stationmaster.kernel.errors import Invalid


class _Thinking(msgspec.Struct):
    budget_tokens: int | None = None


class _Tool(msgspec.Struct):
    """Only what a server-side tool can cost: its own model, and how often it may be used."""

    type: str | None = None
    model: str | None = None
    max_uses: int | None = None


class _Fallback(msgspec.Struct):
    model: str | None = None


_text_or_null = msgspec.json.Decoder(str | None)
_int = msgspec.json.Decoder(int)
_flag = msgspec.json.Decoder(bool | None)
_thinking = msgspec.json.Decoder(_Thinking | None)
_tools = msgspec.json.Decoder(list[_Tool] | None)
_fallbacks = msgspec.json.Decoder(list[_Fallback] | str | None)


def parse_messages(raw: bytes, *, counting: bool = False) -> CallBody:
    """Read a request body. `counting` is for the token count, where `max_tokens` is optional.

    Raises `Invalid` for what is not one JSON object in UTF-8, nests too deep, names a member
    twice, or carries a value of the wrong type in a member that is read here. Everything else
    is the provider's to judge.
    """
    # Each search of the whole costs as much as parsing a long prompt: every one is made once.
    members = decode(raw)
    escaped = escaping(raw)
    cached = b'"cache_control"' in raw
    if escaped:
        refuse_lone_surrogates(raw)
    check_once(raw, members)
    try:
        tools = _costly_tools(members) if "tools" in members else []
        return CallBody(
            operation="count_tokens" if counting else "messages",
            raw=raw,
            members=members,
            model=model_of(members),
            max_tokens=_max_tokens(members, required=not counting),
            stream=bool(read(members, "stream", _flag)) and not counting,
            thinking_budget=_thinking_budget(members) if "thinking" in members else 0,
            speed=read(members, "speed", _text_or_null) if "speed" in members else None,
            inference_geo=(
                read(members, "inference_geo", _text_or_null)
                if "inference_geo" in members
                else None
            ),
            other_models=_other_models(members, tools) if tools or "fallbacks" in members else (),
            web_searches=_web_searches(tools) if tools else 0,
            escaped=escaped,
            cached=cached,
            long_lived=(cached or escaped) and b'"1h"' in raw,
        )
    except RecursionError:
        raise Invalid("The request body nests too deep.") from None


def _max_tokens(members: Members, *, required: bool) -> int:
    value = read(members, "max_tokens", _int)
    if value is None:
        if required:
            raise Invalid("max_tokens: Field required.", param="max_tokens")
        return 0
    # Zero is for the provider to judge: it warms a cache there, and writes nothing.
    if not 0 <= value <= MAX_TOKENS_BOUND:
        raise Invalid(f"max_tokens: Must be between 0 and {MAX_TOKENS_BOUND}.", param="max_tokens")
    return value


def _thinking_budget(members: Members) -> int:
    thinking = read(members, "thinking", _thinking)
    return max(0, thinking.budget_tokens or 0) if thinking is not None else 0


def _costly_tools(members: Members) -> list[_Tool]:
    """The tools, where there may be some that cost more than their tokens."""
    raw = bytes(members["tools"])
    if not any(word in raw for word in (b"advisor", b"web_search_", b"\\u")):
        return []
    return read(members, "tools", _tools) or []


def _other_models(members: Members, tools: list[_Tool]) -> tuple[str, ...]:
    fallbacks = read(members, "fallbacks", _fallbacks)
    names = [each.model for each in fallbacks] if isinstance(fallbacks, list) else []
    names += [tool.model for tool in tools]
    return tuple(name for name in names if name)


def _web_searches(tools: list[_Tool]) -> int | None:
    allowed = 0
    for tool in tools:
        if tool.type is not None and tool.type.startswith("web_search_"):
            if tool.max_uses is None:
                return None
            allowed += max(0, tool.max_uses)
    return allowed
