"""How long starting takes: the command line against a bare interpreter, the server to ready."""

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from bench.command import Plan, run
from bench.figure import Figure, Goal
from bench.rounds import interleaved, middle
from bench.server import server

HELP_SECONDS = 0.3  # beyond a bare interpreter
READY_SECONDS = 1.5


def measure(plan: Plan) -> list[Figure]:
    """`--help`, and ready with a new and with an existing data directory."""
    bare = [sys.executable, "-c", "pass"]
    helping = [sys.executable, "-m", "stationmaster", "--help"]
    with tempfile.TemporaryDirectory(prefix="bench-startup-") as name:
        directory = Path(name)
        _run(helping)  # compiles what is not compiled yet
        with server(directory / "kept"):
            pass
        found = interleaved(
            {
                "bare": partial(_run, bare),
                "help": partial(_run, helping),
                "first": partial(_first, directory),
                "again": partial(_ready, directory / "kept"),
            },
            plan.rounds,
            plan.progress,
            "starting",
        )
    interpreter = middle(found["bare"], float)
    return [
        Figure(
            "stationmaster --help",
            middle(found["help"], float),
            interpreter,
            "python -c pass",
            "s",
            Goal("at most", HELP_SECONDS, on="difference"),
        ),
        *(
            Figure(
                name,
                middle(found[key], float),
                interpreter,
                "python -c pass",
                "s",
                Goal("at most", READY_SECONDS, on="ours"),
            )
            for name, key in (
                ("server: start to ready", "again"),
                ("server: first start to ready", "first"),
            )
        ),
    ]


def _run(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _first(directory: Path) -> float:
    return _ready(Path(tempfile.mkdtemp(dir=directory)))


def _ready(directory: Path) -> float:
    with server(directory) as ours:
        return ours.start_seconds


if __name__ == "__main__":
    sys.exit(run("startup", __doc__ or "", measure))
