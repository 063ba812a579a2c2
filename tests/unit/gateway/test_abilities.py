"""What a model lacks is refused by name, and another target is asked where there is one."""

import json
from typing import Any

import pytest

from stationmaster.gateway import ModelFacts, Models, Pricing, Target, UpstreamOf
from stationmaster.gateway.abilities import able, needs
from stationmaster.gateway.formats import PARSERS, bounded_by
from stationmaster.gateway.listing import Listings
from stationmaster.gateway.routing import Route
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Invalid
from stationmaster.providers.base import Operation
from stationmaster.providers.offline import OfflineProvider

PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aa"}}
URL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aa"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}
RESULT = {"type": "tool_result", "tool_use_id": "t", "content": [PICTURE]}


def body(operation: Operation, **members: Any) -> Any:
    base: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": []}
    if operation == "responses":
        base = {"model": "m", "input": "hi"}
    return PARSERS[operation](json.dumps(base | members).encode())


def said(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


@pytest.mark.parametrize(
    ("operation", "members", "needed"),
    [
        ("messages", {}, set()),
        ("messages", said({"type": "text", "text": '{"type":"image"}'}), set()),
        ("messages", said(PICTURE), {"vision"}),
        ("messages", said(RESULT), {"vision"}),
        ("chat", said(URL), {"vision"}),
        (
            "responses",
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            {"vision"},
        ),
        ("messages", {"tools": [{"name": "t"}]}, {"tools"}),
        ("chat", {"tools": []}, set()),
        ("chat", {"functions": [{"name": "t"}]}, {"tools"}),
        ("chat", {"response_format": SCHEMA}, {"structured_output"}),
        ("chat", {"response_format": {"type": "json_object"}}, set()),
        ("messages", {"output_config": {"format": SCHEMA}}, {"structured_output"}),
        ("responses", {"text": {"format": SCHEMA}}, {"structured_output"}),
        ("messages", {"thinking": {"type": "disabled"}}, set()),
        ("messages", {"thinking": {"type": "adaptive"}}, {"thinking"}),
        ("chat", {"reasoning_effort": "high"}, {"thinking"}),
        ("responses", {"reasoning": {"effort": "none"}}, set()),
        ("messages", {"messages": {"content": [[[[[[[[PICTURE]]]]]]]]}}, set()),
        ("messages", {"tools": "x", "thinking": {}, "output_config": [1]}, {"tools"}),
    ],
)
def test_what_a_request_asks_for(operation: Any, members: Any, needed: set[str]) -> None:
    assert needs(body(operation, **members)) == needed


def targets(*models: str) -> list[Target]:
    upstream = UpstreamOf(OfflineProvider(delay=0))
    return [Target(upstream, model) for model in models]


@pytest.mark.parametrize(
    ("lacks", "members", "words"),
    [
        ("vision", said(PICTURE), "takes no images"),
        ("tools", {"tools": [{"name": "t"}]}, "uses no tools"),
        ("structured_output", {"output_config": {"format": SCHEMA}}, "keeps to no JSON schema"),
        ("thinking", {"thinking": {"type": "adaptive"}}, "cannot be told to think"),
    ],
)
def test_a_call_goes_where_it_can_be_answered(lacks: str, members: Any, words: str) -> None:
    asked = body("messages", **members)
    known = {"small": frozenset({lacks})}
    found = able(targets("small", "large"), known, asked)
    assert [target.model for target in found] == ["large"]
    with pytest.raises(Invalid, match=words) as refused:
        able(targets("small"), known, asked)
    assert refused.value.error_code == "model_lacks_ability"
    plain = able(targets("small", "large"), known, body("messages"))
    assert [target.model for target in plain] == ["small", "large"]


async def test_windows_are_listed_as_far_as_somebody_told() -> None:
    facts = {
        "house": ModelFacts({"input": 1, "output": 1}, context_window=65_536, max_output=8_192)
    }
    (target,) = targets("house")
    models = Models(
        Pricing(clock=ManualClock(1_790_000_000_000), facts=facts),
        target.upstream,
        routes={"house": Route((target,))},
    )
    found = {each.name: each for each in await Listings().of(models)}
    listed = found["claude-haiku-5-5"]
    assert listed.max_output is None
    assert listed.context_window == models.pricing.rates("claude-haiku-5-5").context_window
    assert models.pricing.context_window("house") == 65_536
    assert models.pricing.max_output("house") == 8_192
    assert models.pricing.context_window("nobody-knows-this") is None


@pytest.mark.parametrize(
    ("given", "name", "sent"),
    [
        ({"max_tokens": 5}, "max_completion_tokens", {"max_completion_tokens": 5}),
        ({"max_completion_tokens": 5}, "max_tokens", {"max_tokens": 5}),
        ({"max_tokens": 5}, "max_tokens", {"max_tokens": 5}),
        ({}, "max_tokens", {}),
    ],
)
def test_a_bound_gets_the_name_that_its_provider_knows(given: Any, name: str, sent: Any) -> None:
    raw = json.dumps({"model": "m", "messages": [], "seed": 1.50, **given}).encode()
    found = bounded_by(PARSERS["chat"](raw), name)
    assert json.loads(found.raw) == {"model": "m", "messages": [], "seed": 1.5, **sent}
    assert found.max_tokens == (5 if given else None)


def test_two_bounds_of_which_one_must_go_are_refused() -> None:
    raw = b'{"model":"m","messages":[],"max_tokens":5,"max_completion_tokens":6}'
    with pytest.raises(Invalid, match="contradicts"):
        bounded_by(PARSERS["chat"](raw), "max_tokens")
