"""A gateway of real parts, but for the store: its meter is in memory."""

import pytest

from stationmaster.kernel.principal import Owner, Principal
from tests.support.memory_meter import MemoryMeter, Notebook


@pytest.fixture
def meter() -> MemoryMeter:
    return MemoryMeter()


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


@pytest.fixture
def key() -> Principal:
    owner = Owner("org_1", "proj_1")
    return Principal("key", "key_1", owner, "key_1", frozenset({"write:messages"}))


@pytest.fixture
def run() -> Principal:
    owner = Owner("org_1", "proj_1")
    scopes = frozenset({"write:messages"})
    return Principal("run", "tok_1", owner, "key_1", scopes, "run_1", "ses_1")
