"""What tells workers of jobs: RabbitMQ, else Redis Streams, else the bus of this process."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from stationmaster.bootstrap.roles import duties
from stationmaster.http.services import Component
from stationmaster.jobs import TOPIC, Broker, Outbox, Relay
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Unavailable
from stationmaster.live.bus import Bus
from stationmaster.sessions.runs.runs import QUEUED_JOB
from stationmaster.settings import Settings
from stationmaster.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Dispatching:
    """The outbox, and what carries word of its jobs. `broker.run` and `relay.run` go on beside."""

    outbox: Outbox
    broker: Broker | None
    relay: Relay | None
    components: tuple[Component, ...]


def dispatching(
    stack: AsyncExitStack,
    settings: Settings,
    metrics: Metrics,
    *,
    bus: Bus,
    clock: Clock,
    instance_id: str,
) -> Dispatching:
    """As the settings have it."""
    broker = _broker(stack, settings, metrics, instance_id)
    if broker is None:
        return Dispatching(Outbox(bus, clock), None, None, ())
    relay = Relay(
        broker,
        otherwise=lambda kind: bus.publish(TOPIC, kind),
        runs=(QUEUED_JOB,),
        on_sent=metrics.jobs_sent.inc,
        on_lost=metrics.jobs_unsent.inc,
    )
    metrics.broker_waiting.set_function(lambda: broker.waiting)

    async def check() -> Mapping[str, Any]:
        if (trouble := broker.trouble) is not None:
            raise Unavailable(trouble.message, code=trouble.error_code)
        return {"kind": broker.kind, "waiting": broker.waiting}

    component = Component("broker", check, critical=False)
    return Dispatching(Outbox(bus, clock, ring=relay.ring), broker, relay, (component,))


def _broker(
    stack: AsyncExitStack, settings: Settings, metrics: Metrics, instance_id: str
) -> Broker | None:
    def changed(well: bool) -> None:
        metrics.broker_connected.set(int(well))

    # Late, so that a server does not load what it does not use.
    if settings.rabbitmq_url is not None:
        from stationmaster.jobs.rabbitmq import RabbitMQ

        url = settings.rabbitmq_url.get_secret_value()
        return RabbitMQ(url, receives=duties(settings).works, on_change=changed)
    if settings.redis_url is not None:
        from stationmaster.jobs.redis_streams import SOCKET_TIMEOUT_S, RedisStreams
        from stationmaster.live.connection import connected

        client = connected(settings.redis_url.get_secret_value(), timeout=SOCKET_TIMEOUT_S)
        stack.push_async_callback(client.aclose)
        return RedisStreams(client, consumer=instance_id, on_change=changed)
    return None
