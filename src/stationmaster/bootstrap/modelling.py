"""The models of `config.yaml`, made anew when it changes."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import structlog

from stationmaster.bootstrap.by_login import ByLogin
from stationmaster.gateway import (
    Care,
    Catalogue,
    Gateway,
    ModelFacts,
    Models,
    Pricing,
    Route,
    Target,
    UpstreamOf,
)
from stationmaster.gateway.catalogue import ALIASES
from stationmaster.gateway.pricing import ANTHROPIC, FREE
from stationmaster.gateway.upstreams import Standing
from stationmaster.http.services import Component
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Invalid
from stationmaster.providers.base import Provider
from stationmaster.providers.batches import BatchInterface
from stationmaster.providers.registry import make
from stationmaster.providers.upstream import Timeouts
from stationmaster.settings import Settings, SettingsError
from stationmaster.settings.catalogue import CatalogueFile, ModelEntry, ProviderEntry
from stationmaster.telemetry import Metrics, Redactor

log = structlog.get_logger(__name__)

LOOK_S = 2.0  # how late a changed file is read
TELL_S = 5.0  # how old metrics of providers may be

PRICES: Mapping[str, str] = {
    "anthropic": ANTHROPIC,
    "bedrock": ANTHROPIC,
    "claude_code": ANTHROPIC,
    "offline": ANTHROPIC,
    "ollama": FREE,
    "openai": "openai",
    "vertex": ANTHROPIC,
}
"""The price list of each kind of provider, where its entry names none."""

PATIENT = frozenset({"ollama"})
"""Kinds of providers that try again by themselves."""


CLAUDE_CODE = "claude_code"
FEW = 2
"""Calls at once by a login, where its entry says nothing: each is a process of some 200 MB."""


class Modelling:
    """Keeps the gateway's models as the file says. `builtin` answers what the file does not name.

    A file that cannot be used changes nothing: the models stay as they were.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        redactor: Redactor,
        builtin: Provider,
        by_login: ByLogin | None = None,
    ) -> None:
        """Make the models that `settings` came with. Raises `Invalid` where they cannot be made."""
        self._settings = settings
        self._by_login = by_login
        self._clock = clock
        self._redactor = redactor
        self._care = Care(
            retries=settings.upstream_retries,
            threshold=settings.circuit_breaker_threshold,
            recovery=settings.circuit_breaker_recovery,
        )
        self._builtin = UpstreamOf(builtin, self._care)
        self._made: dict[str, UpstreamOf] = {}  # by what the file said of each
        self._retiring: set[asyncio.Task[None]] = set()
        self.models = self._make(settings.catalogue)

    def _make(self, file: CatalogueFile) -> Models:
        for secret in file.secrets:
            self._redactor.register(secret)
        made: dict[str, UpstreamOf] = {}
        by_name: dict[str, UpstreamOf] = {}
        for name, entry in file.providers.items():
            key = _said(name, entry)
            made[key] = by_name[name] = self._made.get(key) or self._provider(name, entry)
        default = next((name for name, each in file.providers.items() if each.default), None)
        prices = {name: _prices(entry) for name, entry in file.providers.items()}
        models = Models(
            pricing=Pricing(clock=self._clock, facts=_facts(file)),
            default=self._builtin if default is None else by_name[default],
            catalogue=Catalogue({**ALIASES, **file.aliases}, named=tuple(file.models)),
            routes={
                name: _route(name, entry, by_name, prices)
                for name, entry in file.models.items()
                if entry.targets
            },
            default_prices=ANTHROPIC if default is None else prices[default],
        )
        self._made = made
        return models

    def _provider(self, name: str, entry: ProviderEntry) -> UpstreamOf:
        settings = self._settings
        timeouts = Timeouts(
            connect=settings.connect_timeout,
            first_byte=settings.first_byte_timeout,
            inactivity=settings.inactivity_timeout,
            total=settings.api_timeout,
        )
        if entry.kind == CLAUDE_CODE:
            provider = self._claude_code(name, entry, timeouts)
        else:
            provider = make(entry.kind, name, entry.options, timeouts)
        few = FEW if entry.kind == CLAUDE_CODE else None
        care = replace(self._care, max_concurrent=entry.max_concurrent or few)
        if entry.kind in PATIENT:
            care = replace(care, retries=0, connect_retries=0)
        return UpstreamOf(provider, care, native=_native(name, entry, provider))

    def _claude_code(self, name: str, entry: ProviderEntry, timeouts: Timeouts) -> Provider:
        if self._by_login is None:
            raise Invalid(
                f"The provider {name!r} (claude_code) needs a server with a subscription login"
                " (CLAUDE_CODE_CREDENTIALS_SECRET) that runs agents.",
                param="type",
            )
        if entry.options:
            unknown = next(iter(entry.options))
            raise Invalid(
                f"The provider {name!r} (claude_code) has no option {unknown!r}.", param=unknown
            )
        return self._by_login(name, timeouts)

    def reload(self, gateway: Gateway) -> bool:
        """Read the file again, and use it. False where it is not usable: the log says why."""
        before = dict(self._made)
        try:
            self.models = self._make(self._settings.read_catalogue())
        except (SettingsError, Invalid) as error:
            log.error("The configuration of models stays as it was.", reason=error.message)
            return False
        gateway.use(self.models)
        for key in before.keys() - self._made.keys():
            task = asyncio.create_task(_retire(before[key]), name=f"retire {before[key].name}")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        log.info("The configuration of models was read.", models=len(self.models.routes))
        return True

    async def watch(self, gateway: Gateway, asked: asyncio.Event) -> None:
        """Reload whenever the file changes, or somebody asks. Runs until cancelled."""
        seen = await asyncio.to_thread(_look, self._settings.config_file)
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await asked.wait()
            except TimeoutError:
                pass
            found = await asyncio.to_thread(_look, self._settings.config_file)
            if asked.is_set() or found != seen:
                asked.clear()
                seen = found
                self.reload(gateway)

    def component(self) -> Component:
        """What `/health` says of the providers that models have."""

        async def check() -> Mapping[str, Any]:
            found = [upstream.standing() for upstream in self.models.upstreams()]
            return {
                "upstreams": len(found),
                "open": sum(each.breaker == "open" for each in found),
                "active": sum(each.active for each in found),
                "waiting": sum(each.waiting for each in found),
                "each": {each.name: _shown(each) for each in found},
            }

        return Component("upstreams", check, critical=False)

    async def tell(self, gateway: Gateway, metrics: Metrics) -> None:
        """Tell the metrics how providers do. Runs until cancelled."""
        before: set[str] = set()
        while True:
            found = [upstream.standing() for upstream in gateway.models.upstreams()]
            for gone in before - {each.name for each in found}:
                metrics.upstream_gone(gone)
            for each in found:
                metrics.upstream(
                    each.name,
                    breaker=each.breaker,
                    active=each.active,
                    waiting=each.waiting,
                    retries_left=each.retries_left,
                )
            before = {each.name for each in found}
            await asyncio.sleep(TELL_S)

    async def aclose(self) -> None:
        """Close every provider. The built-in one belongs to whoever made it. Idempotent."""
        for task in list(self._retiring):
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        for upstream in self._made.values():
            await upstream.provider.aclose()


def _shown(standing: Standing) -> dict[str, Any]:
    slowness = standing.slowness
    return {
        "breaker": standing.breaker,
        "active": standing.active,
        "waiting": standing.waiting,
        "retries_left": standing.retries_left,
        "first_byte_ms": None if slowness is None else round(slowness * 1000),
    }


async def _retire(upstream: UpstreamOf) -> None:
    """Close a provider that nobody is sent to any more, when its last call has ended."""
    try:
        await upstream.emptied()
    finally:
        await upstream.provider.aclose()


def _said(name: str, entry: ProviderEntry) -> str:
    batches = (entry.native_batches, entry.batch_price)
    said = (name, entry.kind, dict(entry.options), entry.max_concurrent, batches)
    return json.dumps(said, sort_keys=True, default=str)


def _native(name: str, entry: ProviderEntry, provider: Provider) -> Decimal | None:
    """What a call costs in the provider's own batches; None where they are not used."""
    if not entry.native_batches:
        return None
    interface: BatchInterface | None = getattr(provider, "batches", None)
    if interface is None:
        raise Invalid(
            f"The provider {name!r} ({entry.kind}) has no interface for batches that is known here:"
            " batches must be calls.",
            param="batches",
        )
    return interface.price if entry.batch_price is None else entry.batch_price


def _prices(entry: ProviderEntry) -> str:
    return entry.prices or PRICES.get(entry.kind, entry.kind)


def _facts(file: CatalogueFile) -> dict[str, ModelFacts]:
    """By the providers' names for the models, and by ours."""
    found: dict[str, ModelFacts] = {}
    for name, entry in file.models.items():
        facts = ModelFacts(
            entry.price, entry.context_window, entry.max_output, entry.abilities.lacking()
        )
        if facts != ModelFacts():
            for each in {name, *(target.model or name for target in entry.targets)}:
                found[each] = facts
    return found


def _route(
    name: str,
    entry: ModelEntry,
    upstreams: Mapping[str, UpstreamOf],
    prices: Mapping[str, str],
) -> Route:
    targets = tuple(
        Target(
            upstreams[target.provider],
            target.model or name,
            prices[target.provider],
            target.weight,
            target.tags,
        )
        for target in entry.targets
    )
    return Route(targets, entry.strategy, entry.fallbacks)


def _look(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
