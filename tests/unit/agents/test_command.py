from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.agents import admission
from stationmaster.agents.base import LaunchSpec, Skill, SubAgent
from stationmaster.agents.claude_code import command
from stationmaster.agents.claude_code.outfit import Outfit
from stationmaster.kernel.errors import Invalid

_SPEC = LaunchSpec(
    session_id="sesn_1",
    workspace=Path("/data/s/workspace"),
    home=Path("/data/s/home"),
    gateway_socket=Path("/data/gateway.sock"),
    gateway_url="http://127.0.0.1:8080/gateway",
    token="secret-run-token",
    model="claude-sonnet-4-5",
    agent_session_id="11111111-1111-4111-8111-111111111111",
)


def _arguments(spec: LaunchSpec) -> list[str]:
    admission.check(spec, known=command.KNOWN_TOOLS, default=command.DEFAULT_TOOLS)
    return command.arguments(spec, Outfit())


def test_the_token_is_in_the_environment_and_not_in_the_arguments() -> None:
    spec = replace(_SPEC, system_prompt="be kind", max_turns=3)
    words = command.arguments(spec, Outfit(prompt=Path("/data/s/home/system-prompt.md")))
    assert not any(_SPEC.token in word or "be kind" in word for word in words)
    env = command.environment(spec, boxed=True, root=False)
    assert env["ANTHROPIC_AUTH_TOKEN"] == _SPEC.token


@given(st.text(max_size=60))
def test_whatever_is_resumed_is_one_word_behind_its_flag(value: str) -> None:
    try:
        words = _arguments(replace(_SPEC, resume=value))
    except Invalid:
        return
    assert f"--resume={value}" in words


@pytest.mark.parametrize(
    "value",
    ["--dangerously-skip-permissions", "", "../../etc", "abc", "A" * 36, "0" * 36, "a\0b"],
)
def test_a_session_id_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(Invalid):
        _arguments(replace(_SPEC, resume=value))


@given(st.text(max_size=60))
def test_no_model_becomes_a_flag(value: str) -> None:
    try:
        words = _arguments(replace(_SPEC, model=value))
    except Invalid:
        return
    assert f"--model={value}" in words
    assert value[0].isalnum()


@pytest.mark.parametrize("tool", ["Task", "Bash(*)", "Read,Bash", "--tools", "", "default"])
def test_a_tool_that_is_none_is_refused(tool: str) -> None:
    with pytest.raises(Invalid):
        _arguments(replace(_SPEC, tools=(tool,)))


def test_tools_restrict_and_nothing_is_approved_in_advance() -> None:
    words = _arguments(replace(_SPEC, tools=("Read", "Grep")))
    assert "--tools=Read,Grep" in words
    assert "--tools=" in _arguments(replace(_SPEC, tools=()))
    assert not any(word.startswith("--allowed") for word in words)
    assert {"--setting-sources=", "--strict-mcp-config"} <= set(words)


def test_the_environment_is_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "the-servers-key")
    env = command.environment(_SPEC, boxed=True, root=False)
    assert "ANTHROPIC_API_KEY" not in env
    assert env["HOME"] == "/data/s/home"
    assert env["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:4180/gateway"
    unboxed = command.environment(_SPEC, boxed=False, root=True)
    assert unboxed["ANTHROPIC_BASE_URL"] == _SPEC.gateway_url
    assert unboxed["TMPDIR"] == "/data/s/home/tmp"
    assert unboxed["IS_SANDBOX"] == "1"


def test_what_is_added_replaces_nothing_of_ours() -> None:
    spec = replace(_SPEC, add_env={"ANTHROPIC_BASE_URL": "http://evil", "LOCAL": "yes"})
    env = command.environment(spec, boxed=False, root=False)
    assert env["ANTHROPIC_BASE_URL"] == _SPEC.gateway_url
    assert env["LOCAL"] == "yes"


@pytest.mark.parametrize("name", ["", "1A", "A=B", "A B", "A\0"])
def test_a_variable_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        command.environment(replace(_SPEC, add_env={name: "x"}), boxed=False, root=False)


def test_toolchains_come_first_on_the_path(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    assert command.search_path((tmp_path, Path("/nowhere"))).split(":")[:2] == [
        str(tmp_path / "bin"),
        "/usr/local/bin",
    ]


def test_with_a_login_of_its_own_it_finds_the_proxy_and_no_gateway() -> None:
    spec = replace(_SPEC, own_login=True, max_cost_usd=0.25)
    env = command.environment(spec, boxed=True, root=False)
    assert env["HTTPS_PROXY"] == "http://127.0.0.1:4180"
    assert not {"ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN"} & env.keys()
    assert _SPEC.token not in env.values()
    assert "--max-budget-usd=0.250000" in _arguments(spec)
    nothing = replace(spec, max_cost_usd=0.0)
    assert "--max-budget-usd=0.000001" in _arguments(nothing)
    assert not any("budget" in word for word in _arguments(_SPEC))


def test_a_history_is_named_once_and_copied_under_another_name() -> None:
    a, b, c = (f"{digit * 8}-1111-4111-8111-111111111111" for digit in "abc")
    new = _arguments(replace(_SPEC, agent_session_id=a))
    assert f"--session-id={a}" in new
    assert "--session-mirror" not in new
    same = _arguments(replace(_SPEC, resume=a, agent_session_id=a))
    assert f"--resume={a}" in same
    assert not any("fork" in word or "--session-id" in word for word in same)
    copy = _arguments(replace(_SPEC, resume=a, agent_session_id=b, resume_at=c))
    assert {f"--resume={a}", "--fork-session", f"--session-id={b}"} <= set(copy)
    assert f"--resume-session-at={c}" in copy


def test_giving_work_on_and_skills_need_their_tools() -> None:
    agent = SubAgent("helper", "Helps.", "You help.")
    skill = Skill("greeting", Path("/srv/greeting"))
    words = _arguments(replace(_SPEC, tools=("Read",), sub_agents=(agent,), skills=(skill,)))
    assert "--tools=Read,Task,Skill" in words
    assert "You help." not in " ".join(words)
