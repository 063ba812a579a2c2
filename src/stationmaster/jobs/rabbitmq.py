"""Jobs through RabbitMQ: a quorum queue for each lane, confirms, and dead letters.

    default exchange ──▶ stationmaster.runs ──▶ one worker, one message at a time
                    └──▶ stationmaster.jobs ──▶ one worker, some at a time
                             └─ not understood ─▶ stationmaster.dead

The library's own reconnecting ("robust") is not used: after a restart of the broker it ignored
cancellation, and a server never ended. Here each connection is used until something is wrong with
it, then dropped whole and made anew, and everything has its time.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog
from aiormq import AMQPError, Channel, ChannelInvalidStateError, connect
from aiormq.abc import AbstractConnection, DeliveredMessage
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from aiormq.exceptions import (
    AuthenticationError,
    ChannelAccessRefused,
    ChannelPreconditionFailed,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from pamqp.commands import Basic
from pamqp.common import FieldTable

from stationmaster.jobs.broker import (
    AT_ONCE,
    LANES,
    MOST_DEAD,
    MOST_KEPT,
    Delivery,
    Lane,
    Ring,
    Wellness,
    away,
    pauses,
    within,
)
from stationmaster.kernel.errors import Unavailable
from stationmaster.live.reaching import Named

log = structlog.get_logger(__name__)

PREFIX = "stationmaster."
DEAD = PREFIX + "dead"
TIMEOUT_S = 5.0  # for the broker to answer anything
PULSE_S = 2.0  # between two looks at whether it is there, while nothing is sent
CLOSE_S = 1.0  # for an orderly good-bye
SILENT_TRIES = 3  # after which a queue that alone gives no answer is made anew
DELETE_S = 15.0  # for that: the broker itself waits five seconds for a queue that is dead
OLDEST = (3, 8)  # older ones know no quorum queues, and make others of them without a word


class _TooOld(Exception):
    """The broker's version will not do."""


_AWAY = (AMQPError, ChannelInvalidStateError, OSError, TimeoutError, _TooOld)


class RabbitMQ:
    """A `Broker` over one RabbitMQ, or a cluster of them behind one address."""

    kind = "rabbitmq"

    def __init__(
        self,
        url: str,
        *,
        receives: bool,
        timeout: float = TIMEOUT_S,
        pulse: float = PULSE_S,
        on_change: Callable[[bool], None] = lambda well: None,
    ) -> None:
        """One that does not receive only sends. `timeout` and `pulse` are in seconds."""
        # It tells of every connection that fails, with tracebacks and addresses; we say it once.
        logging.getLogger("aiormq").setLevel(logging.CRITICAL)
        self._url = url
        self._receives = receives
        self._timeout = timeout
        self._pulse = pulse
        self._wellness = Wellness("RabbitMQ", on_change)
        self._link: _Link | None = None
        self._silence: tuple[str | None, int] = (None, 0)  # which queue, how often in a row
        self._received: dict[Lane, asyncio.Queue[Delivery]] = {
            lane: asyncio.Queue() for lane in LANES
        }
        self.waiting = 0

    @property
    def trouble(self) -> Unavailable | None:
        """See `Broker.trouble`."""
        return self._wellness.trouble

    async def run(self) -> None:
        """See `Broker.run`."""
        waits = pauses()
        while True:
            link, silent = _Link(self._url, self._timeout), None
            try:
                await link.open(self._take if self._receives else None)
                self._link = link
                self._wellness.is_well()
                self._silence = (None, 0)
                waits = pauses()
                while await link.lasts(self._pulse):
                    self.waiting = await link.depth()
            except _Broken as broken:
                self._wellness.is_away(_reason(broken.__cause__))
                silent = link.unanswered if isinstance(broken.__cause__, TimeoutError) else None
            finally:
                self._link = None
                await link.end()
            await self._listen(silent)
            await asyncio.sleep(next(waits))

    async def _listen(self, queue: str | None) -> None:
        """Count how often it was the same queue that gave no answer; make it anew in the end.

        A quorum queue that was declared just before the broker crashed can come back without a
        leader, for good: it is there, and nobody can consume from it or publish to it.
        """
        known, times = self._silence
        self._silence = (queue, times + 1 if queue == known else 1)
        if queue is None or self._silence[1] < SILENT_TRIES:
            return
        self._silence = (None, 0)
        log.warning(
            "A queue gives no answer though RabbitMQ does: it is deleted, to be made anew."
            " Jobs that it told of are found by polling.",
            queue=queue,
        )
        link = _Link(self._url, max(self._timeout, DELETE_S))
        try:
            await link.delete(queue)
        except _Broken as broken:
            log.warning("It could not be deleted.", reason=_reason(broken.__cause__).message)
        finally:
            await link.end()

    async def publish(self, rings: Sequence[Ring]) -> None:
        """See `Broker.publish`. Nothing is sent a second time here."""
        link = self._link
        if link is None:
            raise away("RabbitMQ is away.")
        try:
            await link.publish(rings)
        except _Broken as broken:
            link.broken(broken.__cause__)
            raise _reason(broken.__cause__) from broken

    async def receive(self, lane: Lane) -> list[Delivery]:
        """See `Broker.receive`."""
        queue = self._received[lane]
        found = [await queue.get()]
        while len(found) < AT_ONCE[lane] and not queue.empty():
            found.append(queue.get_nowait())
        return found

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """See `Broker.acknowledge`."""
        link = self._link
        # What came by an earlier connection comes again by itself.
        ours = [each.token for each in deliveries if each.token[0] is link]
        if link is None or not ours:
            return

        async def acknowledged() -> None:
            for _link, channel, tag in ours:
                await channel.basic_ack(tag, wait=False)

        try:
            await link.answered(acknowledged())
        except _Broken as broken:
            link.broken(broken.__cause__)

    async def _take(self, lane: Lane, link: "_Link", message: DeliveredMessage) -> None:
        tag = message.delivery_tag
        assert tag is not None
        try:
            ring = Ring.decode(message.body)
        except ValueError:
            log.warning("A message is not understood; it is with the dead letters.", lane=lane)
            await message.channel.basic_reject(tag, requeue=False, wait=False)
            return
        self._received[lane].put_nowait(Delivery(ring, (link, message.channel, tag)))


class _Broken(Exception):
    """A connection is of no use any more; the cause says why."""


class _Link:
    """One connection, from its beginning to its end. Whatever it waits for has its time."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._transport = _Transport(url)
        self._connection: AbstractConnection | None = None
        self._sending: Channel | None = None
        self._over = asyncio.Event()
        self._cause: BaseException | None = None
        self.unanswered: str | None = None
        """The queue that was waited for, where the broker had answered all before."""

    async def open(self, take: "Taker | None") -> None:
        """Connect, and see that the queues are there. Raises `_Broken`."""
        await self.answered(self._open(take))

    async def _open(self, take: "Taker | None") -> None:
        self._connection = connection = await connect(
            self._url, transport_factory=self._transport, client_properties=_PRODUCT
        )
        connection.closing.add_done_callback(lambda _done: self.broken(None))
        _look_at_version(connection)
        self._sending = sending = await self._channel(connection)
        await sending.queue_declare(DEAD, durable=True, arguments=_arguments(MOST_DEAD))
        for lane in LANES:
            dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD}
            arguments = {**_arguments(MOST_KEPT), **dead}
            await sending.queue_declare(PREFIX + lane, durable=True, arguments=arguments)
            if take is not None:
                await self._consume(lane, take)

    async def _consume(self, lane: Lane, take: "Taker") -> None:
        assert self._connection is not None
        channel = await self._channel(self._connection)
        # A queue that is deleted, or moved, ends its consumers and nothing else.
        channel.on_consumer_cancel_callbacks.add(lambda _frame: self.broken(None))
        await channel.basic_qos(prefetch_count=AT_ONCE[lane])
        self.unanswered = PREFIX + lane
        await channel.basic_consume(PREFIX + lane, lambda message: take(lane, self, message))
        self.unanswered = None

    async def delete(self, queue: str) -> None:
        """Connect, and delete a queue. Raises `_Broken`."""
        await self.answered(self._delete(queue))

    async def _delete(self, queue: str) -> None:
        self._connection = connection = await connect(
            self._url, transport_factory=self._transport, client_properties=_PRODUCT
        )
        await (await connection.channel()).queue_delete(queue)

    async def _channel(self, connection: AbstractConnection) -> Channel:
        channel = await connection.channel()
        assert isinstance(channel, Channel)
        channel.closing.add_done_callback(lambda _done: self.broken(None))
        return channel

    async def publish(self, rings: Sequence[Ring]) -> None:
        """Return once the broker has confirmed them all. Raises `_Broken`."""
        channel = self._sending
        assert channel is not None

        async def confirmed() -> None:
            await asyncio.gather(
                *(
                    channel.basic_publish(
                        ring.encode(),
                        routing_key=PREFIX + ring.lane,
                        properties=_properties(),
                        mandatory=True,  # a queue that has gone is made again with the connection
                        wait=False,
                    )
                    for ring in rings
                )
            )

        await self.answered(confirmed())

    async def depth(self) -> int:
        """How many messages wait; and whether the broker is there at all. Raises `_Broken`."""
        channel = self._sending
        assert channel is not None
        total = 0
        for lane in LANES:
            told = await self.answered(channel.queue_declare(PREFIX + lane, passive=True))
            total += told.message_count or 0
        return total

    async def answered(self, asked: Coroutine[Any, Any, Any]) -> Any:
        """What the broker answers. Raises `_Broken`."""
        try:
            return await within(self._timeout, asked, give_up=self._transport.abort)
        except Exception as error:
            # The library tells the end of a connection by whatever ended it, or by nothing at all.
            if not isinstance(error, _AWAY) and type(error) is not Exception:
                log.exception("What RabbitMQ says is not understood.")
            raise _Broken from error

    async def lasts(self, seconds: float) -> bool:
        """Wait; True where nothing has become wrong by then. Raises `_Broken` where it has."""
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return True
        raise _Broken from self._cause

    def broken(self, cause: BaseException | None) -> None:
        """Something is wrong: it is of no more use. The first cause counts."""
        if not self._over.is_set():
            self._cause = cause
            self._over.set()

    async def end(self) -> None:
        """Close it, if that goes quickly, and drop it in any case. Never raises."""
        connection = self._connection
        if connection is not None and not self._over.is_set():
            await self._quietly(connection.close())
        self._transport.abort()
        if connection is not None and not connection.is_closed:
            # Its tasks hear that the wire is cut, and end.
            await self._quietly(asyncio.wait({connection.closing}))

    async def _quietly(self, asked: Coroutine[Any, Any, Any]) -> None:
        try:
            await within(CLOSE_S, asked, give_up=self._transport.abort)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is over
            log.debug("A connection to RabbitMQ ended badly.", error=type(error).__name__)


class _Transport(TransportFactory):
    """Keeps hold of the wire, to be able to cut it: no library then waits for an answer on it."""

    def __init__(self, url: str) -> None:
        self._real = TLSTransportFactory() if url.startswith("amqps") else TCPTransportFactory()
        self._writer: asyncio.StreamWriter | None = None
        self._cut = False

    async def create(
        self, url: Any, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """See `TransportFactory`."""
        reader, self._writer = await self._real.create(url, **kwargs)
        if self._cut:
            self.abort()
        return reader, self._writer

    def abort(self) -> None:
        """Cut it. Idempotent."""
        self._cut = True
        if self._writer is not None:
            self._writer.transport.abort()


Taker = Callable[[Lane, _Link, DeliveredMessage], Coroutine[Any, Any, None]]

_NAMED = Named("RabbitMQ", "RABBITMQ_URL", "cafile", "amqp")
_PRODUCT: FieldTable = {"product": "Stationmaster", "connection_name": "stationmaster"}


def _look_at_version(connection: AbstractConnection) -> None:
    said = connection.server_properties.get("version")
    version = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    numbers = version.split(".")[:2]
    # One that does not say is believed to be new enough.
    if all(each.isdecimal() for each in numbers) and tuple(map(int, numbers)) < OLDEST:
        raise _TooOld(".".join(numbers))


def _properties() -> Basic.Properties:
    # One for each message: the library writes an id into it.
    return Basic.Properties(delivery_mode=2, content_type="application/json")


def _arguments(most: int) -> dict[str, Any]:
    return {"x-queue-type": "quorum", "x-max-length": most}


def _reason(error: BaseException | None) -> Unavailable:
    if isinstance(error, _TooOld):
        return away(
            f"RabbitMQ is version {error}, and {'.'.join(map(str, OLDEST))} is the oldest that will"
            " do. Upgrade it.",
            "broker_refused",
        )
    if isinstance(error, ProbableAuthenticationError | AuthenticationError):
        return away("RabbitMQ refuses the user or password of RABBITMQ_URL.", "broker_refused")
    if isinstance(error, InvalidFrameError):  # what the library makes of a refused opening
        return away(
            "RabbitMQ does not have the virtual host of RABBITMQ_URL, or its user may not use it.",
            "broker_refused",
        )
    if isinstance(error, ChannelAccessRefused):
        return away(
            f"The user of RABBITMQ_URL needs the rights to configure, write and read {PREFIX}*.",
            "broker_refused",
        )
    if isinstance(error, ChannelPreconditionFailed):
        return away(
            f"RabbitMQ has a queue {PREFIX}* of another form: delete it, and it is made anew.",
            "broker_refused",
        )
    if error is None:
        return away("RabbitMQ cannot be reached.")
    return away(_NAMED.unreached(error))
