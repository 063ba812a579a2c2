"""The socket for agents: its directory goes when its server does, and not before it listens."""

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stationmaster.bootstrap import serving


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory with a short path: a socket must fit below it."""
    with tempfile.TemporaryDirectory(prefix="sm-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.mark.parametrize(("age", "stays"), [(0.0, True), (serving.STARTING_S + 1, False)])
def test_one_that_is_not_listened_on_is_swept_when_its_server_has_had_time(
    scratch: Path, age: float, stays: bool
) -> None:
    directory = scratch / f"{serving.SOCKET_PREFIX}another"
    directory.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as another:
        another.bind(str(directory / serving.SOCKET_NAME))
        then = time.time() - age
        os.utime(directory, (then, then))
        serving._sweep(scratch)
        assert directory.exists() == stays


def test_one_that_is_listened_on_stays(scratch: Path) -> None:
    directory = scratch / f"{serving.SOCKET_PREFIX}another"
    directory.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as another:
        another.bind(str(directory / serving.SOCKET_NAME))
        another.listen()
        os.utime(directory, (0, 0))
        serving._sweep(scratch)
        assert directory.exists()
