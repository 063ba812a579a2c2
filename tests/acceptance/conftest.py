"""Fixtures of the tests that start real processes."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory with a short path: sockets must fit below it."""
    with tempfile.TemporaryDirectory(prefix="sm-", dir="/tmp") as directory:
        yield Path(directory)
