"""Commands against a server that says what a test wants."""

from collections.abc import Iterator

import pytest

from stationmaster.cli.application import run
from tests.support.command import Command
from tests.support.scripted_http import ScriptedServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """The one that commands ask."""
    with ScriptedServer() as found:
        monkeypatch.setenv("STATIONMASTER_URL", found.url)
        monkeypatch.setenv("STATIONMASTER_API_KEY", "sm_live_test")
        monkeypatch.delenv("STATIONMASTER_KEY_FILE", raising=False)
        yield found


@pytest.fixture
def command(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line against the server."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call
