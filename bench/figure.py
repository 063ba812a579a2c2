"""What a benchmark found: ours, the baseline of the same run, and whether the goal is met."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

On = Literal["ratio", "ours", "difference"]


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on the ratio ours / baseline, on our figure itself, or on ours - baseline."""

    kind: Literal["at most", "at least"]
    bound: float
    on: On = "ratio"


@dataclass(frozen=True, slots=True)
class Figure:
    """Two medians of one run, in `unit`. `baseline_is` says what the baseline is."""

    name: str
    ours: float
    baseline: float
    baseline_is: str
    unit: str
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        """Ours to the baseline; None where the baseline is lost in the noise."""
        return self.ours / self.baseline if self.baseline > 0 else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one, or where nobody can tell."""
        if self.goal is None:
            return None
        value = {
            "ratio": self.ratio,
            "ours": self.ours,
            "difference": self.ours - self.baseline,
        }[self.goal.on]
        if value is None:
            return None
        if self.goal.kind == "at most":
            return value <= self.goal.bound
        return value >= self.goal.bound

    def to_json(self) -> dict[str, Any]:
        """All of it, computed members included."""
        return {**msgspec.to_builtins(self), "ratio": self.ratio, "met": self.met}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Figure":
        """From `to_json`; the computed members are computed again."""
        return msgspec.convert(data, cls)


def print_table(title: str, figures: Sequence[Figure], *, console: Console | None = None) -> None:
    """Print figures for people, whole at any width of the terminal."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("figure", overflow="fold")
    table.add_column("ours", justify="right", no_wrap=True)
    table.add_column("baseline", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    table.add_column("ratio", justify="right", no_wrap=True)
    table.add_column("goal", justify="right", no_wrap=True)
    table.add_column("met", no_wrap=True)
    for item in figures:
        table.add_row(
            item.name,
            f"{number(item.ours)} {item.unit}",
            number(item.baseline),
            item.baseline_is,
            "-" if item.ratio is None else number(item.ratio),
            goal_text(item),
            {True: "yes", False: "NO", None: "-"}[item.met],
        )
    (console or _console()).print(table)


def _console() -> Console:
    console = Console()
    # What is piped into a file has no width of its own; a narrow default would fold every name.
    return console if console.is_terminal else Console(width=120)


def goal_text(item: Figure) -> str:
    """The goal in a few characters."""
    if item.goal is None:
        return "-"
    sign = "≤" if item.goal.kind == "at most" else "≥"
    bound = number(item.goal.bound)
    what = {"ratio": "", "ours": f" {item.unit}", "difference": f" {item.unit} more"}
    return f"{sign} {bound}{what[item.goal.on]}"


def number(value: float) -> str:
    """Three significant digits, thousands grouped, no exponent."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 0.1 or size == 0:
        return f"{value:.2f}"
    return f"{value:.3g}"
