"""Starting an upstream of ours in a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.process import started

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def upstream(
    module: str, *arguments: str, log: Path, cores: frozenset[int] | None = None
) -> Iterator[str]:
    """`python -m module …`, which prints its port; its base URL for as long as the block runs."""
    command = [sys.executable, "-m", module, *arguments]
    with started(command, log=log, cores=cores, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"{module} does not start:\n" + log.read_text()[-4000:])
        yield f"http://127.0.0.1:{int(line)}"
