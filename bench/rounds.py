"""Baseline and candidate measured in turn, so that what the machine does meanwhile hits both."""

from collections.abc import Awaitable, Callable, Mapping
from statistics import median
from typing import TypeVar

from bench.progress import Progress

T = TypeVar("T")


def interleaved(
    candidates: Mapping[str, Callable[[], T]], rounds: int, progress: Progress, what: str
) -> dict[str, list[T]]:
    """Call each candidate once a round, `rounds` times; every result, in order.

    Every other round goes backwards: none always runs in the wake of the same other one.
    """
    found: dict[str, list[T]] = {name: [] for name in candidates}
    for turn in range(rounds):
        for name, candidate in _order(candidates, turn):
            progress.say(f"{what}, round {turn + 1} of {rounds}: {name}")
            found[name].append(candidate())
    return found


async def interleaved_async(
    candidates: Mapping[str, Callable[[], Awaitable[T]]],
    rounds: int,
    progress: Progress,
    what: str,
) -> dict[str, list[T]]:
    """As `interleaved`, for what must be awaited."""
    found: dict[str, list[T]] = {name: [] for name in candidates}
    for turn in range(rounds):
        for name, candidate in _order(candidates, turn):
            progress.say(f"{what}, round {turn + 1} of {rounds}: {name}")
            found[name].append(await candidate())
    return found


def _order(candidates: Mapping[str, T], turn: int) -> list[tuple[str, T]]:
    items = list(candidates.items())
    return items if turn % 2 == 0 else items[::-1]


def middle(results: list[T], of: Callable[[T], float]) -> float:
    """The median of one member of every round's result."""
    return median(of(result) for result in results)
