"""A provider on raw asyncio, in a process of its own: 20-event streams, or one slow answer.

    python -m bench.stub --delay 0.05

prints its port and serves until its stdin ends. A request that says `"stream":true` gets the
stream, each event in a write of its own; any other gets the fixed answer after the delay.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Any, cast

ANSWER_BYTES = 600
EVENTS = 20
_OK = b"HTTP/1.1 200 OK\r\n"


def answer() -> bytes:
    """A Messages answer of about 600 bytes, with its usage."""
    whole = _message([{"type": "text", "text": ""}], "end_turn")
    padding = "The quick brown fox jumps over the lazy dog. " * 20
    spare = ANSWER_BYTES - len(json.dumps(whole))
    whole["content"][0]["text"] = padding[:spare]
    return json.dumps(whole).encode()


def events() -> list[bytes]:
    """A streamed answer as server-sent events."""
    return [
        f"event: {frame['type']}\ndata: {json.dumps(frame)}\n\n".encode() for frame in _frames()
    ]


def _message(content: list[dict[str, Any]], stop_reason: str | None) -> dict[str, Any]:
    return {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 21,
            "output_tokens": 90,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    }


def _frames() -> Iterator[dict[str, Any]]:
    yield {"type": "message_start", "message": _message([], None)}
    block = {"type": "text", "text": ""}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    for _ in range(EVENTS - 5):
        delta = {"type": "text_delta", "text": "The quick brown fox. "}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 90},
    }
    yield {"type": "message_stop"}


class _Stub(asyncio.Protocol):
    """One connection. Requests do not overlap: neither of its clients pipelines."""

    def __init__(self, delay: float, whole: bytes, pieces: list[bytes]) -> None:
        self._delay = delay
        self._whole = whole
        self._pieces = pieces
        self._seen = bytearray()
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none by inheritance.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, found, rest = bytes(self._seen).partition(b"\r\n\r\n")
        if not found or len(rest) < _content_length(head):
            return
        self._seen.clear()
        streamed = b'"stream":true' in rest or b'"stream": true' in rest
        if streamed:
            self._loop.call_later(self._delay, self._stream, 0)
        else:
            self._loop.call_later(self._delay, self._write, self._whole)

    def _stream(self, index: int) -> None:
        self._write(self._pieces[index])
        if index + 1 < len(self._pieces):
            self._loop.call_soon(self._stream, index + 1)

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def _serve(delay: float) -> None:
    body = answer()
    whole = _OK + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    pieces = [_chunk(event) for event in events()]
    head = b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces[0] = _OK + head + pieces[0]
    pieces.append(b"0\r\n\r\n")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Stub(delay, whole, pieces), "127.0.0.1", 0, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await loop.run_in_executor(None, sys.stdin.buffer.read)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stub", description=__doc__)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before an answer")
    options = parser.parse_args()
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options.delay))


if __name__ == "__main__":
    main()
