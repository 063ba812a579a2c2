"""The load: wrk for whole answers, and a raw client where the first byte counts."""

import asyncio
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import cast
from urllib.parse import urlsplit

import msgspec

from bench.process import pinned
from bench.programs import require
from bench.server import KEY

_SCRIPT = Path(__file__).with_name("post.lua")
_SUMMARY = re.compile(rb"^summary (\{.*\})$", re.MULTILINE)


class WrkResult(msgspec.Struct, frozen=True):
    """One run of wrk. Latencies are in milliseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    failed: int

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.requests / self.seconds


def wrk(
    url: str,
    body: Path,
    *,
    in_flight: int,
    seconds: int,
    cores: frozenset[int] | None = None,
    some: bool = True,
) -> WrkResult:
    """POST `body` with `in_flight` calls at a time. Raises `RuntimeError` where one fails.

    So it does where none ends in time, but for `some` being false.
    """
    command = [
        require("wrk"),
        *("-t1", f"-c{in_flight}", f"-d{seconds}s", "--timeout", "30s", "-s", str(_SCRIPT)),
        *(f"{url}/v1/messages", "--", str(body), KEY),
    ]
    with pinned(cores):
        done = subprocess.run(command, capture_output=True, check=False)
    found = _SUMMARY.search(done.stdout)
    if done.returncode or found is None:
        raise RuntimeError(f"wrk failed: {(done.stdout + done.stderr).decode()[-2000:]}")
    result = msgspec.json.decode(found.group(1), type=WrkResult)
    if result.failed or (some and not result.requests):
        raise RuntimeError(f"{result.failed} of {result.requests} calls to {url} failed.")
    return result


@dataclass(frozen=True, slots=True)
class StreamResult:
    """One run of streams. `first_byte` is the median in milliseconds from the request to it."""

    rate: float
    first_byte: float


async def streams(url: str, body: bytes, *, in_flight: int, seconds: float) -> StreamResult:
    """Read streams to their end, `in_flight` at a time. Raises `RuntimeError` where one breaks."""
    parts = urlsplit(url)
    request = (
        f"POST /v1/messages HTTP/1.1\r\nhost: {parts.netloc}\r\nx-api-key: {KEY}\r\n"
        "anthropic-version: 2023-06-01\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body
    assert parts.port is not None
    until = time.perf_counter() + seconds
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_reader(parts.port, request, until)) for _ in range(in_flight)]
    waits = [wait for task in tasks for wait in task.result()]
    return StreamResult(len(waits) / (time.perf_counter() - began), median(waits) * 1000)


async def _reader(port: int, request: bytes, until: float) -> list[float]:
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_connection(_StreamClient, "127.0.0.1", port)
    waits = []
    try:
        while time.perf_counter() < until:
            waits.append(await client.read(request))
    finally:
        transport.close()
    return waits


class _StreamClient(asyncio.Protocol):
    """Reads one chunked answer after another on one connection, and times its first byte."""

    def __init__(self) -> None:
        self._seen = bytearray()
        self._began = 0.0
        self._first: float | None = None
        self._end: asyncio.Future[float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none by inheritance.
        self._transport = cast("asyncio.Transport", transport)

    async def read(self, request: bytes) -> float:
        """Send the request, read to the end; seconds to the first byte of the body."""
        self._seen.clear()
        self._first = None
        self._end = asyncio.get_running_loop().create_future()
        self._began = time.perf_counter()
        self._transport.write(request)
        return await self._end

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._seen += data
        if self._first is None:
            head = self._seen.find(b"\r\n\r\n")
            if head < 0 or len(self._seen) <= head + 4:
                return
            self._first = now - self._began
        if self._end is not None and not self._end.done() and self._seen.endswith(b"0\r\n\r\n"):
            if self._seen.startswith(b"HTTP/1.1 200") and b"message_stop" in self._seen:
                self._end.set_result(self._first)
            else:
                self._end.set_exception(RuntimeError(bytes(self._seen[:2000]).decode()))

    def connection_lost(self, error: Exception | None) -> None:
        if self._end is not None and not self._end.done():
            what = bytes(self._seen[:2000]).decode(errors="replace")
            self._end.set_exception(RuntimeError(f"The connection was lost: {error} {what}"))
