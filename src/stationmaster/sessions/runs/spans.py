"""The model calls of a run, as they stand in its book."""

import asyncio
from typing import Any

from stationmaster.gateway.ports import CallEnded, CallStarted
from stationmaster.kernel.ids import new_id
from stationmaster.sessions.runs.journal import Journal


class Spans:
    """Writes down each call's beginning and end, and knows which are under way."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._begun: dict[str, str] = {}  # by the call's id: that of the event of its beginning
        self._none = asyncio.Event()
        self._none.set()

    @property
    def open(self) -> int:
        """How many calls are under way."""
        return len(self._begun)

    async def settled(self) -> None:
        """Wait until none is."""
        await self._none.wait()

    def take(self, event: CallStarted | CallEnded) -> None:
        """Write one down."""
        call_id = event.context.call_id
        if isinstance(event, CallStarted):
            id_ = self._begun[call_id] = new_id("sevt")
            self._none.clear()
            self._journal.add(
                "span.model_request_start", id=id_, call_id=call_id, model=event.context.model
            )
            return
        begun = self._begun.pop(call_id, None)
        if not self._begun:
            self._none.set()
        self._journal.add("span.model_request_end", model_request_start_id=begun, **_span(event))


def _span(event: CallEnded) -> dict[str, Any]:
    usage = event.usage
    return {
        "call_id": event.context.call_id,
        "model": event.context.model,
        "outcome": event.outcome,
        "status": event.status,
        "stop_reason": event.stop_reason,
        "duration_ms": event.duration_ms,
        "first_byte_ms": event.first_byte_ms,
        "cost": event.cost,
        "usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "cache_write_1h_tokens": usage.cache_write_1h_tokens,
            "cache_read_tokens": usage.cache_read_tokens,
        },
    }
