"""The command; see the package."""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.conformance.run import run
from tests.conformance.table import PAGE, failures, page


def main() -> int:
    """Run every check; print or write the page. Fails where a cell does."""
    with tempfile.TemporaryDirectory(prefix="sm-", dir="/tmp") as directory:
        cells = asyncio.run(run(Path(directory)))
    for failure in failures(cells):
        sys.stderr.write(f"{failure}\n")
    if failures(cells):
        return 1
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(cells), encoding="utf-8")
    else:
        sys.stdout.write(page(cells))
    return 0


sys.exit(main())
