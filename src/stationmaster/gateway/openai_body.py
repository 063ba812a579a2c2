"""OpenAI's requests: chat completions, responses, embeddings."""

import re

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
    unspelled,
)
from stationmaster.kernel.errors import Invalid

MAX_CHOICES = 128
"""What OpenAI allows of `n`."""


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


_flag = msgspec.json.Decoder(bool | None)
_whole = msgspec.json.Decoder(int | None)
_text = msgspec.json.Decoder(str | None)
_stream_options = msgspec.json.Decoder(_StreamOptions | None)

# What a prompt can name without carrying it, or carry compressed: its bytes bound nothing.
_PACKED = (b'"file"', b'"input_file"')
_PICTURES = (b'"image_url"', b'"input_image"')
_ABROAD_URL = re.compile(rb'"(?:url|image_url|file_id)"[ \t\r\n]*+:[ \t\r\n]*+"(?!data:)')
_ABROAD = frozenset({"prompt"})
_NOT_HERE = {
    "previous_response_id": "The response is not kept here; send the whole conversation.",
    "conversation": "Conversations are not kept here; use previous_response_id.",
    "background": "Responses are not made in the background here; use /v1/batches.",
}
"""Members of Responses that would have a provider spend, or tell, what this server cannot see."""


def parse_chat(raw: bytes) -> CallBody:
    """Read a chat completion's request.

    Raises `Invalid` as `parse_messages` does.
    """
    members, escaped = _open(raw)
    limit = "max_completion_tokens" if "max_completion_tokens" in members else "max_tokens"
    try:
        options = read(members, "stream_options", _stream_options)
        return CallBody(
            operation="chat",
            raw=raw,
            members=members,
            model=model_of(members),
            max_tokens=_bound(members, limit),
            stream=bool(read(members, "stream", _flag)),
            thinking_budget=0,
            speed=read(members, "service_tier", _text),
            inference_geo=None,
            other_models=(),
            web_searches=1 if "web_search_options" in members else 0,
            escaped=escaped,
            cached=False,
            long_lived=False,
            limit=limit,
            choices=_choices(members),
            elsewhere=_elsewhere(raw, escaped=escaped),
            usage_asked_for=bool(options and options.include_usage),
        )
    except RecursionError:
        raise Invalid("The request body nests too deep.") from None


def parse_responses(raw: bytes) -> CallBody:
    """Read a request of the Responses API. Raises `Invalid` as `parse_messages` does."""
    members, escaped = _open(raw)
    for name, why in _NOT_HERE.items():
        if name in members and bytes(members[name]) not in {b"null", b"false"}:
            raise Invalid(f"{name}: {why}", param=name)
    try:
        return CallBody(
            operation="responses",
            raw=raw,
            members=members,
            model=model_of(members),
            max_tokens=_bound(members, "max_output_tokens"),
            stream=bool(read(members, "stream", _flag)),
            thinking_budget=0,
            speed=read(members, "service_tier", _text),
            inference_geo=None,
            other_models=(),
            web_searches=None if b"web_search" in raw or escaped else 0,
            escaped=escaped,
            cached=False,
            long_lived=False,
            limit="max_output_tokens",
            elsewhere=not _ABROAD.isdisjoint(members) or _elsewhere(raw, escaped=escaped),
        )
    except RecursionError:
        raise Invalid("The request body nests too deep.") from None


def parse_embeddings(raw: bytes) -> CallBody:
    """Read a request for embeddings. Raises `Invalid` as `parse_messages` does."""
    members, escaped = _open(raw)
    try:
        return CallBody(
            operation="embeddings",
            raw=raw,
            members=members,
            model=model_of(members),
            max_tokens=0,
            stream=False,
            thinking_budget=0,
            speed=None,
            inference_geo=None,
            other_models=(),
            web_searches=0,
            escaped=escaped,
            cached=False,
            long_lived=False,
            elsewhere=False,
        )
    except RecursionError:
        raise Invalid("The request body nests too deep.") from None


def _open(raw: bytes) -> tuple[Members, bool]:
    members = decode(raw)
    escaped = escaping(raw)
    if escaped:
        refuse_lone_surrogates(raw)
    check_once(raw, members)
    return members, escaped


def _bound(members: Members, name: str) -> int | None:
    value = read(members, name, _whole)
    if value is not None and not 0 < value <= MAX_TOKENS_BOUND:
        raise Invalid(f"{name}: Must be between 1 and {MAX_TOKENS_BOUND}.", param=name)
    return value


def _choices(members: Members) -> int:
    value = read(members, "n", _whole)
    if value is not None and not 0 < value <= MAX_CHOICES:
        raise Invalid(f"n: Must be between 1 and {MAX_CHOICES}.", param="n")
    return value or 1


def _elsewhere(raw: bytes, *, escaped: bool) -> bool:
    """Whether the prompt may name a picture or a file that it does not carry, or only packed."""
    if escaped:
        raw = unspelled(raw)
    if any(name in raw for name in _PACKED):
        return True
    return any(name in raw for name in _PICTURES) and _ABROAD_URL.search(raw) is not None
