"""The provider that answers by the owner's login, where agents here have one."""

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from stationmaster.agents.base import Agent
from stationmaster.bootstrap import parts
from stationmaster.providers.base import Provider
from stationmaster.providers.upstream import Timeouts
from stationmaster.settings import Settings

LEFT_S = 3600.0  # no call takes as long

ByLogin = Callable[[str, Timeouts], Provider]
"""Makes the provider, under a name."""


def by_login(settings: Settings, agent: Agent) -> ByLogin | None:
    """What makes it; None where agents here have no login."""
    if not parts.owners_login(settings) or not getattr(agent, "has_login", False):
        return None
    directory = settings.data_dir / "calls"
    _sweep(directory)

    def made(name: str, timeouts: Timeouts) -> Provider:
        from stationmaster.agents.claude_code import ClaudeCodeAgent
        from stationmaster.agents.claude_code.provider import ClaudeCodeProvider

        assert isinstance(agent, ClaudeCodeAgent)
        return ClaudeCodeProvider(agent.asked, directory=directory, name=name, timeouts=timeouts)

    return made


def _sweep(directory: Path) -> None:
    """Delete what a server that was killed has left, a login among it."""
    now = time.time()
    for left in directory.glob("call-*"):
        with suppress(OSError):
            if now - left.stat().st_mtime > LEFT_S:
                shutil.rmtree(left)
