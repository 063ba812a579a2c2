"""What goes wrong, when, and to whom: made of a seed, the same each time."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

LEASE_S = 5.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    `after` the fault before it begins, in seconds; `lasts` is until it is mended. `amount` is what
    the kind makes of it: seconds of a clock, of a delay.
    """

    number: int
    kind: str
    target: str
    after: float
    lasts: float
    amount: float = 0.0

    def __str__(self) -> str:
        amount = f" by {self.amount:+.2f} s" if self.amount else ""
        return f"{self.number:4d} {self.kind} {self.target}{amount}, for {self.lasts:.1f} s"


@dataclass(frozen=True, slots=True)
class Kind:
    """How often a kind is chosen, whom it befalls, and for how long."""

    name: str
    weight: int
    targets: str  # servers | database | redis | broker | disk
    least: float
    most: float
    amounts: Sequence[float] = ()


KINDS = (
    Kind("kill", 24, "servers", 0.0, 2.0),
    Kind("freeze", 10, "servers", LEASE_S * 1.2, LEASE_S * 2),
    Kind("restart", 12, "servers", 0.0, 0.5),
    Kind("clock", 6, "servers", 2.0, LEASE_S * 2, (-9.0, -3.0, -0.7, 0.7, 3.0, 9.0)),
    Kind("cut database", 8, "servers", 0.0, 0.0),
    Kind("drop database", 4, "servers", 0.5, LEASE_S * 2),
    Kind("stall database", 5, "servers", 0.5, LEASE_S * 2),
    Kind("slow database", 5, "servers", 1.0, LEASE_S, (0.02, 0.1, 0.4)),
    Kind("cut redis", 5, "servers", 0.0, 0.0),
    Kind("drop redis", 3, "servers", 0.5, LEASE_S),
    Kind("stall redis", 3, "servers", 0.5, LEASE_S),
    Kind("slow redis", 3, "servers", 1.0, LEASE_S, (0.02, 0.1, 0.4)),
    Kind("crash", 5, "database", 0.0, 2.0),
    Kind("hang", 3, "database", 0.5, LEASE_S),
    Kind("crash", 5, "redis", 0.0, 3.0),
    Kind("hang", 3, "redis", 0.5, LEASE_S),
    Kind("crash", 5, "broker", 0.0, 3.0),
    Kind("hang", 3, "broker", 0.5, LEASE_S),
    Kind("full", 4, "disk", 0.5, 4.0),
)


def plan(
    seed: int, faults: int, servers: Sequence[str], *, parts: Sequence[str], gap: float
) -> list[Fault]:
    """So many faults, `gap` seconds from one to the next on average. `parts` are what is there."""
    chance = random.Random(f"{seed}")
    kinds = [kind for kind in KINDS if kind.targets in {"servers", *parts}]
    made = []
    for number in range(1, faults + 1):
        [kind] = chance.choices(kinds, [each.weight for each in kinds])
        target = chance.choice(servers) if kind.targets == "servers" else kind.targets
        made.append(
            Fault(
                number,
                kind.name,
                target,
                after=chance.uniform(0.2, 2.0) * gap,
                lasts=chance.uniform(kind.least, kind.most),
                amount=chance.choice(kind.amounts) if kind.amounts else 0.0,
            )
        )
    return made
