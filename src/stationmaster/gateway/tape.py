"""What is taken down of a call whose project keeps its calls."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from stationmaster.budgets.entry import CallContext, LedgerEntry
from stationmaster.calls import CallKeeper, Said
from stationmaster.providers.base import Operation

LONGEST = 4 * 1024 * 1024
"""Bytes of an answer; of a longer one nothing is kept."""


class Tape:
    """Takes down one call, and hands it over once, at its end."""

    def __init__(self, keeper: CallKeeper, operation: Operation, request: bytes) -> None:
        self._keeper = keeper
        self._operation = operation
        self._request = request
        self._came = bytearray()
        self._streamed = False
        self._whole = True
        self._ended = False

    async def recording(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The pieces of a stream, taken down as they pass."""
        self._streamed = True
        async with aclosing(chunks):
            async for chunk in chunks:
                if len(self._came) + len(chunk) <= LONGEST:
                    self._came += chunk
                else:
                    self._whole = False
                yield chunk

    def end(self, context: CallContext, entry: LedgerEntry | None, body: bytes | None) -> None:
        """Hand it over. Idempotent. Without an entry nobody was asked: there is nothing to keep."""
        if self._ended or entry is None:
            return
        self._ended = True
        streamed = self._streamed and body is None
        self._keeper.keep(
            Said(
                id=context.call_id,
                owner=context.owner,
                key_id=context.key_id,
                user_id=context.user_id,
                session_id=context.session_id,
                run_id=context.run_id,
                operation=self._operation,
                provider=context.provider,
                model=context.model,
                outcome=entry.outcome,
                at=entry.at,
                request=self._request,
                answer=bytes(self._came) if streamed else (body or b""),
                stream=streamed,
                whole=self._whole or not streamed,
            )
        )
