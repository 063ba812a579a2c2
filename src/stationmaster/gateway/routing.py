"""Which provider answers for a model, and who after it."""

import hashlib
import math
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from stationmaster.gateway.catalogue import Catalogue
from stationmaster.gateway.pricing import ANTHROPIC, Pricing
from stationmaster.gateway.upstreams import UpstreamOf
from stationmaster.kernel.errors import NotFound

Strategy = Literal["ordered", "weighted", "cost", "latency"]
"""How the first of several targets is chosen: as written, by chance in proportion to the weights
(a session stays where it is, so that its prompt cache is warm), the cheapest, the quickest."""

_REMEMBERED = 1_000
"""Models without a route, whose names come from requests."""


@dataclass(frozen=True, slots=True)
class Target:
    """A model at a provider. `model` is the provider's name for it, `prices` its price list."""

    upstream: UpstreamOf
    model: str
    prices: str = ANTHROPIC
    weight: int = 1
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Route:
    """Where calls to one name go. `fallbacks` are names that are asked when no target answers."""

    targets: tuple[Target, ...]
    strategy: Strategy = "ordered"
    fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Models:
    """All that is known of models. Replaced whole when the configuration changes.

    `default` takes every model that has no route, under its own name; None refuses them.
    """

    pricing: Pricing
    default: UpstreamOf | None
    catalogue: Catalogue = field(default_factory=Catalogue)
    routes: Mapping[str, Route] = field(default_factory=dict)
    default_prices: str = ANTHROPIC
    _unrouted: dict[str, Target] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def targets(
        self, name: str, *, sticky: str | None = None, tags: Collection[str] = ()
    ) -> list[Target]:
        """Whom to ask, in order; `sticky` is what stays at one target, such as a session.

        Targets that have one of the call's `tags` come before all others of their route. Who is
        left alone for now comes last. Raises `NotFound` for a model that nobody serves.
        """
        model = self.catalogue.resolve(name)
        route = self.routes.get(model)
        found = self._of(route, model, sticky, tags)
        if route is not None:
            for other in map(self.catalogue.resolve, route.fallbacks):
                found += self._of(self.routes.get(other), other, sticky, tags)
        if not found:
            raise NotFound(
                f"model: {name} is not served here.", code="unknown_model", param="model"
            )
        if len(found) > 1:
            found.sort(key=lambda target: not target.upstream.breaker.ready)
        return found

    def _of(
        self, route: Route | None, model: str, sticky: str | None, tags: Collection[str]
    ) -> list[Target]:
        if route is None:
            if (known := self._unrouted.get(model)) is not None:
                return [known]
            return [] if self.default is None else [self._by_default(self.default, model)]
        order = list(route.targets)
        match route.strategy:
            case "weighted":
                order.sort(key=lambda target: _lot(target, sticky))
            case "cost":
                order.sort(key=self._dearness)
            case "latency":
                order.sort(key=lambda target: target.upstream.slowness or 0.0)
            case "ordered":
                pass
        if tags:
            order.sort(key=lambda target: target.tags.isdisjoint(tags))
        return order

    def _by_default(self, upstream: UpstreamOf, model: str) -> Target:
        target = Target(upstream, model, self.default_prices)
        if len(self._unrouted) < _REMEMBERED:
            self._unrouted[model] = target
        return target

    def _dearness(self, target: Target) -> float:
        try:
            price = self.pricing.rates(target.model, prices=target.prices).worst
        except NotFound:
            return math.inf
        return float(price.input + price.output)

    def upstreams(self) -> tuple[UpstreamOf, ...]:
        """All of them, without repeats."""
        found = [] if self.default is None else [self.default]
        found += [target.upstream for route in self.routes.values() for target in route.targets]
        return tuple(dict.fromkeys(found))


def _lot(target: Target, sticky: str | None) -> float:
    """Weighted rendezvous hashing: the least lot wins, and keeps winning when others come or go."""
    if sticky is None:
        drawn = secrets.randbits(53)
    else:
        told = f"{sticky}\0{target.upstream.name}\0{target.model}".encode()
        drawn = int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "big") >> 11
    return -math.log((drawn + 1) / (2**53 + 1)) / max(target.weight, 1e-9)
