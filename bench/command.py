"""What every benchmark's command has in common: its options, its output, its exit status."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.figure import Figure, print_table
from bench.programs import MissingProgramError
from bench.progress import Progress

EX_UNAVAILABLE = 69  # as sysexits.h names it: a program that is needed is not there


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure."""

    quick: bool
    rounds: int
    progress: Progress
    rows: int | None = None  # as asked for by --rows, where a benchmark has that


Measure = Callable[[Plan], list[Figure]]


def run(
    name: str,
    description: str,
    measure: Measure,
    argv: Sequence[str] | None = None,
    *,
    rows: str | None = None,
) -> int:
    """Parse the options, measure, print; return the exit status.

    `rows` says what --rows counts; without it there is no such option.
    """
    options = _parse(name, description, argv, rows)
    progress = Progress(name)
    rounds = options.rounds or (3 if options.quick else 5)
    try:
        figures = measure(Plan(options.quick, rounds, progress, options.rows))
    except MissingProgramError as error:
        progress.clear()
        print(f"bench.{name}: {error}", file=sys.stderr)
        return EX_UNAVAILABLE
    progress.clear()
    if options.json:
        print(json.dumps(report(name, figures), indent=2))
    else:
        print_table(f"bench.{name}: medians of {rounds} interleaved rounds", figures)
    return 0


def _parse(
    name: str, description: str, argv: Sequence[str] | None, rows: str | None
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m bench.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a short run; the ratios are rougher")
    parser.add_argument("--rounds", type=_positive, help="interleaved rounds (5, quick 3)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(rows=None)
    if rows is not None:
        parser.add_argument("--rows", type=_positive, help=rows)
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def report(name: str, figures: Sequence[Figure]) -> dict[str, Any]:
    """The figures, and what one must know to compare them with another day's."""
    return {
        "benchmark": name,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "figures": [figure.to_json() for figure in figures],
    }
