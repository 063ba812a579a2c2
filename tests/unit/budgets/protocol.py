"""A model of the protocol of holds, small enough to be explored whole.

Two servers share one store and one budget. Each call goes through steps; after any of them its
server may die, or be taken for dead while it is not. `explore` walks through every order in which
all this can happen and returns the first broken promise, if there is one.

A fault is a way to build the protocol wrongly. Each must be found, or the model proves nothing.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

Fault = Literal[
    "none",
    "check outside of the transaction",
    "send before the hold",
    "settle without taking the hold",
    "free the hold before the spending is written",
    "write the spending before the hold is freed",
    "give back the holds of the dead",
    "hold less than the worst case",
    "raise the budget without writing the hold",
]

LIMIT = 2
WORST = 1  # a call costs nothing or this
CALLS = (0, 0, 1)  # which server makes each
SERVERS = 2

Step = Literal["new", "checked", "early", "held", "sent", "halfway", "over", "refused", "lost"]


@dataclass(frozen=True, slots=True)
class Call:
    """`step` is how far its server has got, `served` what the provider charges."""

    step: Step = "new"
    served: int = 0
    hold: int | None = None
    billed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class World:
    """`alive` servers work; a `buried` one has been given up by the others."""

    spent: int
    held: int
    calls: tuple[Call, ...]
    alive: tuple[bool, ...]
    buried: tuple[bool, ...]

    def with_call(self, index: int, call: Call, *, spent: int = 0, held: int = 0) -> "World":
        calls = (*self.calls[:index], call, *self.calls[index + 1 :])
        return replace(self, calls=calls, spent=self.spent + spent, held=self.held + held)


START = World(0, 0, (Call(),) * len(CALLS), (True,) * SERVERS, (False,) * SERVERS)


def broken(world: World) -> str | None:
    """The promise that does not hold in this world."""
    if world.spent + world.held > LIMIT:
        return "spent + held <= limit"
    if world.held != sum(call.hold or 0 for call in world.calls):
        return "held is the sum of the open holds"
    if world.spent != sum(sum(call.billed) for call in world.calls):
        return "spent is the sum of the ledger"
    if any(len(call.billed) > 1 for call in world.calls):
        return "a call is billed once"
    for call in world.calls:
        if call.served > sum(call.billed) + (call.hold or 0):
            return "what is served is covered"
    return None


def broken_at_rest(world: World) -> str | None:
    """The promise that does not hold when nothing more will happen."""
    if world.held or any(call.hold is not None for call in world.calls):
        return "no hold is left"
    if not any(world.buried) and sum(call.served for call in world.calls) != world.spent:
        return "without crashes the ledger is what was served"
    return None


def explore(fault: Fault = "none") -> tuple[str | None, int]:
    """The first broken promise on any way through, and how many worlds were seen."""
    seen = {START}
    waiting = deque(seen)
    while waiting:
        world = waiting.popleft()
        if (found := broken(world)) is not None:
            return found, len(seen)
        following = list(steps(world, fault))
        if not following and (found := broken_at_rest(world)) is not None:
            return found, len(seen)
        for after in following:
            if after not in seen:
                seen.add(after)
                waiting.append(after)
    return None, len(seen)


def steps(world: World, fault: Fault) -> Iterator[World]:
    """Every world that can come next."""
    for index, server in enumerate(CALLS):
        # A buried server that lives still does what it has begun; it begins nothing.
        if world.alive[server]:
            yield from _advance(world, index, fault)
    for server in range(SERVERS):
        if world.alive[server]:
            dead = tuple(alive and other != server for other, alive in enumerate(world.alive))
            yield replace(world, alive=dead)
        # A lease runs out for the dead, and for one that hangs.
        others_live = any(alive for other, alive in enumerate(world.alive) if other != server)
        if not world.buried[server] and (others_live or not world.alive[server]):
            yield _bury(world, server, fault)


def _advance(world: World, index: int, fault: Fault) -> Iterator[World]:
    call = world.calls[index]
    buried = world.buried[CALLS[index]]
    match call.step:
        case "new" if not buried:
            yield from _reserve(world, index, fault)
        case "checked":
            yield _place(world, index, fault)
        case "early":
            yield from _reserve(world, index, "none")
        case "held":
            for served in (0, WORST):
                yield world.with_call(index, replace(call, step="sent", served=served))
        case "sent":
            yield from _settle(world, index, fault)
        case "halfway":
            yield _second_half(world, index, fault)


def _fits(world: World, fault: Fault) -> bool:
    worst = 0 if fault == "hold less than the worst case" else WORST
    return world.spent + world.held + worst <= LIMIT


def _reserve(world: World, index: int, fault: Fault) -> Iterator[World]:
    call = world.calls[index]
    if fault == "send before the hold":
        yield world.with_call(index, replace(call, step="early", served=WORST))
    elif not _fits(world, fault):
        yield world.with_call(index, replace(call, step="refused"))
    elif fault == "check outside of the transaction":
        yield world.with_call(index, replace(call, step="checked"))
    else:
        yield _place(world, index, fault)


def _place(world: World, index: int, fault: Fault) -> World:
    call = world.calls[index]
    step: Step = "sent" if call.step == "early" else "held"
    if fault == "hold less than the worst case":
        return world.with_call(index, replace(call, step=step, hold=0))
    if fault == "raise the budget without writing the hold":
        return world.with_call(index, replace(call, step=step), held=WORST)
    return world.with_call(index, replace(call, step=step, hold=WORST), held=WORST)


def _settle(world: World, index: int, fault: Fault) -> Iterator[World]:
    call = world.calls[index]
    if fault == "settle without taking the hold":
        billed = (*call.billed, call.served)[:3]
        yield world.with_call(
            index,
            replace(call, step="over", hold=None, billed=billed),
            spent=call.served,
            held=-(call.hold or 0),
        )
    elif call.hold is None:  # somebody has settled it: nothing changes
        yield world.with_call(index, replace(call, step="over"))
    elif fault == "free the hold before the spending is written":
        freed = replace(call, step="halfway", hold=None)
        yield world.with_call(index, freed, held=-call.hold)
    elif fault == "write the spending before the hold is freed":
        written = replace(call, step="halfway", billed=(*call.billed, call.served))
        yield world.with_call(index, written, spent=call.served)
    else:
        over = replace(call, step="over", hold=None, billed=(*call.billed, call.served))
        yield world.with_call(index, over, spent=call.served, held=-call.hold)


def _second_half(world: World, index: int, fault: Fault) -> World:
    call = replace(world.calls[index], step="over")
    if fault == "free the hold before the spending is written":
        billed = (*call.billed, call.served)
        return world.with_call(index, replace(call, billed=billed), spent=call.served)
    return world.with_call(index, replace(call, hold=None), held=-(call.hold or 0))


def _bury(world: World, server: int, fault: Fault) -> World:
    """Settle the holds of a server that was given up, each in full."""
    marked = tuple(buried or other == server for other, buried in enumerate(world.buried))
    world = replace(world, buried=marked)
    for index, owner in enumerate(CALLS):
        call = world.calls[index]
        if owner != server or call.hold is None:
            continue
        cost = 0 if fault == "give back the holds of the dead" else call.hold
        settled = replace(call, hold=None, billed=(*call.billed, cost))
        world = world.with_call(index, settled, spent=cost, held=-call.hold)
    return world
