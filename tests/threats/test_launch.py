"""No text of a request's becomes a flag, a variable or a program of the agent's process."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stationmaster.agents import admission
from stationmaster.agents.base import CustomTool, LaunchSpec, SubAgent
from stationmaster.agents.claude_code import command
from stationmaster.agents.claude_code.outfit import Outfit
from stationmaster.kernel.errors import Invalid

SPEC = LaunchSpec(
    session_id="sesn_1",
    workspace=Path("/data/s/workspace"),
    home=Path("/data/s/home"),
    gateway_socket=Path("/data/gateway.sock"),
    gateway_url="http://127.0.0.1:8080/gateway",
    token="secret-run-token",
    model="claude-sonnet-4-5",
    agent_session_id="11111111-1111-4111-8111-111111111111",
)
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
UUID = "22222222-2222-4222-8222-222222222222"

nasty = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "--dangerously-skip-permissions",
            "--mcp-config=/tmp/evil.json",
            "-p",
            "--",
            "a\n--settings=/tmp/x",
            "a\0b",
            "$(id)",
            "`id`",
            "; id",
            "Bash(*)",
            "a,Bash",
            "mcp__x__y",
            "../../etc",
            "",
        ]
    ),
)
TEXTS = ("model", "system_prompt", "resume", "resume_at", "agent_session_id")


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    """What a request or a definition may say, each field as hostile as it gets."""
    made: dict[str, Any] = {}
    for name in draw(st.sets(st.sampled_from(TEXTS), max_size=2)):
        made[name] = draw(nasty)
    if draw(st.booleans()):
        made["tools"] = (draw(nasty),)
    if draw(st.booleans()):
        made["custom_tools"] = (CustomTool(draw(nasty), draw(nasty), {"type": "object"}),)
    if draw(st.booleans()):
        own = draw(st.one_of(st.none(), st.tuples(nasty)))
        model = draw(st.one_of(st.none(), nasty))
        made["sub_agents"] = (SubAgent(draw(nasty), draw(nasty), draw(nasty), own, model),)
    if draw(st.booleans()):
        made["output_schema"] = {"type": "object", draw(nasty): draw(nasty)}
    return made


def launched(spec: LaunchSpec) -> tuple[list[str], dict[str, str]]:
    """The words and the environment, as the launcher makes them."""
    admission.check(spec, known=command.KNOWN_TOOLS, default=command.DEFAULT_TOOLS)
    prompt = None if spec.system_prompt is None else Path("/data/s/home/system-prompt.md")
    words = command.arguments(spec, Outfit(prompt=prompt))
    return words, command.environment(spec, boxed=True, root=False)


def flags(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words}


ALL = replace(
    SPEC,
    system_prompt="x",
    tools=("Read",),
    max_turns=1,
    resume=UUID,
    resume_at=UUID,
    custom_tools=(CustomTool("look_up", "x", {"type": "object"}),),
    sub_agents=(SubAgent("helper", "x", "x"),),
    output_schema={"type": "object"},
)
OURS = (
    flags(launched(ALL)[0]) | flags(launched(SPEC)[0]) | flags(launched(replace(SPEC, tools=()))[0])
)


@UNHURRIED
@given(changes())
@example({"model": "--help"})
@example({"resume": "--continue"})
@example({"tools": ("Read,Bash(*)",)})
@example({"output_schema": {"type": "object", "a": "\0"}})
def test_whatever_a_request_says_the_words_are_ours(changed: dict[str, Any]) -> None:
    spec = replace(SPEC, **changed)
    try:
        words, environment = launched(spec)
    except Invalid:
        return
    assert flags(words) <= OURS
    for word in words:
        assert "\0" not in word
        assert word.startswith("--") or word in OURS, word
    assert environment == command.environment(SPEC, boxed=True, root=False)


@UNHURRIED
@given(st.dictionaries(nasty, nasty, max_size=3))
def test_whatever_an_environment_adds_ours_stays(added: dict[str, str]) -> None:
    """What is added comes from the operator; even so it is no other address and no other key."""
    ours = command.environment(SPEC, boxed=True, root=False)
    try:
        found = command.environment(replace(SPEC, add_env=added), boxed=True, root=False)
    except Invalid:
        return
    assert {name: found[name] for name in ours} == ours
    assert not any("\0" in name + value or "=" in name for name, value in found.items())
