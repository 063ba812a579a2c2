"""The demo is a promise: it ends well only where everything it shows is so."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

SHOWN = (
    "Stationmaster 0.1.0 is ready at http://127.0.0.1:",
    "offline script",
    "Claude Code 2.",
    "> Write  primes.py",
    "2 3 5 7 11 13 17 19 23 29 31 37",
    "[ok] the project's ledger has $",
    "[ok] it ended as cost_exceeded",
    "$ kill -9 ",
    "[ok] every process of the agent died with its server",
    "[ok] the task ended once, as interrupted",
    "[ok] no event is missing or twice",
    "[ok] the ledger is settled",
    "[ok] SIGTERM: it ended by itself, with exit code 0",
    "What to type next",
)


async def test_the_demo_shows_what_it_says(tmp_path: Path, scratch: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "stationmaster",
        "demo",
        cwd=tmp_path,
        # A key that is set must not be used: the demo is offline for everyone.
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "TMPDIR": str(scratch),
            "ANTHROPIC_API_KEY": "sk-ant-must-not-be-used-in-the-demo",
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    text = said.decode()
    assert process.returncode == 0, text
    place = 0
    for words in SHOWN:
        place = text.find(words, place)
        assert place >= 0, f"{words!r} is not shown, or out of order:\n{text}"
    assert "[failed]" not in text
    assert "\x1b" not in text
    assert [*tmp_path.iterdir(), *scratch.iterdir()] == []
