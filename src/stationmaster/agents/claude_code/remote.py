"""Tool servers by URL: we connect to them, and the CLI to us. Its sandbox has no network.

The headers with their secrets never enter the sandbox either.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from mcp import Client
from mcp import types as wire
from mcp.client.streamable_http import streamable_http_client
from mcp.server import Server
from mcp.shared._httpx_utils import create_mcp_http_client

from stationmaster.agents.base import McpServer

_log = structlog.get_logger(__name__)

_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 0.25
# Pages of a list that never ends.
_MAX_PAGES = 20
_UNREACHABLE = "The tool server did not answer."


class Remote:
    """One tool server, connected to while the agent lives."""

    def __init__(self, server: McpServer, take: Callable[[Any], str | None]) -> None:
        """`take` is `Desk.take`."""
        self._take = take
        self.name = server.name
        self._server = server
        self._prefix = f"mcp__{server.name}__"
        self._tools: list[wire.Tool] = []
        self._client: Client | None = None
        self._failure: str | None = None
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> str | None:
        """Connect, for some seconds at most; why it failed, None where it did not."""
        self._task = asyncio.create_task(self._run())
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._ready.wait()
        if self._client is None and self._failure is None:
            self._failure = "It did not answer in time."
        return self._failure

    def served(self) -> "Server[Any]":
        """What the CLI sees: the same tools, under the names that it would give them itself."""

        async def tools(_context: Any, _params: Any) -> wire.ListToolsResult:
            return wire.ListToolsResult(tools=self._tools)

        async def call(context: Any, params: wire.CallToolRequestParams) -> wire.CallToolResult:
            if self._take(context) is None:
                return _error("This call was not permitted.")
            return await self._call(params.name.removeprefix(self._prefix), params.arguments)

        return Server(self.name, version="1", on_list_tools=tools, on_call_tool=call)

    async def close(self) -> None:
        """Disconnect; bounded. Idempotent."""
        self._stop.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_CLOSE_SECONDS)
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_CLOSE_SECONDS)

    async def _run(self) -> None:
        try:
            async with (
                create_mcp_http_client(headers=dict(self._server.headers)) as http,
                Client(streamable_http_client(str(self._server.url), http_client=http)) as client,
            ):
                self._tools = await self._list(client)
                self._client = client
                self._ready.set()
                await self._stop.wait()
        except Exception as error:  # noqa: BLE001  whatever the network and the library raise
            # The reason's words may hold the operator's address; its kind says enough.
            self._failure = f"It cannot be reached: {_kind(error)}."
            _log.warning("A tool server cannot be reached.", server=self.name, reason=_kind(error))
        finally:
            self._client = None
            self._ready.set()

    async def _list(self, client: Client) -> list[wire.Tool]:
        found: list[wire.Tool] = []
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            found += page.tools
            cursor = page.next_cursor
            if cursor is None:
                break
        return [tool.model_copy(update={"name": self._prefix + tool.name}) for tool in found]

    async def _call(self, name: str, given: dict[str, Any] | None) -> wire.CallToolResult:
        try:
            if self._client is not None:
                return await self._client.call_tool(name, given)
        except Exception as error:  # noqa: BLE001  likewise
            _log.warning("A tool server failed.", server=self.name, reason=_kind(error))
        return _error(_UNREACHABLE)


def _error(words: str) -> wire.CallToolResult:
    return wire.CallToolResult(content=[wire.TextContent(type="text", text=words)], is_error=True)


def _kind(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return type(error).__name__
