"""Which models there are: those that the operator names, and those that providers tell of."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import structlog

from stationmaster.gateway.routing import Models
from stationmaster.gateway.upstreams import UpstreamOf
from stationmaster.kernel.errors import StationmasterError
from stationmaster.providers.base import Listing

log = structlog.get_logger(__name__)

KEPT_S = 3600.0
FAILED_KEPT_S = 60.0
"""For so long a provider that did not tell is not asked again."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A model that may be asked for by `name`; `provider` answers.

    `context_window` and `max_output` are tokens, None where nobody told.
    """

    name: str
    provider: str
    context_window: int | None = None
    max_output: int | None = None

    @classmethod
    def of(cls, models: Models, name: str) -> "Listed":
        """The first target of a name. Raises `NotFound`."""
        target = models.targets(name)[0]
        return cls(
            name,
            target.upstream.name,
            models.pricing.context_window(target.model, prices=target.prices),
            models.pricing.max_output(target.model),
        )


class Listings:
    """Remembers for an hour what the providers told. `now` is a monotonic clock in seconds."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._told: dict[UpstreamOf, tuple[float, tuple[str, ...]]] = {}
        self._asking = asyncio.Lock()

    async def of(self, models: Models) -> list[Listed]:
        """All of them, without repeats: first what the operator names, then what is told."""
        found: dict[str, Listed] = {}
        for name in models.catalogue.listed():
            try:
                found[name] = Listed.of(models, name)
            except StationmasterError:
                continue  # a name that only describes a model
        if models.default is not None:
            for name in await self._asked(models.default):
                found.setdefault(name, Listed.of(models, name))
        return list(found.values())

    async def _asked(self, upstream: UpstreamOf) -> tuple[str, ...]:
        if not hasattr(upstream.provider, "models"):
            return ()
        async with self._asking:
            until, told = self._told.get(upstream, (0.0, ()))
            if self._now() < until:
                return told
            try:
                told = await cast("Listing", upstream.provider).models()
                kept = KEPT_S
            except StationmasterError as error:
                log.info("A provider does not tell its models.", reason=error.error_code)
                kept = FAILED_KEPT_S
            self._told = {upstream: (self._now() + kept, told)}
            return told
