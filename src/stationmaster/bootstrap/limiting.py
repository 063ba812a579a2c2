"""Rate limits: which there are, and where they are counted."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stationmaster.http.services import Component
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Unavailable
from stationmaster.limits import Failures, Kind, Limiter, MemoryStore, Policy, Rate, Store
from stationmaster.sessions.runs.bounds import Shares
from stationmaster.settings import Settings
from stationmaster.telemetry import Metrics

if TYPE_CHECKING:
    from stationmaster.live.connection import Redis


@dataclass(frozen=True, slots=True)
class Limiting:
    """What the rest of the server is given. `store.run` goes on beside it."""

    limiter: Limiter
    failures: Failures
    store: Store
    component: Component


def limiting(
    stack: AsyncExitStack,
    settings: Settings,
    clock: Clock,
    metrics: Metrics,
    redis: "Redis | None",
) -> Limiting:
    """Rate limits as the settings have them, counted in `redis` where there is one."""
    store, component = _store(clock, metrics, redis)
    stack.push_async_callback(store.aclose)
    on = settings.rate_limit_enabled
    return Limiting(
        limiter=Limiter(policy(settings) if on else None, store, on_refused=metrics.rate_limited),
        failures=Failures(
            settings.rate_limit_failures if on else None,
            MemoryStore(clock),
            on_refused=metrics.rate_limited,
        ),
        store=store,
        component=component,
    )


def policy(settings: Settings) -> Policy:
    """What holds for everybody."""
    classes: dict[Kind, Rate | None] = {
        "chat": settings.rate_limit_chat,
        "tasks": settings.rate_limit_tasks,
        "read": settings.rate_limit_read,
        "write": settings.rate_limit_write,
        "admin": settings.rate_limit_admin,
        "analytics": settings.rate_limit_analytics,
        "auth": settings.rate_limit_auth,
        "room_messages": settings.rate_limit_messages,
        "notifications": settings.rate_limit_notifications,
    }
    return Policy(
        everything=settings.rate_limit_global,
        organization=settings.rate_limit_organization,
        project=settings.rate_limit_project,
        user=settings.rate_limit_user,
        key=settings.default_rate_limit,
        address=settings.rate_limit_address,
        classes={kind: rate for kind, rate in classes.items() if rate is not None},
        input_tokens=settings.rate_limit_input_tokens,
        output_tokens=settings.rate_limit_output_tokens,
        calls=settings.rate_limit_concurrent_calls,
        sockets=settings.websocket_max_per_key,
    )


def shares(settings: Settings) -> Shares:
    """How many runs one key and one organisation may have, where nothing else is said of them."""
    if not settings.rate_limit_enabled:
        return Shares()
    return Shares(
        settings.rate_limit_concurrent_runs, settings.rate_limit_organization_concurrent_runs
    )


def _store(clock: Clock, metrics: Metrics, redis: "Redis | None") -> tuple[Store, Component]:
    own = MemoryStore(clock)
    if redis is None:

        async def alone() -> Mapping[str, Any]:
            return {"store": "memory", "shared": False}

        return own, Component("rate_limits", alone, critical=False)
    # Late, so that a server without Redis does not load what it does not use.
    from stationmaster.limits.fallback import FallbackStore
    from stationmaster.limits.shared import RedisStore

    store = FallbackStore(
        RedisStore(redis),
        own,
        on_change=lambda shared: metrics.rate_limits_shared.set(int(shared)),
    )

    async def check() -> Mapping[str, Any]:
        if not store.shared:
            raise Unavailable("Redis is away: rate limits hold for each server alone.")
        return {"store": "redis", "shared": True}

    return store, Component("rate_limits", check, critical=False)
