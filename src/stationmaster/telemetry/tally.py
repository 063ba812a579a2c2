"""Counts of what happens at every request: plain numbers, put into Prometheus's words when it asks.

The client library's own take a lock, and several calls, for each number. Series are counted on the
event loop's thread alone; they may be read on any.
"""

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Count:
    """One series of a `Tally`. Whoever counts adds to `value`, and never takes away."""

    __slots__ = ("created", "value")

    def __init__(self) -> None:
        self.value: float = 0
        self.created = time.time()


class Tally(Collector):
    """A counter; `name` ends in `_total`. Without labels it is there from the beginning."""

    type = "counter"

    def __init__(
        self,
        name: str,
        documentation: str,
        label_names: Sequence[str] = (),
        *,
        registry: CollectorRegistry,
    ) -> None:
        self.name = name
        self.documentation = documentation
        self.label_names = tuple(label_names)
        self._series: dict[tuple[str, ...], Count] = {} if label_names else {(): Count()}
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """The series of these values, one for each label."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = Count()
        return found

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        family = CounterMetricFamily(self.name, self.documentation, labels=self.label_names)
        for values, count in list(self._series.items()):
            family.add_metric(values, count.value, created=count.created)
        yield family


class Spread:
    """One series of a `Histogram`."""

    __slots__ = ("_bounds", "counts", "created", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.created = time.time()

    def observe(self, amount: float) -> None:
        """Count one; an amount on a bound is within it."""
        self.counts[bisect_left(self._bounds, amount)] += 1
        self.total += amount


class Histogram(Collector):
    """How amounts spread over buckets, each up to one of `buckets` and the last without a bound."""

    type = "histogram"

    def __init__(
        self,
        name: str,
        documentation: str,
        label_names: Sequence[str],
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self.name = name
        self.documentation = documentation
        self.label_names = tuple(label_names)
        self._bounds = tuple(map(float, buckets))
        self._series: dict[tuple[str, ...], Spread] = {}
        registry.register(self)

    def labels(self, *values: str) -> Spread:
        """The series of these values, one for each label."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = Spread(self._bounds)
        return found

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        family = HistogramMetricFamily(self.name, self.documentation, labels=self.label_names)
        names = [_spelled(bound) for bound in (*self._bounds, float("inf"))]
        for values, spread in list(self._series.items()):
            reached = 0
            buckets: list[tuple[str, float]] = []
            for name, count in zip(names, spread.counts, strict=True):
                reached += count
                buckets.append((name, float(reached)))
            family.add_metric(values, buckets, spread.total)
            labels = dict(zip(self.label_names, values, strict=True))
            family.add_sample(f"{self.name}_created", labels, spread.created)
        yield family


def _spelled(bound: float) -> str:
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]
