"""What a call needs of its model, where an operator says that some model lacks something."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from stationmaster.gateway.body import CallBody
from stationmaster.gateway.routing import Target
from stationmaster.kernel.errors import Invalid

_PICTURES = frozenset({"image", "image_url", "input_image"})
_NOTHING: tuple[Any, ...] = (None, [], {}, "none", "disabled")


def able(
    targets: list[Target], lacks: Mapping[str, frozenset[str]], body: CallBody
) -> list[Target]:
    """The targets that can do what a call needs, in their order.

    Raises `Invalid` with code `model_lacks_ability` where none can.
    """
    if not any(target.model in lacks for target in targets):
        return targets
    needed = needs(body)
    fit = [target for target in targets if needed.isdisjoint(lacks.get(target.model, ()))]
    if not fit:
        missing = sorted(needed & lacks[targets[0].model])[0]
        raise Invalid(
            f"model: {body.model} {_WORDS[missing]}.", code="model_lacks_ability", param="model"
        )
    return fit


_WORDS = {
    "vision": "takes no images",
    "tools": "uses no tools",
    "structured_output": "keeps to no JSON schema",
    "thinking": "cannot be told to think",
}


def needs(body: CallBody) -> frozenset[str]:
    """The abilities that a request asks for, in any of the formats."""
    try:
        members = msgspec.json.decode(body.raw)
    except (msgspec.DecodeError, RecursionError):
        return frozenset()  # others say what is wrong with it
    return frozenset(name for name, asks in _ASKS.items() if asks(members))


def _shows_pictures(members: dict[str, Any]) -> bool:
    said = [members.get("messages"), members.get("input")]
    return any(
        isinstance(part, dict) and part.get("type") in _PICTURES for part in _parts(said, depth=0)
    )


_DEPTH = 6  # messages, a message, its content, a tool's result, its content, a part
_INSIDE = ("content", "output")


def _parts(value: Any, *, depth: int) -> Iterator[Any]:
    if depth > _DEPTH:
        return
    if isinstance(value, dict):
        yield value
        for name in _INSIDE:
            yield from _parts(value.get(name), depth=depth + 1)
    elif isinstance(value, list):
        for each in value:
            yield from _parts(each, depth=depth + 1)


def _uses_tools(members: dict[str, Any]) -> bool:
    return any(members.get(name) not in _NOTHING for name in ("tools", "functions"))


def _wants_a_schema(members: dict[str, Any]) -> bool:
    asked: Sequence[Any] = (
        members.get("response_format"),
        members.get("output_format"),
        _of(members.get("output_config"), "format"),
        _of(members.get("text"), "format"),
    )
    return any(_of(each, "type") == "json_schema" for each in asked)


def _thinks(members: dict[str, Any]) -> bool:
    asked = (
        _of(members.get("thinking"), "type"),
        members.get("reasoning_effort"),
        _of(members.get("reasoning"), "effort"),
    )
    return any(each not in _NOTHING for each in asked)


def _of(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


_ASKS: Mapping[str, Callable[[dict[str, Any]], bool]] = {
    "vision": _shows_pictures,
    "tools": _uses_tools,
    "structured_output": _wants_a_schema,
    "thinking": _thinks,
}
