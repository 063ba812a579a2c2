"""What a benchmark's table says of a goal."""

import io

import pytest
from rich.console import Console

from bench.figure import Figure, Goal, print_table


def figure(ours: float, baseline: float, goal: Goal | None) -> Figure:
    return Figure("calls", ours, baseline, "nginx", "/s", goal)


@pytest.mark.parametrize(
    ("ours", "baseline", "goal", "met"),
    [
        (12.0, 100.0, Goal("at least", 0.12), True),
        (11.9, 100.0, Goal("at least", 0.12), False),
        (125.0, 100.0, Goal("at most", 1.25), True),
        (126.0, 100.0, Goal("at most", 1.25), False),
        (119.0, 9.0, Goal("at most", 120.0, on="ours"), True),
        (121.0, 9.0, Goal("at most", 120.0, on="ours"), False),
        (0.31, 0.02, Goal("at most", 0.3, on="difference"), True),
        (0.33, 0.02, Goal("at most", 0.3, on="difference"), False),
        (5.0, 1.0, None, None),
        (5.0, 0.0, Goal("at most", 15.0), None),
        (5.0, -0.1, Goal("at most", 15.0), None),
    ],
)
def test_a_goal_bounds_the_ratio_the_figure_or_the_difference(
    ours: float, baseline: float, goal: Goal | None, met: bool | None
) -> None:
    assert figure(ours, baseline, goal).met is met


def test_json_goes_back_and_forth() -> None:
    before = figure(12.0, 100.0, Goal("at least", 0.1))
    written = before.to_json()
    assert (written["ratio"], written["met"]) == (0.12, True)
    assert Figure.from_json(written) == before


def test_the_table_tells_each_goal_and_whether_it_is_met() -> None:
    out = io.StringIO()
    figures = [
        figure(12_345.0, 100_000.0, Goal("at least", 0.1)),
        figure(1.0, 100.0, Goal("at least", 0.1)),
        figure(1.0, 0.0, None),
    ]
    print_table("a run", figures, console=Console(file=out, width=120))
    lines = [line.split() for line in out.getvalue().splitlines() if "nginx" in line]
    assert lines == [
        ["calls", "12,345", "/s", "100,000", "nginx", "0.12", "≥", "0.10", "yes"],
        ["calls", "1.00", "/s", "100", "nginx", "0.01", "≥", "0.10", "NO"],
        ["calls", "1.00", "/s", "0.00", "nginx", "-", "-", "-"],
    ]
