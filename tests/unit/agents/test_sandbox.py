import os
from dataclasses import replace
from pathlib import Path

import pytest

from stationmaster.agents.base import AgentUnavailable, Limits
from stationmaster.agents.claude_code import ClaudeCodeAgent, sandbox
from stationmaster.agents.claude_code.probe import Policy, Probe
from stationmaster.agents.claude_code.sandbox import Cell, Tools

_TOOLS = Tools("/usr/bin/bwrap", "/usr/bin/socat", "/usr/bin/setpriv", "/usr/bin/prlimit")
_NONE = Tools(None, None, "/usr/bin/setpriv", "/usr/bin/prlimit")


def _cell(tmp_path: Path, uid: int | None = 64000) -> Cell:
    return Cell(
        workspace=tmp_path / "s" / "workspace",
        directory=tmp_path / "s" / "workspace",
        home=tmp_path / "s" / "home",
        socket=tmp_path / "gateway.sock",
        cli=tmp_path / "claude",
        etc=tmp_path / "etc",
        uid=uid,
        limits=Limits(processes=10),
        readonly=(tmp_path / "tools",),
        tmp_bytes=1000,
    )


def _pairs(words: list[str], flag: str) -> list[tuple[str, str]]:
    return [(words[n + 1], words[n + 2]) for n, word in enumerate(words) if word == flag]


@pytest.mark.parametrize("privileged", [True, False])
def test_only_the_workspace_the_home_and_the_socket_can_be_written(
    tmp_path: Path, privileged: bool
) -> None:
    cell = _cell(tmp_path, 64000 if privileged else None)
    words = sandbox.bubblewrap(_TOOLS, cell, privileged=privileged)
    assert _pairs(words, "--bind") == [
        (str(cell.socket), "/run/gateway.sock"),
        (str(cell.workspace), str(cell.workspace)),
        (str(cell.workspace), "/workspace"),
        (str(cell.home), str(cell.home)),
    ]
    assert {"--die-with-parent", "--new-session"} <= set(words)
    assert words.index("--remount-ro") < words.index("--")
    assert not any(word.startswith("--share") for word in words)


def test_nothing_in_a_frozen_workspace_can_be_written(tmp_path: Path) -> None:
    cell = replace(_cell(tmp_path), frozen=True)
    words = sandbox.bubblewrap(_TOOLS, cell, privileged=True)
    workspace = str(cell.workspace)
    assert workspace not in [source for source, _ in _pairs(words, "--bind")]
    shown = [target for source, target in _pairs(words, "--ro-bind") if source == workspace]
    assert shown == [workspace, "/workspace"]


def test_a_root_server_drops_to_the_slots_own_user(tmp_path: Path) -> None:
    words = sandbox.bubblewrap(_TOOLS, _cell(tmp_path), privileged=True)
    inner = words[words.index("--") :]
    assert inner[inner.index("--reuid") + 1] == "64000"
    assert "--unshare-user" not in words
    assert "--cap-drop" in words
    assert f"--nproc={10 + 64}:{10 + 64}" in inner


def test_another_server_uses_a_user_namespace(tmp_path: Path) -> None:
    words = sandbox.bubblewrap(_TOOLS, _cell(tmp_path, None), privileged=False)
    assert {"--unshare-all", "--unshare-user", "--disable-userns"} <= set(words)
    assert "--reuid" not in words


@pytest.mark.parametrize("drop", [True, False])
def test_every_command_dies_with_the_server(tmp_path: Path, drop: bool) -> None:
    words = sandbox.armed(_TOOLS, _cell(tmp_path), 4711, drop=drop)
    assert words[words.index("--pdeathsig") + 1] == "KILL"
    assert "4711" in words
    assert ("--reuid" in words) == drop
    assert "--core=0:0" in words


def test_without_util_linux_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(AgentUnavailable, match="util-linux"):
        sandbox.armed(Tools(None, None, None, None), _cell(tmp_path), 1, drop=False)


def test_what_would_show_the_servers_data_is_no_toolchain(tmp_path: Path) -> None:
    data = tmp_path / "srv" / "data"
    (data / "sub").mkdir(parents=True)
    (tmp_path / "tools").mkdir()
    (tmp_path / "link").symlink_to(data)
    assert sandbox.check_readonly((tmp_path / "tools",), data) == (tmp_path / "tools",)
    for path in (data, data / "sub", tmp_path, Path("/"), tmp_path / "link", Path("tools")):
        with pytest.raises(AgentUnavailable):
            sandbox.check_readonly((path,), data)


async def _probed(state_dir: Path, policy: Policy = "auto") -> Probe:
    agent = ClaudeCodeAgent(state_dir=state_dir, sandbox=policy)
    try:
        return await agent.probe()
    finally:
        await agent.aclose()


async def test_the_best_rung_that_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "find_tools", lambda: _NONE)
    found = await _probed(tmp_path)
    assert found.rung != "bubblewrap"
    assert found.reason == "bwrap, socat not found."
    if os.getuid() != 0:
        assert found.rung == "limits"


async def test_require_means_bubblewrap_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "find_tools", lambda: _NONE)
    with pytest.raises(AgentUnavailable, match="SANDBOX=require") as caught:
        await _probed(tmp_path, "require")
    assert caught.value.error_code == "sandbox_unavailable"


async def test_a_bubblewrap_that_does_not_run_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'No permissions to create a new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    tools = Tools(str(broken), "/usr/bin/socat", "/usr/bin/setpriv", "/usr/bin/prlimit")
    monkeypatch.setattr(sandbox, "find_tools", lambda: tools)
    found = await _probed(tmp_path)
    assert found.rung != "bubblewrap"
    assert "No permissions to create a new namespace" in found.reason


async def test_off_is_off(tmp_path: Path) -> None:
    found = await _probed(tmp_path, "off")
    assert (found.rung, found.reason) == ("limits", "SANDBOX is off.")
