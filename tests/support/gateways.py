"""A gateway of real parts over any provider, its meter in memory."""

import json
from typing import Any

from stationmaster.gateway import Gateway, GatewayCall, Models, Pricing, UpstreamOf
from stationmaster.kernel.clock import ManualClock
from stationmaster.providers.base import Provider
from tests.support.memory_meter import MemoryMeter, Notebook

AT = 1_790_000_000_000
OPUS = "claude-opus-5-5"


def gateway_over(
    provider: Provider,
    meter: MemoryMeter | None = None,
    notebook: Notebook | None = None,
    *,
    clock: ManualClock | None = None,
) -> Gateway:
    """A gateway that sends everything to `provider`."""
    clock = clock or ManualClock(AT)
    return Gateway(
        models=Models(Pricing(clock=clock), UpstreamOf(provider)),
        meter=meter or MemoryMeter(),
        observer=notebook or Notebook(),
        clock=clock,
    )


def asking(prompt: str = "Say hello.", **members: Any) -> bytes:
    """A request body."""
    body = {
        "model": OPUS,
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": prompt}],
        **members,
    }
    return json.dumps(body).encode()


async def read(call: GatewayCall) -> bytes:
    """The whole answer of a started call, which is then closed."""
    try:
        return b"".join([chunk async for chunk in call.chunks()])
    finally:
        await call.aclose()
