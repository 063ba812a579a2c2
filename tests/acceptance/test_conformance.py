"""Every official client, each feature, each provider's format: as the page of conformance says."""

from pathlib import Path

import pytest

from tests.conformance.run import run
from tests.conformance.table import PAGE, failures, page

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(900)]


async def test_the_page_says_what_the_clients_do(scratch: Path) -> None:
    cells = await run(scratch)
    assert not failures(cells), "\n".join(failures(cells))
    assert PAGE.read_text(encoding="utf-8") == page(cells), (
        "Run: .venv/bin/python -m tests.conformance --write"
    )
