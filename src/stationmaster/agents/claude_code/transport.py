"""The SDK's transport over a process of ours: its own would inherit the server's environment."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from claude_agent_sdk import Transport

from stationmaster.agents.base import AgentExited
from stationmaster.agents.claude_code.frames import read_frames
from stationmaster.agents.claude_code.launcher import AgentProcess

_END_SECONDS = 1.0


class ProcessTransport(Transport):
    """Frames in, frames out. Ending the process is its owner's, not the SDK's, affair."""

    def __init__(
        self,
        process: AgentProcess,
        *,
        max_frame_bytes: int,
        last_look: Callable[[], Awaitable[None]],
        notice: Callable[[dict[str, Any]], None],
    ) -> None:
        """`last_look` is awaited when the agent falls silent, while its processes may be there.

        `notice` sees every frame before the SDK does.
        """
        self._process = process
        self._notice = notice
        self._last_look = last_look
        self._max_frame_bytes = max_frame_bytes
        self._open = True

    async def connect(self) -> None:
        """Nothing to do: the process was started before."""

    async def write(self, data: str) -> None:
        """Write one frame. Raises `AgentExited` where nobody reads any more."""
        try:
            await self._process.write(data.encode())
        except (ConnectionError, RuntimeError) as error:
            raise await self._exited() from error

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yield each frame. Raises `AgentProtocolError`, and `AgentExited` at the process's end."""
        async for frame in read_frames(self._process.stdout, max_bytes=self._max_frame_bytes):
            self._notice(frame)
            yield frame
        raise await self._exited()

    async def _exited(self) -> AgentExited:
        await self._last_look()
        # Closing its pipes without ending is possible, and must not hang a reader.
        code = await self._process.wait(at_most=_END_SECONDS)
        said = "closed its streams" if code is None else f"ended with exit code {code}"
        return AgentExited(
            f"The agent {said}.", stderr_tail=self._process.stderr_tail, exit_code=code
        )

    async def close(self) -> None:
        """Take no more input."""
        self._open = False
        self._process.end_input()

    def is_ready(self) -> bool:
        """Whether it can be written to."""
        return self._open and self._process.exit_code is None

    async def end_input(self) -> None:
        """Close the agent's stdin."""
        self._process.end_input()
