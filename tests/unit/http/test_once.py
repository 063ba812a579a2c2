"""What is heard of an answer whose request has an `Idempotency-Key`."""

import pytest

from stationmaster.http.once import _Heard
from stationmaster.http.wire.exchange import Message


@pytest.mark.parametrize(("status", "before"), [(429, 0), (422, 0), (200, 1), (503, 1)])
async def test_a_refusal_is_told_when_its_key_is_free(status: int, before: int) -> None:
    sent: list[Message] = []
    at_settling: list[int] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def settle(_heard: _Heard) -> None:
        at_settling.append(len(sent))

    messages: list[Message] = [
        {"type": "http.response.start", "status": status, "headers": []},
        {"type": "http.response.body", "body": b"a", "more_body": True},
        {"type": "http.response.body", "body": b"b"},
    ]
    heard = _Heard(send, settle)
    for message in messages:
        await heard(message)
    assert sent == messages
    # All but the last are on their way before an answer that is no refusal is settled.
    assert at_settling == [0 if before == 0 else len(messages) - 1]
    assert heard.refused == (before == 0)
