"""The core of a server on a fresh database."""

from pathlib import Path

import pytest

from stationmaster.agents.scripted import ScriptedAgent
from stationmaster.sessions.runs import executor, journal
from stationmaster.storage import Database
from tests.support.core import Core


@pytest.fixture
def agent() -> ScriptedAgent:
    return ScriptedAgent()


@pytest.fixture
def core(database: Database, tmp_path: Path, agent: ScriptedAgent) -> Core:
    return Core(database, tmp_path, agent=agent)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon."""
    monkeypatch.setattr(journal, "RETRY_S", 0.01)
    monkeypatch.setattr(executor, "END_RETRY_S", 0.01)
