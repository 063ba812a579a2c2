"""What a client makes of a refusal that comes when its stream has begun already."""

from typing import Any

import anthropic
import openai
import pytest

from stationmaster.http.wire import anthropic as anthropics
from stationmaster.http.wire import openai as openais
from tests.unit.gateway.translation.upstream import anthropic_client, openai_client

BODIES = [
    b'{"error": {"message": "no", "type": "t", "param": null, "code": null}}',
    b'{"type": "error", "error": {"type": "api_error", "message": "no"}}',
    b'{"detail": "no"}',
    b'{"error": null}',
    b"{}",
    b"[]",
    b'"no"',
    b"<html>",
    b"",
]
HELLO: Any = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("body", BODIES)
def test_openais_client_raises_whatever_the_body_was(body: bytes) -> None:
    chat = openais.FACES[openais.CHAT].told(body, "req_1")
    with pytest.raises(openai.APIError):
        list(
            openai_client(chat, stream=True).chat.completions.create(
                model="m", messages=HELLO, stream=True
            )
        )
    response = openais.FACES[openais.RESPONSES].told(body, "req_1")
    with pytest.raises(openai.APIError):
        list(
            openai_client(response, stream=True).responses.create(
                model="m", input="hi", stream=True
            )
        )


@pytest.mark.parametrize("body", BODIES)
def test_so_does_anthropics(body: bytes) -> None:
    told = anthropics.FACES[anthropics.MESSAGES].told(body, "req_1")
    with pytest.raises(anthropic.APIStatusError):
        list(
            anthropic_client(told, stream=True).messages.create(
                model="m", max_tokens=9, messages=HELLO, stream=True
            )
        )
