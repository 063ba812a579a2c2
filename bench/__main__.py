"""Run every benchmark, each in a process of its own, and print one table.

    python -m bench --quick
    python -m bench gateway events

One that fails, or for which a program is missing, is named at the end; the exit status tells.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

from bench.figure import Figure, print_table

BENCHMARKS = (
    "startup",
    "memory",
    "gateway",
    "events",
    "tasks",
    "warm",
    "budgets",
    "ledger",
    "keys",
    "jobs",
    "fanout",
    "replicas",
    "claims",
    "recovery",
)


def main() -> int:
    """Run what is asked for; the exit status, 1 where one was not measured."""
    options = _parse()
    reports: list[dict[str, Any]] = []
    statuses: dict[str, int] = {}
    for name in options.names or BENCHMARKS:
        command = [sys.executable, "-m", f"bench.{name}", "--json"]
        command += ["--quick"] if options.quick else []
        command += [f"--rounds={options.rounds}"] if options.rounds else []
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        statuses[name] = done.returncode
        if done.returncode == 0:
            reports.append(json.loads(done.stdout))
    if options.json:
        print(json.dumps(reports, indent=2))
    else:
        print_table("Medians of interleaved rounds in one run", _figures(reports))
    for name, status in statuses.items():
        if status:
            print(f"bench.{name} was not measured (exit status {status})", file=sys.stderr)
    return int(any(statuses.values()))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="short runs; the ratios are rougher")
    parser.add_argument("--rounds", type=int, help="interleaved rounds of each")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {min(unknown)!r}")
    return options


def _figures(reports: list[dict[str, Any]]) -> list[Figure]:
    return [
        replace(figure, name=f"{report['benchmark']}: {figure.name}")
        for report in reports
        for figure in map(Figure.from_json, report["figures"])
    ]


if __name__ == "__main__":
    sys.exit(main())
