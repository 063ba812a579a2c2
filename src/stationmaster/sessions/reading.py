"""A session's book, as its readers see it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from sqlalchemy import select

from stationmaster.events import Event, EventLog, Live, Overflow
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Invalid
from stationmaster.sessions.session import SessionEvent
from stationmaster.sessions.state import DELETED, MESSAGE
from stationmaster.sessions.tables import runs
from stationmaster.storage import Database, Transaction


def event_id(event: Event) -> str:
    """An event's id: its own, or one that its stream and number give."""
    own = event.data.get("id")
    return own if isinstance(own, str) else f"sevt_{event.stream_id.partition('_')[2]}{event.seq}"


class Reading:
    """Pages of a stream, and the stream as it grows."""

    def __init__(self, database: Database, events: EventLog) -> None:
        self._database = database
        self._events = events

    async def page(
        self, stream_id: str, *, after: int = 0, before: int | None = None, limit: int
    ) -> list[SessionEvent]:
        """The first events after number `after`, or the last before `before`: see `EventLog.read`.

        Raises `Invalid` beyond the end.
        """
        if before is not None:
            return await self.seen(
                await self._events.read_before(stream_id, before=before, limit=limit)
            )
        if not 0 <= after <= await self._events.head(stream_id):
            raise Invalid(
                "The cursor is beyond the end of the stream.",
                code="cursor_out_of_range",
                param="after",
            )
        found = await self._events.read(stream_id, after=after, limit=limit)
        return await self.seen(found)

    async def seen(self, events: Sequence[Event]) -> list[SessionEvent]:
        """Events with their ids and times."""
        said = [event_id(each) for each in events if _queues(each)]
        begun = await self._begun(said) if said else {}
        return [
            SessionEvent(
                event_id(each), each, begun.get(event_id(each)) if _queues(each) else each.at
            )
            for each in events
        ]

    async def _begun(self, message_ids: Sequence[str]) -> dict[str, Millis]:
        def query(tx: Transaction) -> dict[str, Millis]:
            rows = tx.execute(
                select(runs.c.message_id, runs.c.queued_at).where(
                    runs.c.message_id.in_(message_ids)
                )
            )
            return {row.message_id: row.queued_at for row in rows}

        return await self._database.read(query)

    async def follow(
        self, stream_id: str, *, after: int, idle: float
    ) -> AsyncGenerator[SessionEvent | Live | Overflow | None, None]:
        """See `Sessions.follow`."""
        queued: dict[str, Event] = {}
        async with aclosing(self._events.follow(stream_id, after=after, idle=idle)) as items:
            async for item in items:
                if not isinstance(item, Event):
                    yield item
                    continue
                begun = queued.pop(str(item.data.get("message_id")), None)
                if begun is not None and item.type == "run.queued":
                    yield SessionEvent(event_id(begun), begun, item.at)
                [seen] = await self.seen([item])
                if seen.processed_at is None:
                    queued[seen.id] = item
                yield seen
                if item.type == DELETED:
                    return


def _queues(event: Event) -> bool:
    """Whether it is a message that may have to wait for its turn."""
    return event.type == MESSAGE and "run_id" not in event.data
