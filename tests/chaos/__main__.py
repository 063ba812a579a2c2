"""Play a campaign of faults against a cluster of real processes, and check what it promised.

    python -m tests.chaos --faults 100 --seed 7

Exit status 1 where a promise was broken: the seed, the faults and the history are printed then.
"""

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest

from tests.chaos.campaign import Options, Outcome, campaign

EX_UNAVAILABLE = 69  # as sysexits.h names it: a program that is needed is not there
SHOWN = 40  # violations that are printed; all are in the file


def main() -> int:
    """Parse, play, print."""
    options = _parse()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    asked = Options(
        seed,
        options.faults,
        options.seconds,
        options.gap,
        options.agent == "real",
        options.broker,
        options.settle,
    )
    _say(f"seed {seed}: {asked.faults} faults, {asked.gap:g} s apart, agent {options.agent}")
    with tempfile.TemporaryDirectory(prefix="sm-", dir="/tmp") as directory:
        try:
            outcome = asyncio.run(campaign(asked, Path(directory), _say))
        except (pytest.skip.Exception, pytest.fail.Exception) as missing:
            _say(str(missing))
            return EX_UNAVAILABLE
        finally:
            if options.keep:
                _keep(Path(directory), options.keep)
    return tell(outcome, options.out)


def tell(outcome: Outcome, out: Path | None) -> int:
    """Print what came of it; the exit status."""
    _say(json.dumps(outcome.summary(), indent=1))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(outcome.summary(), indent=1) + "\n")
    if not outcome.violations:
        _say("every promise was kept")
        return 0
    _say("\n".join(outcome.timeline))
    with tempfile.NamedTemporaryFile(prefix="chaos-", suffix=".json", delete=False) as history:
        history.write(msgspec.json.encode(outcome))
    _say("\n".join(outcome.violations[:SHOWN]))
    count = len(outcome.violations)
    _say(f"{count} promises broken. The seed is {outcome.options.seed}, the history {history.name}")
    return 1


def _keep(directory: Path, to: Path) -> None:
    """Keep what the servers wrote."""
    to.mkdir(parents=True, exist_ok=True)
    for log in directory.glob("*/server.log"):
        (to / f"{log.parent.name}.log").write_bytes(log.read_bytes())


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 (a command of this repository)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--faults", type=int, default=50, help="how many (50)")
    parser.add_argument("--seconds", type=float, default=3600.0, help="no fault begins after these")
    parser.add_argument("--seed", type=int, help="of the plan of faults; a random one is printed")
    parser.add_argument("--gap", type=float, default=2.0, help="seconds between faults (2)")
    parser.add_argument(
        "--settle", type=float, default=180.0, help="seconds to recover in after the last (180)"
    )
    parser.add_argument("--agent", choices=("scripted", "real"), default="scripted")
    parser.add_argument("--broker", action="store_true", help="with RabbitMQ")
    parser.add_argument("--out", type=Path, help="a file for the summary, as JSON")
    parser.add_argument("--keep", type=Path, help="a directory for the servers' logs")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
