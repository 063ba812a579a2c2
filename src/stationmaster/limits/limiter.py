"""The verbs: let a request through or refuse it, and count what should not have come."""

import math
from collections.abc import Callable
from typing import NoReturn

from stationmaster.kernel.principal import Principal
from stationmaster.limits.grant import NOTHING, TOO_MUCH, UNLIMITED, Grant, RateLimited, Refusal
from stationmaster.limits.memory import MemoryStore
from stationmaster.limits.plan import REQUESTS, Line, Plan, RateLine
from stationmaster.limits.policy import Kind, Policy, site
from stationmaster.limits.rate import Rate
from stationmaster.limits.store import Store

PLANS = 10_000
"""Plans remembered, about a kilobyte each. Beyond it all are made again as they are needed."""

TRUSTED = 10_000
"""Good credentials remembered, each by the hash that Python makes with this process's own key."""

OnRefused = Callable[[str, str], None]
"""Told the level and the unit of each refusal."""


_NAMES = {
    "requests": "requests",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "calls": "calls at once",
    "sockets": "open sockets",
}
_WHOSE = {
    "global": "of this server",
    "organization": "of this organisation",
    "project": "of this project",
    "user": "of this user",
    "key": "of this key",
    "address": "of this address",
    "class": "of such requests",
}


class Limiter:
    """Every limit on how fast, for all transports."""

    def __init__(
        self,
        policy: Policy | None,
        store: Store,
        *,
        on_refused: OnRefused = lambda level, unit: None,
    ) -> None:
        """Without a policy nothing is limited, whatever a key's own limits are."""
        self._policy = policy
        self._store = store
        self._on_refused = on_refused
        self._plans: dict[tuple[str, Kind, str | None], tuple[Principal, Plan]] = {}

    async def admit(
        self,
        principal: Principal,
        kind: Kind,
        *,
        address: str | None = None,
        input_tokens: int = 0,
        output_tokens: int = 0,
    ) -> Grant:
        """Let one request through, counted at every level, or raise `RateLimited`.

        The caller finishes the grant, whatever happens. Tokens are what is expected; they count
        for the kind `chat` alone, which also takes a place among the calls at once.
        """
        if self._policy is None:
            return NOTHING
        known = self._plans.get((principal.key_id or principal.id, kind, address))
        if known is not None and known[0] is principal:
            plan = known[1]
        else:
            plan = self._plan(self._policy, principal, kind, address)
        if plan.empty:
            return NOTHING
        answer = await self._store.take(plan, (1, input_tokens, output_tokens))
        return answer if isinstance(answer, Grant) else self._refuse(answer)

    async def admit_address(self, address: str | None, kind: Kind) -> Grant:
        """Let one request through that comes without a credential, or raise `RateLimited`."""
        if self._policy is None:
            return NOTHING
        counted = None if address is None else site(address)
        plan = self._policy.plan_of_address(kind, counted)
        if plan.empty:
            return NOTHING
        answer = await self._store.take(plan, (1, 0, 0))
        return answer if isinstance(answer, Grant) else self._refuse(answer)

    def _refuse(self, refusal: Refusal) -> NoReturn:
        self._on_refused(refusal.line.level, refusal.line.unit)
        raise _limited(refusal)

    def _plan(self, policy: Policy, principal: Principal, kind: Kind, address: str | None) -> Plan:
        asked = (principal.key_id or principal.id, kind, address)
        known = self._plans.get(asked)
        if known is not None and _alike(known[0], principal):
            plan = known[1]
        else:
            if len(self._plans) >= PLANS:
                self._plans.clear()
            plan = policy.plan(principal, kind, None if address is None else site(address))
        self._plans[asked] = (principal, plan)
        return plan


class Failures:
    """Bad credentials, by address, in each replica for itself.

    They are kept apart from all other counts: a flood of addresses pushes out no key's. A
    credential that was good lately is let through: behind one address there may be many callers.
    """

    def __init__(
        self,
        rate: Rate | None,
        store: MemoryStore,
        *,
        on_refused: OnRefused = lambda level, unit: None,
    ) -> None:
        self._rate = rate
        self._store = store
        self._on_refused = on_refused
        self._trusted: dict[int, None] = {}

    def trust(self, secret: str | None) -> None:
        """Remember that a credential was good; of the secret itself nothing is kept."""
        if secret is not None:
            self._trusted[hash(secret)] = None
            if len(self._trusted) > TRUSTED:
                del self._trusted[next(iter(self._trusted))]

    def check(self, address: str | None, secret: str) -> None:
        """Raise `RateLimited` where this address has tried too often. Ask before any look-up."""
        if self._rate is None or address is None or hash(secret) in self._trusted:
            return
        line = self._line(address, self._rate)
        if self._store.free(line) < 1:
            self._refuse(self._store.decide(Plan((line,)), (1, 0, 0)))

    def count(self, address: str | None, secret: str) -> None:
        """Count a credential that was not valid. Raise `RateLimited` where it is one too many.

        So of many that are tried at the same time no more are told apart than of those in turn.
        """
        self._trusted.pop(hash(secret), None)
        if self._rate is not None and address is not None:
            line = self._line(address, self._rate)
            self._refuse(self._store.decide(Plan((line,)), (1, 0, 0)))

    def _line(self, address: str, rate: Rate) -> RateLine:
        return RateLine.of("address", REQUESTS, f"failures:{site(address)}", rate)

    def _refuse(self, answer: Grant | Refusal) -> None:
        if isinstance(answer, Refusal):
            self._on_refused("address", "failures")
            raise RateLimited(
                "Too many credentials that are not valid came from this address.",
                retry_after=None if answer.wait_ms is None else answer.wait_ms / 1000,
                standing=UNLIMITED,
            )


def _alike(one: Principal, other: Principal) -> bool:
    """Whether both count against the same: a key's runs are many principals."""
    return (
        one.owner == other.owner
        and one.user_id == other.user_id
        and one.limits == other.limits
        and one.project_limits == other.project_limits
        and one.organization_limits == other.organization_limits
    )


def _limited(refusal: Refusal) -> RateLimited:
    line, whose = refusal.line, _WHOSE[refusal.line.level]
    message = f"The rate limit {whose} is reached: {_amount(line)}."
    if refusal.wait_ms is None:
        return RateLimited(
            message, code=TOO_MUCH, retry_after=None, standing=refusal.standing, level=line.level
        )
    seconds = refusal.wait_ms / 1000
    return RateLimited(
        f"{message} Try again in {math.ceil(seconds)} seconds.",
        retry_after=seconds,
        standing=refusal.standing,
        level=line.level,
    )


def _amount(line: Line) -> str:
    name = _NAMES[line.unit]
    if isinstance(line, RateLine):
        at_once = f", {line.burst} at once" if line.bursting else ""
        return f"{line.amount} {name} in {_period(line.period)}{at_once}"
    return f"{line.most} {name}"


def _period(period_ms: int) -> str:
    names = {1_000: "a second", 60_000: "a minute", 3_600_000: "an hour", 86_400_000: "a day"}
    return names.get(period_ms, f"{period_ms / 1000:g} seconds")
