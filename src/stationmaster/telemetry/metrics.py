"""Metrics for Prometheus, in a registry of their own: two servers in a process do not mix.

Every label has a bounded set of values: routes by template, models and endpoints by the first so
many seen. No label holds a key, a user, a run or anything a client wrote freely.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.process_collector import ProcessCollector

from stationmaster.telemetry import tally

OTHER = "other"
BREAKER_STATES = ("closed", "open", "half_open")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_MOST_ENDPOINTS = 300
_MOST_MODELS = 50

# Seconds. Model calls and tasks wait on a model, so they need the long end; probes the short one.
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_FIRST_BYTE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_RUN_BUCKETS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric as the reference tells it."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str


class BoundedLabel:
    """Lets through the first `most` values it sees; every later one becomes `other`."""

    def __init__(self, most: int) -> None:
        """`most` is the number of time series that this label may add to a metric."""
        self._most = most
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        """The value to use as the label."""
        if value in self._seen:
            return value
        if len(self._seen) >= self._most:
            return OTHER
        self._seen.add(value)
        return value


class Metrics:
    """All metrics of one server. Counters only rise; gauges may be given a function to ask."""

    def __init__(self) -> None:
        """Make a fresh registry with every metric at zero."""
        self.registry = registry = CollectorRegistry()
        self._endpoint = BoundedLabel(_MOST_ENDPOINTS)
        self._model = BoundedLabel(_MOST_MODELS)
        self._http_requests = tally.Tally(
            "http_requests_total",
            "HTTP requests answered.",
            ("method", "endpoint", "status"),
            registry=registry,
        )
        self._http_request_seconds = tally.Histogram(
            "http_request_duration_seconds",
            "Time until an HTTP answer was complete.",
            ("method", "endpoint"),
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self._claude_code_requests = tally.Tally(
            "claude_code_requests_total", "HTTP requests answered, of any kind.", registry=registry
        )
        self._declare_runs(registry)
        self._declare_calls(registry)
        self._declare_upstreams(registry)
        self._declare_book(registry)
        self._declare_limits(registry)
        self._declare_news(registry)
        ProcessCollector(registry=registry)
        self._all_requests = self._claude_code_requests.labels()
        self._all_cost = self._model_cost.labels()
        self._of_class = cache(self._model_tokens.labels)
        # By what is told of a request or a call: to find its series takes longer than to count.
        self._routes: dict[tuple[str, str, int], tuple[tally.Count, tally.Spread]] = {}
        self._calls: dict[tuple[str, str, str], tuple[tally.Count, tally.Spread]] = {}

    def _declare_runs(self, registry: CollectorRegistry) -> None:
        self._runs = Counter("runs_total", "Runs ended.", ("outcome",), registry=registry)
        self._run_seconds = Histogram(
            "run_duration_seconds",
            "Time from a run's start to its end, waiting left out.",
            buckets=_RUN_BUCKETS,
            registry=registry,
        )
        self.runs_active = Gauge("runs_active", "Runs at work.", registry=registry)
        self.runs_unanswered = Gauge(
            "runs_unanswered", "Runs that wait for a person or a client.", registry=registry
        )
        self.runs_queued = Gauge("runs_queued", "Runs waiting for a worker.", registry=registry)
        self.queue_runs = Gauge(
            "queue_runs", "Runs waiting for a worker.", ("priority",), registry=registry
        )
        self.queue_oldest = Gauge(
            "queue_oldest_seconds",
            "How long ago the run was asked for that waits longest.",
            ("priority",),
            registry=registry,
        )
        self.agents_alive = Gauge("agents_alive", "Agent processes running.", registry=registry)
        self.pool_warm = Gauge(
            "agent_pool_warm", "Agents waiting for a new session.", registry=registry
        )
        self.pool_idle = Gauge(
            "agent_pool_idle", "Agents waiting for their session's next turn.", registry=registry
        )
        self.pool_busy = Gauge("agent_pool_busy", "Agents with a turn.", registry=registry)
        self.pool_memory = Gauge(
            "agent_pool_memory_bytes", "Memory of agents that wait.", registry=registry
        )
        self.pool_takes = Counter(
            "agent_pool_takes_total",
            "Agents taken for a turn: kept of the session, warm, or cold, which is a miss.",
            ("source",),
            registry=registry,
        )

    def _declare_calls(self, registry: CollectorRegistry) -> None:
        self._model_calls = tally.Tally(
            "model_calls_total",
            "Model calls, settled; with the outcome cached nobody was asked.",
            ("provider", "model", "outcome"),
            registry=registry,
        )
        self._model_tokens = tally.Tally(
            "model_tokens_total", "Tokens billed.", ("class",), registry=registry
        )
        self._model_cost = tally.Tally(
            "model_cost_micro_dollars_total",
            "Cost of settled calls, in millionths of a US dollar.",
            registry=registry,
        )
        self._budget_refusals = Counter(
            "budget_refusals_total",
            "Calls refused for cost, by the kind of subject whose budget did not cover them.",
            ("subject",),
            registry=registry,
        )
        self._cache_lookups = Counter(
            "cache_lookups_total",
            "Model calls for which the response cache was asked: hit or miss.",
            ("result",),
            registry=registry,
        )
        self._kept_calls = Counter(
            "kept_calls_total",
            "Calls of projects that keep theirs: kept, dropped where the queue was full, or failed"
            " where one could not be redacted.",
            ("result",),
            registry=registry,
        )
        self._cache_bytes = Gauge(
            "cache_size_bytes", "What kept answers take.", ("tier",), registry=registry
        )
        self._cache_entries = Gauge(
            "cache_entries", "Answers that are kept.", ("tier",), registry=registry
        )
        self._first_byte_seconds = tally.Histogram(
            "model_call_first_byte_seconds",
            "Time until a provider began its answer.",
            ("provider",),
            buckets=_FIRST_BYTE_BUCKETS,
            registry=registry,
        )

    def _declare_upstreams(self, registry: CollectorRegistry) -> None:
        self._upstream_breaker = Gauge(
            "upstream_breaker",
            "1 for the state that a provider's circuit breaker is in: closed, open or half_open.",
            ("provider", "state"),
            registry=registry,
        )
        self._upstream_active = Gauge(
            "upstream_calls_active", "Calls at a provider.", ("provider",), registry=registry
        )
        self._upstream_waiting = Gauge(
            "upstream_calls_waiting",
            "Calls that wait for a place at a provider (max_concurrent).",
            ("provider",),
            registry=registry,
        )
        self._upstream_retries = Gauge(
            "upstream_retries_left",
            "What a provider's retry budget has: at 0 nothing is sent again.",
            ("provider",),
            registry=registry,
        )

    def _declare_limits(self, registry: CollectorRegistry) -> None:
        self._rate_limited = Counter(
            "rate_limited_total",
            "Requests refused by a rate limit, by its level and unit.",
            ("level", "unit"),
            registry=registry,
        )
        self.rate_limits_shared = Gauge(
            "rate_limits_shared",
            "1 while rate limits hold over all servers together, 0 while over this one alone.",
            registry=registry,
        )

    def _declare_news(self, registry: CollectorRegistry) -> None:
        self.component_up = Gauge(
            "component_up",
            "1 where a part of the server answered when it was last looked at, else 0.",
            ("component",),
            registry=registry,
        )
        self.clock_offset = Gauge(
            "clock_offset_seconds",
            "How far this machine's clock is ahead of the database's; below 0 it is behind.",
            registry=registry,
        )
        self.scheduler_leads = Gauge(
            "scheduler_leads",
            "1 where this server does the periodic work of all, 0 where it stands by.",
            registry=registry,
        )
        self.broker_connected = Gauge(
            "broker_connected",
            "1 while word of jobs goes through the broker, 0 while workers look for themselves.",
            registry=registry,
        )
        self.broker_waiting = Gauge(
            "broker_messages_waiting", "Messages about jobs at the broker.", registry=registry
        )
        self._jobs = Gauge(
            "jobs",
            "Jobs in the database, by kind and state: waiting, running or parked.",
            ("kind", "state"),
            registry=registry,
        )
        self._jobs_oldest = Gauge(
            "jobs_oldest_seconds",
            "How long the first waits of the jobs that are due.",
            registry=registry,
        )
        self.jobs_sent = Counter(
            "jobs_sent_total", "Jobs of which the broker has taken word.", registry=registry
        )
        self.jobs_unsent = Counter(
            "jobs_unsent_total",
            "Jobs of which it has not: workers find them by looking.",
            registry=registry,
        )
        self.news_shared = Gauge(
            "news_shared",
            "1 while news passes between servers at once, 0 while each looks for itself.",
            registry=registry,
        )
        self.news_lost = Counter(
            "news_lost_total",
            "Messages that other servers did not get; they were told to read the log.",
            registry=registry,
        )

    def _declare_book(self, registry: CollectorRegistry) -> None:
        self.sockets_open = Gauge("sockets_open", "Open WebSockets.", registry=registry)
        self.event_readers = Gauge("event_readers", "Open event streams.", registry=registry)
        self.events_appended = Counter(
            "events_appended_total", "Events written to the book.", registry=registry
        )
        self.slow_readers_dropped = Counter(
            "slow_readers_dropped_total",
            "Event streams closed because their reader fell behind.",
            registry=registry,
        )
        self.db_write_batch_size = Histogram(
            "db_write_batch_size",
            "Units of work committed together.",
            buckets=_BATCH_BUCKETS,
            registry=registry,
        )

    def http_request(self, *, method: str, endpoint: str, status: int, seconds: float) -> None:
        """Count one answer. `endpoint` is the route's template, never the path as requested."""
        found = self._routes.get((method, endpoint, status))
        if found is None:
            found = self._route(method, endpoint, status)
        answered, took = found
        answered.value += 1
        took.observe(seconds)
        self._all_requests.value += 1

    def _route(self, method: str, endpoint: str, status: int) -> tuple[tally.Count, tally.Spread]:
        verb = method if method in _METHODS else OTHER
        label = self._endpoint(endpoint)
        found = (
            self._http_requests.labels(verb, label, str(status)),
            self._http_request_seconds.labels(verb, label),
        )
        if (verb, label) == (method, endpoint):  # others come without end
            self._routes[method, endpoint, status] = found
        return found

    def rate_limited(self, level: str, unit: str) -> None:
        """Count one refusal for going too fast."""
        self._rate_limited.labels(level, unit).inc()

    def run_ended(self, *, outcome: str, seconds: float) -> None:
        """Count one run that has ended; `seconds` since it started."""
        self._runs.labels(outcome).inc()
        self._run_seconds.observe(seconds)

    def model_call(
        self,
        *,
        provider: str,
        model: str,
        outcome: str,
        tokens: dict[str, int],
        cost_micros: int,
        first_byte_seconds: float | None,
    ) -> None:
        """Count one settled call. `tokens` by class: input, output, cache_write, cache_read."""
        found = self._calls.get((provider, model, outcome))
        if found is None:
            found = self._call(provider, model, outcome)
        ended, began = found
        ended.value += 1
        for name, count in tokens.items():
            if count:
                self._of_class(name).value += count
        self._all_cost.value += cost_micros
        if first_byte_seconds is not None:
            began.observe(first_byte_seconds)

    def _call(self, provider: str, model: str, outcome: str) -> tuple[tally.Count, tally.Spread]:
        label = self._model(model)
        found = (
            self._model_calls.labels(provider, label, outcome),
            self._first_byte_seconds.labels(provider),
        )
        if label == model:
            self._calls[provider, model, outcome] = found
        return found

    def upstream(
        self, provider: str, *, breaker: str, active: int, waiting: int, retries_left: int
    ) -> None:
        """Tell how a provider does. `breaker` is closed, open or half_open."""
        for state, gauge in zip(BREAKER_STATES, self._breaker_of(provider), strict=True):
            gauge.set(int(state == breaker))
        self._upstream_active.labels(provider).set(active)
        self._upstream_waiting.labels(provider).set(waiting)
        self._upstream_retries.labels(provider).set(retries_left)

    def upstream_gone(self, provider: str) -> None:
        """Tell nothing more of a provider that is configured no more."""
        for state in BREAKER_STATES:
            self._upstream_breaker.remove(provider, state)
        for gauge in (self._upstream_active, self._upstream_waiting, self._upstream_retries):
            gauge.remove(provider)

    def _breaker_of(self, provider: str) -> tuple[Gauge, ...]:
        return tuple(self._upstream_breaker.labels(provider, state) for state in BREAKER_STATES)

    def cache_lookup(self, *, hit: bool) -> None:
        """Count one question to the response cache."""
        self._cache_lookups.labels("hit" if hit else "miss").inc()

    def call_kept(self, result: str) -> None:
        """Count one call that was to be kept."""
        self._kept_calls.labels(result).inc()

    def cache_size(self, tier: str, *, entries: int, size: int) -> None:
        """Tell what a tier of the response cache keeps; `size` in bytes."""
        self._cache_entries.labels(tier).set(entries)
        self._cache_bytes.labels(tier).set(size)

    def jobs_there(self, numbers: Mapping[tuple[str, str], int], *, waited: float) -> None:
        """Tell how many jobs there are, by state and kind; `waited` is in seconds."""
        self._jobs.clear()
        for (state, kind), number in numbers.items():
            self._jobs.labels(kind, state).set(number)
        self._jobs_oldest.set(waited)

    def call_refused(self, subject_kind: str) -> None:
        """Count one call that a budget did not cover."""
        self._budget_refusals.labels(subject_kind).inc()

    def families(self) -> tuple[Family, ...]:
        """Every metric of ours, without those of the process."""
        return tuple(
            _family(item)
            for item in vars(self).values()
            if isinstance(item, MetricWrapperBase | tally.Tally | tally.Histogram)
        )

    def render(self) -> tuple[bytes, str]:
        """The body and the content type of an answer to Prometheus."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4


def _family(item: MetricWrapperBase | tally.Tally | tally.Histogram) -> Family:
    if not isinstance(item, MetricWrapperBase):
        return Family(item.name, item.type, item.label_names, item.documentation)
    name = item._name + ("_total" if item._type == "counter" else "")
    return Family(name, str(item._type), tuple(item._labelnames), str(item._documentation))
