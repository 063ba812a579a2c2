"""One live agent: turns over the SDK's client, one pump, one end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog
from claude_agent_sdk import ClaudeSDKClient, MirrorErrorMessage, ResultMessage

from stationmaster.agents.base import (
    AgentEvent,
    AgentExited,
    AgentFailure,
    AgentProtocolError,
    AgentUnavailable,
    Finished,
    Host,
    LaunchSpec,
    McpFailed,
)
from stationmaster.agents.claude_code.desk import Desk
from stationmaster.agents.claude_code.history import Mirror
from stationmaster.agents.claude_code.launcher import AgentProcess, finish
from stationmaster.agents.claude_code.leftovers import Leftovers
from stationmaster.agents.claude_code.mask import Mask
from stationmaster.agents.claude_code.options import client_options, served
from stationmaster.agents.claude_code.processes import read_table
from stationmaster.agents.claude_code.remote import Remote
from stationmaster.agents.claude_code.toolbox import Toolbox
from stationmaster.agents.claude_code.translate import Translator
from stationmaster.agents.claude_code.transport import ProcessTransport
from stationmaster.kernel.errors import Conflict

_log = structlog.get_logger(__name__)

# Messages that wait for a slow reader; then the agent itself is held back.
_QUEUED_MESSAGES = 64
_INTERRUPT_SECONDS = 5.0
# After its input ends an idle agent writes its transcript and goes; then it is killed.
_GRACE_SECONDS = 0.5
_DISCONNECT_SECONDS = 1.5
_STATUS_SECONDS = 2.0

INTERRUPTED = "interrupted"


class LiveClaude:
    """A started Claude Code. `released` is awaited once, after the last process is gone.

    `last_look` is awaited as soon as it ends by itself: it calls `fail` where a limit was the
    reason. `settled` is called between turns, once nothing of them runs. `mask` hides what the
    agent must not make public.
    """

    def __init__(
        self,
        process: AgentProcess,
        *,
        rung: str,
        spec: LaunchSpec,
        max_frame_bytes: int,
        before_turn: Callable[[], Awaitable[None]],
        last_look: Callable[[], Awaitable[None]],
        settled: Callable[[], None],
        released: Callable[[], Awaitable[None]],
        mask: Mask | None = None,
    ) -> None:
        self._process = process
        self._rung = rung
        self._spec = spec
        self._toolbox = Toolbox(spec)
        self._desk = Desk(spec, self._toolbox, mask=mask)
        self._before_turn = before_turn
        self._settled = settled
        self._released = released
        self._mask = mask
        transport = ProcessTransport(
            process,
            max_frame_bytes=max_frame_bytes,
            last_look=last_look,
            notice=self._desk.notice,
        )
        self._remotes = [
            Remote(each, self._desk.take) for each in spec.mcp_servers if each.url is not None
        ]
        self._mirror = None
        if spec.transcripts is not None:
            self._mirror = Mirror(spec.transcripts, self.agent_session_id, mask=mask)
        self._served = served(spec, self._desk, self._remotes)
        options = client_options(spec, self._desk, self._served, self._mirror)
        self._client = ClaudeSDKClient(options, transport)
        self._messages: asyncio.Queue[object] = asyncio.Queue(_QUEUED_MESSAGES)
        self._leftovers = Leftovers(
            process, servers=any(server.command for server in spec.mcp_servers)
        )
        # Set while no turn runs in the agent, whether or not anybody reads it.
        self._idle = asyncio.Event()
        self._idle.set()
        self._reading = False
        # Set while the agent's messages belong to the turn that is read.
        self._delivering = False
        self._translator: Translator | None = None
        self._interrupt_wanted = False
        self._cost_before = 0.0
        self._reasons: dict[str, str] | None = None
        self._unreached: dict[str, str] = {}
        self._failure: AgentFailure | None = None
        self._ended = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._close: asyncio.Task[None] | None = None

    @property
    def rung(self) -> str:
        """How it is confined."""
        return self._rung

    @property
    def ended(self) -> bool:
        """Whether it is over; see `LiveAgent.ended`."""
        return self._ended.is_set()

    def memory(self) -> int:
        """What its processes hold; see `LiveAgent.memory`."""
        return sum(each.resident for each in self._process.members(read_table()))

    async def settle(self) -> None:
        """End what the turns have left running; see `LiveAgent.settle`."""
        if self._idle.is_set() and not self._reading:
            await self._leftovers.end()
            self._settled()

    async def connect(self, *, timeout: float) -> None:
        """Shake hands. Raises `AgentUnavailable` or `AgentProtocolError`; then `close` it."""
        try:
            async with asyncio.timeout(timeout):
                await self._open_remotes()
                await self._client.connect()
                # Now, and not when somebody waits for the first turn.
                await asyncio.to_thread(self._leftovers.remember)
                if self._spec.ahead:
                    await self._get_ready()
        except AgentProtocolError as error:
            error.stderr_tail = self._process.stderr_tail
            raise
        except TimeoutError:
            raise AgentUnavailable(
                f"The agent was not ready within {timeout:g} s.",
                code="agent_start_timeout",
                stderr_tail=self._process.stderr_tail,
            ) from None
        except Exception as error:
            # The SDK raises bare exceptions here; all of them mean that the agent did not start.
            raise AgentUnavailable(
                f"The agent did not start: {error}",
                code="agent_start_failed",
                stderr_tail=self._process.stderr_tail,
            ) from error
        self._pump = asyncio.create_task(self._run_pump())

    async def _get_ready(self) -> None:
        """Have the CLI make its prompt and its tools' descriptions, as it does at its first turn.

        It makes them to measure its context, and leaves nothing in the history: half of what a
        first turn otherwise takes longer than a second. It would have each counted by the model's
        provider, to which it has no right yet; refused, it estimates.
        """
        try:
            await self._client.get_context_usage()
        except AgentFailure:
            raise
        except Exception as error:  # noqa: BLE001  the SDK raises bare exceptions
            # Nobody has lost anything: the first turn takes its time.
            _log.info("The agent did not measure its context.", reason=type(error).__name__)

    async def _open_remotes(self) -> None:
        """Connect to all at once; one that fails is told to the CLI as failed."""
        reasons = await asyncio.gather(*(remote.open() for remote in self._remotes))
        for remote, reason in zip(self._remotes, reasons, strict=True):
            if reason is not None:
                self._unreached[remote.name] = reason
                del self._served[remote.name]

    def fail(self, failure: AgentFailure) -> None:
        """End it because of `failure`, which the running or next turn raises."""
        if self._failure is None:
            self._failure = failure
        self._ended.set()
        self._start_close()

    @property
    def agent_session_id(self) -> str:
        """The uuid of its history."""
        assert self._spec.agent_session_id is not None
        return self._spec.agent_session_id

    async def turn(
        self, content: Sequence[dict[str, Any]], host: Host | None = None
    ) -> AsyncGenerator[AgentEvent, None]:
        """Say `content` and yield what happens; see `LiveAgent.turn`."""
        if self._reading:
            raise Conflict("A turn is running already.", code="agent_busy")
        self._reading = True
        try:
            await self._wait_or_fail(self._idle.wait())
            self._check_alive()
            await self._before_turn()
            self._check_alive()
            self._interrupt_wanted = False
            self._idle.clear()
            self._delivering = True
            self._desk.open(host)
            self._translator = translator = Translator(self._spec, self._toolbox)
            await self._say(content)
            async for event in self._events(translator):
                yield event if self._mask is None else self._mask.event(event)
        except AgentFailure as failure:
            if self._mask is not None:
                failure.stderr_tail = self._mask.text(failure.stderr_tail)
            raise
        finally:
            self._reading = self._delivering = False
            self._translator = None
            # Nobody will read these, and the pump must not wait for it.
            while not self._messages.empty():
                self._messages.get_nowait()

    async def interrupt(self) -> None:
        """Ask the running turn to end; see `LiveAgent.interrupt`."""
        if self._idle.is_set() or self._ended.is_set():
            return
        self._interrupt_wanted = True
        # Before the agent has begun with the turn it would answer that there is nothing to stop;
        # the turn's own loop repeats the request when it begins.
        if self._translator is None or self._translator.started:
            await self._send_interrupt()
        # What the CLI still asks for in this turn is not to happen.
        self._desk.close()

    async def close(self) -> None:
        """End everything; see `LiveAgent.close`."""
        await finish(self._closed())

    # --- turns --------------------------------------------------------------------------------

    async def _say(self, content: Sequence[dict[str, Any]]) -> None:
        async def messages() -> AsyncIterator[dict[str, Any]]:
            yield {
                "type": "user",
                "message": {"role": "user", "content": list(content)},
                "parent_tool_use_id": None,
            }

        try:
            await self._client.query(messages())
        except AgentFailure as error:
            # The pump learns the reason; the agent's end is on its way.
            await self._ended.wait()
            raise self._failure or error from None

    def _check_alive(self) -> None:
        if self._ended.is_set():
            assert self._failure is not None
            raise self._failure

    async def _events(self, translator: Translator) -> AsyncGenerator[AgentEvent, None]:
        while True:
            message = await self._wait_or_fail(self._messages.get())
            fresh = not translator.started
            for event in translator.translate(message):
                yield await self._completed(event)
            if isinstance(message, ResultMessage):
                return
            if fresh and translator.started and self._interrupt_wanted:
                await self._send_interrupt()

    async def _completed(self, event: AgentEvent) -> AgentEvent:
        match event:
            case Finished():
                return self._own(event)
            case McpFailed():
                return replace(event, reason=await self._reason(event))
        return event

    async def _reason(self, failed: McpFailed) -> str:
        """Why a tool server did not start, which the turn's first message does not say."""
        if self._reasons is None:
            self._reasons = dict(self._unreached)
            with suppress(Exception):
                async with asyncio.timeout(_STATUS_SECONDS):
                    status = await self._client.get_mcp_status()
                for server in status["mcpServers"]:
                    self._reasons.setdefault(server["name"], str(server.get("error", "")))
        return self._reasons.get(failed.server) or failed.reason

    def _own(self, end: Finished) -> Finished:
        """The end of this turn alone: the agent's cost is the sum over its turns."""
        total = end.reported_cost_usd
        if total is not None:
            end = replace(end, reported_cost_usd=max(0.0, total - self._cost_before))
            self._cost_before = total
        if self._interrupt_wanted and end.outcome == "error":
            end = replace(end, error=INTERRUPTED, error_code=INTERRUPTED)
        return end

    async def _wait_or_fail(self, wanted: Awaitable[Any]) -> Any:
        """The result of `wanted`, unless the agent ends first: then its failure.

        What the agent said before its end is still delivered.
        """
        work = asyncio.ensure_future(wanted)
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            assert self._failure is not None
            raise self._failure
        finally:
            work.cancel()
            ended.cancel()

    async def _send_interrupt(self) -> None:
        try:
            async with asyncio.timeout(_INTERRUPT_SECONDS):
                await self._client.interrupt()
        except Exception as error:  # noqa: BLE001  the SDK raises bare exceptions
            # The turn's own failure tells more; where there is none, the caller closes.
            _log.info("The agent did not take an interrupt.", reason=type(error).__name__)

    # --- the pump -----------------------------------------------------------------------------

    async def _run_pump(self) -> None:
        failure: AgentFailure
        try:
            async for message in self._client.receive_messages():
                if self._delivering:
                    await self._messages.put(message)
                if isinstance(message, ResultMessage):
                    self._desk.close()
                    self._idle.set()
                if isinstance(message, MirrorErrorMessage) and self._mirror is not None:
                    raise self._mirror.stop()
            failure = AgentExited("The agent ended.", stderr_tail=self._process.stderr_tail)
        except AgentFailure as error:
            error.stderr_tail = error.stderr_tail or self._process.stderr_tail
            failure = error
        except Exception as error:  # noqa: BLE001  whatever the SDK's parser raises
            failure = AgentProtocolError(
                f"The agent's message was not understood: {error}",
                stderr_tail=self._process.stderr_tail,
            )
        if self._failure is None:
            self._failure = failure
        self._ended.set()
        self._start_close()

    # --- the end ------------------------------------------------------------------------------

    def _start_close(self) -> asyncio.Task[None]:
        if self._close is None:
            self._close = asyncio.create_task(self._end())
        return self._close

    async def _closed(self) -> None:
        await self._start_close()

    async def _end(self) -> None:
        if self._failure is None:
            self._failure = AgentExited("The agent was closed.")
        graceful = self._idle.is_set() and not self._ended.is_set()
        self._ended.set()
        self._desk.close()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait({self._pump})
        with suppress(Exception):
            async with asyncio.timeout(_DISCONNECT_SECONDS):
                await asyncio.gather(
                    self._client.disconnect(), *(remote.close() for remote in self._remotes)
                )
        if graceful:
            await self._process.wait(at_most=_GRACE_SECONDS)
        if not await self._process.kill():
            _log.error("Some processes of an agent could not be ended.", pid=self._process.pid)
        await self._released()
