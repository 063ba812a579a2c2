"""The operator's limits, and which of them a caller's requests count against."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from stationmaster.kernel.principal import Limits, Principal
from stationmaster.limits.plan import (
    INPUT,
    OUTPUT,
    REQUESTS,
    Level,
    Plan,
    RateLine,
    SlotLine,
    Unit,
)
from stationmaster.limits.rate import MOST, Rate

Kind = Literal[
    "chat",
    "tasks",
    "read",
    "write",
    "admin",
    "analytics",
    "auth",
    "room_messages",
    "notifications",
    "sockets",
]
"""Classes of endpoints. `sockets` has no rate of its own: opening one takes a place."""

IPV6_SITE_BITS = 64
"""What one customer of a network gets: to change the rest of an address costs nothing."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for everybody. None, or a class that is missing, is no limit.

    Rates of `key`, of `classes` and of tokens are for each key, and so are `calls` and `sockets`;
    a key's or project's own limits replace them.
    """

    everything: Rate | None = None
    organization: Rate | None = None
    project: Rate | None = None
    user: Rate | None = None
    key: Rate | None = None
    address: Rate | None = None
    classes: Mapping[Kind, Rate] = field(default_factory=dict)
    input_tokens: Rate | None = None
    output_tokens: Rate | None = None
    calls: int | None = None
    sockets: int | None = None

    def plan(self, principal: Principal, kind: Kind, address: str | None) -> Plan:
        """What a request counts against. A run counts against the key that started it."""
        owner, key = principal.owner, f"key:{principal.key_id or principal.id}"
        usual = Limits(concurrent_calls=self.calls, sockets=self.sockets)
        plan = _Draft(kind)
        plan.rate("global", REQUESTS, "all", self.everything)
        for level, subject, rate, own in (
            (
                _ORGANIZATION,
                owner.organization_id,
                self.organization,
                principal.organization_limits,
            ),
            (_PROJECT, owner.project_id, self.project, principal.project_limits),
        ):
            plan.subject(level, f"{level}:{subject}", rate, own or _NONE)
        if principal.user_id is not None:
            plan.rate("user", REQUESTS, f"user:{principal.user_id}", self.user)
        plan.subject("key", key, self.key, principal.limits or _NONE, usual)
        if kind == "chat":
            own = principal.limits or _NONE
            if own.input_tokens_per_minute is None:
                plan.rate("key", INPUT, key, self.input_tokens)
            if own.output_tokens_per_minute is None:
                plan.rate("key", OUTPUT, key, self.output_tokens)
        if address is not None:
            plan.rate("address", REQUESTS, f"address:{address}", self.address)
        plan.rate("class", REQUESTS, f"{key}:{kind}", self.classes.get(kind))
        return Plan(tuple(plan.rates), tuple(plan.slots))

    def plan_of_address(self, kind: Kind, address: str | None) -> Plan:
        """What a request counts against of which nobody knows who makes it."""
        plan = _Draft(kind)
        plan.rate("global", REQUESTS, "all", self.everything)
        if address is not None:
            plan.rate("address", REQUESTS, f"address:{address}", self.address)
            plan.rate("class", REQUESTS, f"address:{address}:{kind}", self.classes.get(kind))
        return Plan(tuple(plan.rates))


_NONE = Limits()
_ORGANIZATION: Level = "organization"
_PROJECT: Level = "project"


class _Draft:
    """A plan in the making."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.rates: list[RateLine] = []
        self.slots: list[SlotLine] = []

    def subject(
        self, level: Level, subject: str, rate: Rate | None, own: Limits, usual: Limits = _NONE
    ) -> None:
        """Whatever one subject is limited in."""
        self.rate(level, REQUESTS, subject, _requests(own, rate))
        if self.kind == "chat":
            self.rate(level, INPUT, subject, _tokens(own.input_tokens_per_minute))
            self.rate(level, OUTPUT, subject, _tokens(own.output_tokens_per_minute))
            self.place(
                level, "calls", subject, _first(own.concurrent_calls, usual.concurrent_calls)
            )
        elif self.kind == "sockets":
            self.place(level, "sockets", subject, _first(own.sockets, usual.sockets))

    def rate(self, level: Level, index: int, subject: str, rate: Rate | None) -> None:
        if rate is not None:
            self.rates.append(RateLine.of(level, index, subject, rate))

    def place(self, level: Level, unit: Unit, subject: str, most: int | None) -> None:
        if most is not None:
            self.slots.append(SlotLine(level, unit, f"{subject}:{unit}", most))


def _requests(own: Limits, usual: Rate | None) -> Rate | None:
    """A limit of one's own has the burst that it names, or none."""
    if own.requests_per_minute is None:
        return usual
    amount = min(own.requests_per_minute, MOST)
    burst = amount if own.burst is None or not amount else min(max(own.burst, amount), MOST)
    return Rate(amount, burst=burst)


def _tokens(own: int | None) -> Rate | None:
    return None if own is None else Rate(min(own, MOST))


def _first(own: int | None, usual: int | None) -> int | None:
    return usual if own is None else own


def site(address: str) -> str:
    """What to count an address as: itself, or for IPv6 the network that its owner has."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, IPV6_SITE_BITS), strict=False).network_address)
