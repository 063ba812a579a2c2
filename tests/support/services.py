"""Programs that some tests need: missing ones skip by name, and fail where CI is true."""

import os
import shutil
from typing import NoReturn

import pytest


def missing(name: str) -> NoReturn:
    """Skip the test for want of a service; in CI that is a failure, not a skip."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} is missing; scripts/install-test-services installs it", pytrace=False)
    pytest.skip(f"{name} is missing; scripts/install-test-services installs it")


def require(program: str) -> str:
    """The path of an installed program."""
    return shutil.which(program) or missing(program)
