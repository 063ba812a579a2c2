"""Programs that some tests need: missing ones skip by name, and fail where CI is true."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

import pytest


def missing(name: str) -> NoReturn:
    """Skip the test for want of a service; in CI that is a failure, not a skip."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} is missing; scripts/install-test-services installs it", pytrace=False)
    pytest.skip(f"{name} is missing; scripts/install-test-services installs it")


def require(program: str) -> str:
    """The path of an installed program."""
    return shutil.which(program) or missing(program)


class Service(Protocol):
    """A server of the tests' own."""

    def start(self) -> None:
        """Start it, and return once it answers."""
        ...

    def stop(self) -> None:
        """Stop it, if it runs."""
        ...


S = TypeVar("S", bound=Service)


@contextmanager
def private(name: str, made: Callable[[Path], S]) -> Iterator[S]:
    """A service that is `made` for a directory of its own, for as long as the block runs."""
    home = Path(tempfile.mkdtemp(prefix=f"stationmaster-{name}-"))
    service = made(home)
    try:
        service.start()
        yield service
    finally:
        service.stop()
        shutil.rmtree(home, ignore_errors=True)
