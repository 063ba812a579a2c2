"""The core of a server on a fresh database, and a way to talk to its sessions."""

from pathlib import Path

import pytest

from stationmaster.agents.scripted import ScriptedAgent
from stationmaster.sessions.runs import executor, gate, journal
from stationmaster.storage import Database
from tests.support.core import Core
from tests.unit.sessions.talking import Talk


@pytest.fixture
def agent() -> ScriptedAgent:
    return ScriptedAgent()


@pytest.fixture
def core(database: Database, tmp_path: Path, agent: ScriptedAgent) -> Core:
    return Core(database, tmp_path, agent=agent)


@pytest.fixture
def talk(core: Core) -> Talk:
    return Talk(core)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon."""
    monkeypatch.setattr(journal, "RETRY_S", 0.01)
    monkeypatch.setattr(executor, "END_RETRY_S", 0.01)
    monkeypatch.setattr(gate, "POLL_S", 0.05)
    monkeypatch.setattr(executor, "CONTROL_POLL_S", 0.05)
