"""Every field that the vendors' clients know has a decision, and the guide tells it."""

import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from anthropic.types import message_create_params as messages_params
from anthropic.types.beta import message_create_params as beta_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params as responses_params

from stationmaster.gateway.translation.chat import fields as chat
from stationmaster.gateway.translation.fields import Fields, Ignored
from stationmaster.gateway.translation.messages import fields as messages
from stationmaster.gateway.translation.responses import fields as responses
from stationmaster.kernel.errors import Invalid

GUIDE = Path(__file__).parents[4] / "docs" / "guides" / "translation.md"

FORMATS: dict[str, tuple[Any, list[Any]]] = {
    "chat": (
        chat,
        [
            chat_params.CompletionCreateParamsNonStreaming,
            chat_params.CompletionCreateParamsStreaming,
        ],
    ),
    "messages": (
        messages,
        [
            messages_params.MessageCreateParamsNonStreaming,
            messages_params.MessageCreateParamsStreaming,
            beta_params.MessageCreateParamsNonStreaming,
        ],
    ),
    "responses": (
        responses,
        [
            responses_params.ResponseCreateParamsNonStreaming,
            responses_params.ResponseCreateParamsStreaming,
        ],
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_field_of_the_vendors_client_has_one_decision(name: str) -> None:
    decided, params = FORMATS[name]
    known = {field for each in params for field in get_type_hints(each)}
    assert known - decided.TRANSLATED - set(decided.REQUEST) == set()
    assert decided.TRANSLATED & set(decided.REQUEST) == set()


@pytest.mark.parametrize("name", FORMATS)
def test_the_guide_tells_every_decision(name: str) -> None:
    decided, _ = FORMATS[name]
    guide = GUIDE.read_text()
    section = guide.partition(f"\n## What becomes of a {name} request")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+)", section, re.MULTILINE))
    expected = dict.fromkeys(decided.TRANSLATED, "translated")
    for field, decision in decided.REQUEST.items():
        expected[field] = "ignored" if isinstance(decision, Ignored) else "refused"
    assert rows == expected


def test_what_nobody_takes_is_refused() -> None:
    fields = Fields({"a": 1, "b": None, "c": 2}, "x[0]", [])
    assert fields.count("a") == 1
    with pytest.raises(Invalid, match=r"x\[0\]\.c"):
        fields.done()


def test_a_long_name_is_not_repeated_in_full() -> None:
    with pytest.raises(Invalid) as caught:
        Fields({"n" * 10_000: 1}, "", []).done()
    assert len(caught.value.message) < 300
