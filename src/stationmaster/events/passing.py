"""What followers on other servers are told, as bytes."""

from typing import Any

import msgspec

from stationmaster.events.event import Event, Live

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def encode(message: Any) -> bytes:
    """Events, `Live` news and words whole; of all else that there is something, which is b""."""
    if isinstance(message, Live):
        return _encoder.encode(("live", message.type, message.data))
    if isinstance(message, str):
        return _encoder.encode(("word", message))
    if isinstance(message, list) and message:
        batch = [(e.stream_id, e.seq, e.at, e.type, e.version, e.data) for e in message]
        return _encoder.encode(("events", batch))
    return b""


def decode(payload: bytes) -> list[Event] | Live | str:
    """The same again, of `encode`'s bytes. Raises where they are something else."""
    kind, *rest = _decoder.decode(payload)
    if kind == "live":
        type_, data = rest
        return Live(type_, data)
    if kind == "word":
        [word] = rest
        return str(word)
    if kind != "events":
        raise ValueError("unknown kind of message")
    [batch] = rest
    return [Event(*fields) for fields in batch]
