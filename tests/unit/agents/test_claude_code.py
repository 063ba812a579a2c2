"""What becomes of an agent that misbehaves, played by a stand-in for the CLI."""

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from stationmaster.agents.base import (
    AgentEvent,
    AgentExited,
    AgentFailure,
    AgentLimitExceeded,
    AgentProtocolError,
    AgentUnavailable,
    Finished,
    LaunchSpec,
    Limits,
    Message,
)
from stationmaster.agents.claude_code import ClaudeCodeAgent
from stationmaster.agents.claude_code.processes import MARKER, read_process, read_table
from stationmaster.agents.claude_code.reaper import Mark, Reaper
from stationmaster.kernel.errors import Invalid

Launch = Callable[..., Any]


@pytest.fixture
def cli(tmp_path: Path) -> Path:
    path = tmp_path / "claude"
    program = Path(__file__).with_name("fake_cli.py").read_text()
    path.write_text(f"#!{sys.executable}\n{program}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
async def agent(tmp_path: Path, cli: Path) -> AsyncIterator[ClaudeCodeAgent]:
    agent = ClaudeCodeAgent(
        state_dir=tmp_path / "data",
        sandbox="off",
        cli_path=cli,
        launch_timeout=20,
        max_frame_bytes=100_000,
    )
    yield agent
    await agent.aclose()
    assert agent.alive() == 0


def _spec(tmp_path: Path, behaviour: str = "", **changes: Any) -> LaunchSpec:
    for name in ("workspace", "home"):
        (tmp_path / name).mkdir(exist_ok=True)
    values: dict[str, Any] = {
        "session_id": "s",
        "workspace": tmp_path / "workspace",
        "home": tmp_path / "home",
        "gateway_socket": tmp_path / "gateway.sock",
        "gateway_url": "http://127.0.0.1:1",
        "token": "token",
        "model": "m",
        "add_env": {"BEHAVIOUR": behaviour},
    }
    return LaunchSpec(**{**values, **changes})


async def _turn(agent: ClaudeCodeAgent, spec: LaunchSpec) -> list[AgentEvent]:
    live = await agent.launch(spec)
    return [event async for event in live.turn([{"type": "text", "text": "Go."}])]


async def test_unknown_messages_are_skipped(agent: ClaudeCodeAgent, tmp_path: Path) -> None:
    events = await _turn(agent, _spec(tmp_path))
    assert [type(event).__name__ for event in events] == ["Started", "Message", "Finished"]
    assert events[1] == Message(str(tmp_path / "workspace"))


async def test_the_process_gets_our_environment_alone(
    agent: ClaudeCodeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "canary")
    end = (await _turn(agent, _spec(tmp_path)))[-1]
    assert isinstance(end, Finished)
    said = json.loads(end.text)
    assert "canary" not in end.text
    assert said["env"]["ANTHROPIC_AUTH_TOKEN"] == "token"
    assert "token" not in said["argv"]
    assert set(said["env"]) - {"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"} == {
        *("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "BEHAVIOUR", "HOME", "IS_SANDBOX", "LANG"),
        *("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"),
        *("CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_TMPDIR", "CLAUDE_CONFIG_DIR", "DISABLE_TELEMETRY"),
        *("DISABLE_AUTOUPDATER", "DISABLE_BUG_COMMAND", "DISABLE_ERROR_REPORTING", "PATH", "SHELL"),
        *("CLAUDE_CODE_DISABLE_BUNDLED_SKILLS", "CLAUDE_AGENT_SDK_DISABLE_BUILTIN_AGENTS"),
        *("CLAUDE_CODE_MAX_SUBAGENT_SPAWN_DEPTH", "CLAUDE_AGENT_SDK_MCP_NO_PREFIX"),
        *("CLAUDE_CODE_MCP_AUTO_BACKGROUND_MS", "CLAUDE_CODE_MCP_ALLOWLIST_ENV"),
        *("MCP_TOOL_TIMEOUT",),
        *("STATIONMASTER_SLOT", "CLAUDE_CODE_MAX_RETRIES", "TERM", "TMPDIR"),
    } - (set() if os.getuid() == 0 else {"IS_SANDBOX"})


@pytest.mark.parametrize("behaviour", ["", "ignorant"])
@pytest.mark.parametrize("ahead", [True, False])
async def test_who_is_launched_ahead_measures_its_context(
    agent: ClaudeCodeAgent, tmp_path: Path, behaviour: str, ahead: bool
) -> None:
    end = (await _turn(agent, _spec(tmp_path, behaviour, ahead=ahead)))[-1]
    assert isinstance(end, Finished)
    assert json.loads(end.text)["asked"] == [
        "initialize",
        *(["get_context_usage"] if ahead else []),
    ]


async def test_who_dies_while_it_gets_ready_is_not_kept(
    agent: ClaudeCodeAgent, tmp_path: Path
) -> None:
    with pytest.raises(AgentFailure):
        await agent.launch(_spec(tmp_path, "dies-asked", ahead=True))


@pytest.mark.parametrize(
    ("behaviour", "kind", "code"),
    [
        ("exit", AgentUnavailable, "agent_start_failed"),
        ("garbage", AgentProtocolError, "agent_protocol_error"),
    ],
)
async def test_a_start_that_fails(
    agent: ClaudeCodeAgent, tmp_path: Path, behaviour: str, kind: type[AgentFailure], code: str
) -> None:
    with pytest.raises(kind) as caught:
        await agent.launch(_spec(tmp_path, behaviour))
    assert caught.value.error_code == code
    assert agent.alive() == 0


async def test_the_last_words_are_kept_and_bounded(agent: ClaudeCodeAgent, tmp_path: Path) -> None:
    with pytest.raises(AgentUnavailable) as caught:
        await agent.launch(_spec(tmp_path, "exit"))
    assert caught.value.stderr_tail.endswith("the last words")
    assert len(caught.value.stderr_tail) <= 4096


async def test_a_start_that_hangs(tmp_path: Path, cli: Path) -> None:
    agent = ClaudeCodeAgent(state_dir=tmp_path, sandbox="off", cli_path=cli, launch_timeout=0.5)
    with pytest.raises(AgentUnavailable) as caught:
        await agent.launch(_spec(tmp_path, "hang"))
    assert caught.value.error_code == "agent_start_timeout"
    assert agent.alive() == 0
    await agent.aclose()


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        ("exit-later", AgentExited),
        ("silent-end", AgentExited),
        ("garbage-later", AgentProtocolError),
        ("huge", AgentProtocolError),
        ("shapeless", AgentProtocolError),
    ],
)
async def test_a_turn_that_fails(
    agent: ClaudeCodeAgent, tmp_path: Path, behaviour: str, kind: type[AgentFailure]
) -> None:
    live = await agent.launch(_spec(tmp_path, behaviour))
    with pytest.raises(kind) as caught:
        [event async for event in live.turn([{"type": "text", "text": "Go."}])]
    if behaviour == "exit-later":
        assert caught.value.details["exit_code"] == 7
        assert caught.value.stderr_tail == "out of luck"
    await live.close()
    assert agent.alive() == 0
    with pytest.raises(kind):
        [event async for event in live.turn([{"type": "text", "text": "Again."}])]


async def test_no_cli(tmp_path: Path) -> None:
    agent = ClaudeCodeAgent(state_dir=tmp_path, sandbox="off", cli_path=tmp_path / "nowhere")
    with pytest.raises(AgentUnavailable) as caught:
        await agent.launch(_spec(tmp_path))
    assert caught.value.error_code == "agent_cli_missing"
    await agent.aclose()


@pytest.mark.parametrize("change", ["workspace", "home"])
async def test_directories_that_cannot_be(
    agent: ClaudeCodeAgent, tmp_path: Path, change: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (
        tmp_path / "none",
        Path("relative"),
        tmp_path / "link",
        Path("/usr/lib"),
        Path("/"),
    ):
        with pytest.raises(AgentUnavailable) as caught:
            await agent.launch(_spec(tmp_path, **dict[str, Any]({change: path})))
        assert caught.value.error_code == f"agent_{change}_missing"
    assert agent.alive() == 0


async def test_a_spec_that_cannot_be_run_gives_its_slot_back(
    agent: ClaudeCodeAgent, tmp_path: Path
) -> None:
    with pytest.raises(Invalid):
        await agent.launch(_spec(tmp_path, model="--flag"))
    events = await _turn(agent, _spec(tmp_path))
    assert isinstance(events[-1], Finished)


@pytest.mark.parametrize("behaviour", ["stubborn", "daemon"])
async def test_close_ends_whatever_resists(
    agent: ClaudeCodeAgent, tmp_path: Path, behaviour: str
) -> None:
    live = await agent.launch(_spec(tmp_path, behaviour))
    assert agent.alive() == 1
    async with asyncio.timeout(5):
        await live.close()
    assert agent.alive() == 0
    assert _marked_processes(tmp_path) == []


async def test_a_limit_fails_the_turn(agent: ClaudeCodeAgent, tmp_path: Path) -> None:
    live = await agent.launch(_spec(tmp_path, "daemon", limits=Limits(processes=2)))

    async def go_on() -> None:
        while True:
            [event async for event in live.turn([{"type": "text", "text": "Go."}])]

    with pytest.raises(AgentLimitExceeded) as caught:
        await go_on()
    assert caught.value.details["limit"] == "processes"
    await live.close()


async def test_a_system_prompt_goes_by_file(agent: ClaudeCodeAgent, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    spec = _spec(tmp_path, system_prompt="x" * 200_000)
    (spec.home / "system-prompt.md").symlink_to(victim)
    end = (await _turn(agent, spec))[-1]
    assert isinstance(end, Finished)
    path = spec.home / "system-prompt.md"
    assert f"--append-system-prompt-file={path}" in json.loads(end.text)["argv"]
    assert path.read_text() == spec.system_prompt
    assert victim.read_text() == "untouched"


async def test_after_aclose_nothing_starts(agent: ClaudeCodeAgent, tmp_path: Path) -> None:
    await agent.aclose()
    with pytest.raises(AgentUnavailable):
        await agent.launch(_spec(tmp_path))


async def test_aclose_waits_for_a_launch_under_way(agent: ClaudeCodeAgent, tmp_path: Path) -> None:
    launching = asyncio.create_task(agent.launch(_spec(tmp_path, "hang")))
    for _ in range(20):
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await agent.aclose()
    assert agent.alive() == 0
    with pytest.raises(AgentUnavailable):
        await launching


# --- the reaper -------------------------------------------------------------------------------


def _marked_processes(state: Path) -> list[int]:
    wanted = str(state).encode()
    found = []
    for process in read_table().values():
        try:
            command = Path(f"/proc/{process.pid}/environ").read_bytes()
        except OSError:
            continue
        if wanted in command and process.alive and process.pid != os.getpid():
            found.append(process.pid)
    return found


async def _stray(mark: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", "sleep 600 & sleep 600"),
        env={MARKER: mark, "PATH": "/usr/bin:/bin"},
        start_new_session=True,
    )


async def test_strays_of_a_server_that_is_gone_are_ended(tmp_path: Path) -> None:
    reaper = Reaper(tmp_path, set)
    here = Mark.parse(reaper.mark("slot"))
    assert here is not None
    this = read_process(os.getpid())
    assert this is not None
    # The server's process id is used again by a later process: the start time tells.
    stray = await _stray(str(Mark(here.place, os.getpid(), this.start - 1, "old")))
    other = await _stray(str(Mark("another-place", os.getpid(), this.start - 1, "old")))
    assert reaper.alive() == 1
    assert await reaper.reap() == 1
    assert await stray.wait() == -signal.SIGKILL
    assert reaper.alive() == 0
    assert other.returncode is None
    os.killpg(other.pid, signal.SIGKILL)
    await other.wait()


async def test_a_slot_that_is_in_use_is_spared_and_one_given_up_is_not(tmp_path: Path) -> None:
    mine = {"kept"}
    reaper = Reaper(tmp_path, lambda: mine)
    kept = await _stray(reaper.mark("kept"))
    assert await reaper.reap() == 0
    assert kept.returncode is None
    mine.clear()
    assert await reaper.reap() == 1
    assert await kept.wait() == -signal.SIGKILL


@pytest.mark.parametrize("value", ["", "a", "a.b.c.d", "a.1.2", "a.1.2.b.c", "a.-1.2.b"])
def test_what_is_no_marker_is_nobodys(value: str) -> None:
    assert Mark.parse(value) is None
