"""Appending to streams and following them.

Appending raises the stream's head and inserts in one transaction, so the order of commits is the
order of numbers and a stream has no gaps. Never follow events by an id across streams: with
concurrent writers a smaller id can become visible after a larger one.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import NoReturn

from msgspec.json import encode
from sqlalchemy import delete, insert, select, update

# Its ON CONFLICT is SQLite's too.
from sqlalchemy.dialects.postgresql import insert as upsert

from stationmaster.events.appending import put
from stationmaster.events.event import Event, Live, NewEvent, Overflow
from stationmaster.events.pages import page, page_and_more, page_before
from stationmaster.events.tables import events, streams
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Conflict, Invalid, NotFound
from stationmaster.kernel.principal import Owner
from stationmaster.live.bus import Bus, Subscription
from stationmaster.storage import Database, Transaction

PAGE = 500  # events read from the log at once, if they are small
READER_CAPACITY = 1000  # batches and deltas that may wait for one reader
LIVE_BYTES = 64 * 1024  # of a batch that waits there; who follows reads a larger one from the log
POLL_S = 5.0  # a lost wake-up costs this long


class Fenced(Conflict):
    """A newer epoch has taken over this stream."""

    code = "fenced"


class EventLog:
    """The book."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        clock: Clock,
        *,
        on_append: Callable[[int], None] | None = None,
        on_drop: Callable[[], None] | None = None,
    ) -> None:
        """`on_append` is told the number of events made durable, `on_drop` each dropped reader."""
        self._database = database
        self._bus = bus
        self._clock = clock
        self._on_append = on_append
        self._on_drop = on_drop

    def create(self, tx: Transaction, stream_id: str, kind: str, owner: Owner) -> None:
        """Make an empty stream."""
        tx.execute(
            insert(streams),
            {
                "id": stream_id,
                "kind": kind,
                "organization_id": owner.organization_id,
                "project_id": owner.project_id,
                "head": 0,
                "epoch": 0,
                "created_at": self._clock.now(),
            },
        )

    def ensure(self, tx: Transaction, stream_id: str, kind: str, owner: Owner) -> None:
        """Make an empty stream unless it is there. Safe for several at once."""
        tx.execute(
            upsert(streams).on_conflict_do_nothing(),
            {
                "id": stream_id,
                "kind": kind,
                "organization_id": owner.organization_id,
                "project_id": owner.project_id,
                "head": 0,
                "epoch": 0,
                "created_at": self._clock.now(),
            },
        )

    def fence(self, tx: Transaction, stream_id: str) -> int:
        """Begin a new epoch and return it; appends of older epochs fail from now on."""
        epoch = tx.execute(
            update(streams)
            .where(streams.c.id == stream_id)
            .values(epoch=streams.c.epoch + 1)
            .returning(streams.c.epoch)
        ).scalar()
        if epoch is None:
            raise NotFound("There is no such stream.")
        return int(epoch)

    def append(
        self,
        tx: Transaction,
        stream_id: str,
        new: Sequence[NewEvent],
        *,
        epoch: int | None = None,
    ) -> list[Event]:
        """Append a batch and return it numbered. Readers hear of it after the commit.

        With `epoch`, raises `Fenced` unless it is the stream's present one.
        """
        if not new:
            return []
        now = self._clock.now()
        first = put(tx, stream_id, new, now, epoch=epoch)
        if first is None:
            self._explain(tx, stream_id)
        batch = [
            Event(stream_id, first + index, now, event.type, event.version, event.data)
            for index, event in enumerate(new)
        ]
        small = sum(len(encode(event.data)) for event in new) <= LIVE_BYTES
        tx.on_commit(lambda: self._announce(stream_id, batch, small=small))
        return batch

    def _explain(self, tx: Transaction, stream_id: str) -> NoReturn:
        if tx.execute(select(streams.c.id).where(streams.c.id == stream_id)).first() is None:
            raise NotFound("There is no such stream.")
        raise Fenced

    def _announce(self, stream_id: str, batch: list[Event], *, small: bool) -> None:
        self._bus.publish(stream_id, batch if small else [])
        if self._on_append is not None:
            self._on_append(len(batch))

    def check(self, tx: Transaction, stream_id: str, epoch: int) -> None:
        """Raise `Fenced` unless `epoch` is the stream's; it stays so until `tx` ends."""
        query = select(streams.c.epoch).where(streams.c.id == stream_id).with_for_update()
        if tx.execute(query).scalar() != epoch:
            raise Fenced

    def erase(self, tx: Transaction, stream_id: str) -> None:
        """Delete what stands in a stream. Its numbers are not used again. Idempotent."""
        tx.execute(delete(events).where(events.c.stream_id == stream_id))

    def pass_on(self, stream_id: str, news: Live) -> None:
        """Show `news` to those who follow the stream now. It is not kept."""
        self._bus.publish(stream_id, news)

    async def head(self, stream_id: str) -> int:
        """The number of the stream's last event; 0 where there is none yet."""
        return await self._database.read(lambda tx: self.head_in(tx, stream_id))

    def head_in(self, tx: Transaction, stream_id: str) -> int:
        """See `head`; inside a transaction."""
        found = tx.execute(select(streams.c.head).where(streams.c.id == stream_id)).scalar()
        if found is None:
            raise NotFound("There is no such stream.")
        return int(found)

    async def owner_of(self, stream_id: str, kind: str) -> Owner:
        """Whose a stream of this kind is. Raises `NotFound`."""
        query = select(streams.c.organization_id, streams.c.project_id).where(
            streams.c.id == stream_id, streams.c.kind == kind
        )
        row = await self._database.read(lambda tx: tx.execute(query).first())
        if row is None:
            raise NotFound("There is no such stream.")
        return Owner(row.organization_id, row.project_id)

    async def read(self, stream_id: str, *, after: int = 0, limit: int = PAGE) -> list[Event]:
        """Up to `limit` events that follow number `after`, in order, at most `PAGE_BYTES`.

        A single event may be larger. The stream's end is where none comes.
        """
        return await self._database.read(lambda tx: page(tx, stream_id, after, limit))

    async def read_and_more(self, stream_id: str, *, after: int) -> tuple[list[Event], bool]:
        """A page of `read`, and whether more may follow it."""
        return await self._database.read(lambda tx: page_and_more(tx, stream_id, after, PAGE))

    async def read_before(self, stream_id: str, *, before: int, limit: int = PAGE) -> list[Event]:
        """The last events that precede number `before`, in order; bounded as `read`."""
        return await self._database.read(lambda tx: page_before(tx, stream_id, before, limit))

    async def follow(
        self, stream_id: str, *, after: int = 0, idle: float = POLL_S
    ) -> AsyncGenerator[Event | Live | Overflow | None, None]:
        """Yield every event after number `after`, then each new one as it is committed.

        `Live` news comes between, once the reader has caught up. None is yielded after `idle`
        seconds without news, so that a transport can keep its connection alive. A reader that
        falls behind the present gets `Overflow` and the iterator ends. Raises `Invalid` where
        `after` is beyond the stream's end, and `NotFound`.
        """
        subscription = self._bus.subscribe(stream_id, capacity=READER_CAPACITY)
        try:
            if not 0 <= after <= await self.head(stream_id):
                raise Invalid(
                    "The cursor is beyond the end of the stream.",
                    code="cursor_out_of_range",
                    param="after",
                )
            reader = _Reader(self, stream_id, after, subscription)
            async with aclosing(reader.items(idle)) as items:
                async for item in items:
                    yield item
            if self._on_drop is not None:
                self._on_drop()
        finally:
            self._bus.unsubscribe(subscription)


class _Reader:
    def __init__(
        self, log: EventLog, stream_id: str, after: int, subscription: Subscription
    ) -> None:
        self._log = log
        self._stream_id = stream_id
        self._last = after
        self._subscription = subscription

    async def items(self, idle: float) -> AsyncGenerator[Event | Live | Overflow | None, None]:
        async for event in self._catch_up():
            yield event
        now = asyncio.get_running_loop().time
        quiet_since = now()
        while True:
            silent = not await self._subscription.wait(max(0.0, quiet_since + idle - now()))
            if self._subscription.overflowed:
                yield Overflow(self._last)
                return
            # After what waits: news that is not kept belongs before what is read later.
            look = silent or self._subscription.missed
            for message in self._subscription.take():
                quiet_since = now()
                if isinstance(message, Live):
                    yield message
                    continue
                async for event in self._take_batch(message):
                    yield event
            if look:
                async for event in self._catch_up():
                    quiet_since = now()
                    yield event
            # Looking in vain is silence too: whoever reads must hear that it goes on.
            if now() >= quiet_since + idle:
                yield None
                quiet_since = now()

    async def _take_batch(self, batch: list[Event]) -> AsyncIterator[Event]:
        # Commits were announced out of order, or one was lost, or is too large to wait here.
        if not batch or batch[0].seq > self._last + 1:
            async for event in self._catch_up():
                yield event
        for event in batch:
            if event.seq == self._last + 1:
                self._last = event.seq
                yield event

    async def _catch_up(self) -> AsyncIterator[Event]:
        while True:
            # Behind the present, the log is the source: what overflows meanwhile is in it.
            if self._subscription.overflowed:
                self._subscription.reset()
            batch, more = await self._log.read_and_more(self._stream_id, after=self._last)
            for event in batch:
                self._last = event.seq
                yield event
            if not more and not self._subscription.overflowed:
                return
