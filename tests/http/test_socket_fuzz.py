"""`/v1/stream` under anything at all: frames of any kind, in any order, some of them no frames.

Whatever comes, the server answers with frames that are documented, or closes with a code that is;
it logs no fault of its own, and serves the next client.
"""

import asyncio
import base64
import json
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stationmaster.agents.scripted import Say
from stationmaster.http.shapes.stream import FRAMES
from stationmaster.http.sockets.connection import Close
from tests.http.conftest import ADMIN, House

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
# RFC 6455's own, by which the protocol below us answers what is no frame.
PROTOCOL_CODES = {1000, 1002, 1007}
CODES = PROTOCOL_CODES | {int(code) for code in Close}
PATIENCE = 30.0

KINDS = [*FRAMES, "chat", "done", "", "auth "]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
MEMBERS = st.dictionaries(
    st.sampled_from(
        ["id", "api_key", "model", "messages", "max_tokens", "temperature", "project_id", "task_id",
         "session_id", "after", "description", "timeout", "max_cost", "allow_tools",
         "on_disconnect", "files"]
    ),
    VALUES,
    max_size=5,
)  # fmt: skip
CHATS = st.fixed_dictionaries(
    {
        "type": st.just("chat"),
        "model": st.just("haiku"),
        "messages": st.lists(
            st.fixed_dictionaries(
                {"role": st.sampled_from(["user", "system"]), "content": st.text(max_size=20)}
            ),
            max_size=3,
        ),
    },
    optional={"id": st.sampled_from("abc"), "max_tokens": st.integers(-2, 50)},
)


def frame(opcode: int, payload: bytes, *, fin: bool = True, bits: int = 0) -> bytes:
    """A client's frame."""
    mask, size = os.urandom(4), len(payload)
    head = bytes([fin << 7 | bits << 4 | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += bytes([0x80 | 126]) + struct.pack("!H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", size)
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def as_text(value: Any) -> bytes:
    return frame(TEXT, json.dumps(value).encode("utf-8", "surrogatepass"))


SENT = st.one_of(
    CHATS.map(as_text),
    st.tuples(st.sampled_from(KINDS), MEMBERS).map(lambda two: as_text({**two[1], "type": two[0]})),
    VALUES.map(as_text),
    st.text(max_size=200).map(lambda text: frame(TEXT, text.encode("utf-8", "surrogatepass"))),
    st.binary(max_size=200).map(lambda raw: frame(TEXT, raw)),
    st.binary(max_size=200).map(lambda raw: frame(BINARY, raw)),
    st.binary(max_size=125).map(lambda raw: frame(PING, raw)),
    st.builds(
        frame,
        st.integers(0, 15),
        st.binary(max_size=130),
        fin=st.booleans(),
        bits=st.integers(0, 7),
    ),
    st.integers(1, 5000).map(lambda depth: frame(TEXT, b"[" * depth)),
    st.sampled_from([65_535, 65_536, 70_000]).map(
        lambda size: frame(TEXT, b'{"type":"ping","id":"' + b"x" * size + b'"}')
    ),
    st.just(b"\x81\xff" + struct.pack("!Q", 2**62) + b"mask"),
    st.binary(max_size=40),
)


class Wire:
    """A socket of which every byte can be chosen."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def opened(cls, house: House) -> "Wire":
        url = urlsplit(house.url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET /v1/stream HTTP/1.1\r\nHost: {url.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"Authorization: Bearer {ADMIN}\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        return cls(reader, writer)

    async def send(self, raw: bytes) -> None:
        with suppress(ConnectionError):
            self._writer.write(raw)
            await self._writer.drain()

    async def next(self) -> tuple[int, bytes]:
        """The next frame, a short one."""
        async with asyncio.timeout(PATIENCE):
            opcode, size = await self._reader.readexactly(2)
            return opcode & 15, await self._reader.readexactly(size)

    async def end(self) -> None:
        """Say that nothing more comes."""
        with suppress(OSError):
            self._writer.write_eof()

    async def heard(self) -> bytes:
        """All that the server says until it closes."""
        parts = []
        with suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while part := await self._reader.read(65536):
                    parts.append(part)
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
        return b"".join(parts)


def frames(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """The frames that a server sent; one that is cut at the end is left out."""
    at = 0
    while at + 2 <= len(raw):
        opcode, size, at = raw[at] & 15, raw[at + 1], at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size, at = int.from_bytes(raw[at : at + width], "big"), at + width
        if at + size > len(raw):
            return
        yield opcode, raw[at : at + size]
        at += size


KNOWN = {
    "accepted", "authenticated", "cancelling", "done", "error", "following", "message", "pong",
    "queued", "result", "session_event", "started", "thinking", "thinking_token", "token",
    "tool_call", "tool_result",
}  # fmt: skip


@pytest.mark.timeout(600)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(sent=st.lists(SENT, min_size=1, max_size=8))
async def test_whatever_comes_the_server_stays_itself(
    house: House, capsys: pytest.CaptureFixture[str], sent: list[bytes]
) -> None:
    house.agent.script = (Say("Hello."),)
    wire = await Wire.opened(house)
    for raw in sent:
        await wire.send(raw)
    # Where one has begun a frame that swallows this, the connection's end is the end.
    await wire.send(frame(CLOSE, struct.pack("!H", 1000)))
    await wire.end()
    for opcode, payload in frames(await wire.heard()):
        if opcode == TEXT:
            told = json.loads(payload)
            assert told["type"] in KNOWN, told
            assert told["type"] != "error" or told["code"] != "internal_error", told
        elif opcode == CLOSE and payload:
            assert struct.unpack("!H", payload[:2])[0] in CODES, payload
    other = await Wire.opened(house)
    await other.send(as_text({"type": "ping", "id": "next"}))
    assert await other.next() == (TEXT, b'{"type":"pong","id":"next"}')
    await other.send(frame(CLOSE, struct.pack("!H", 1000)))
    await other.heard()
    logged = capsys.readouterr()
    for told in (logged.out, logged.err):
        assert "Traceback" not in told
        assert "failed in this server" not in told
