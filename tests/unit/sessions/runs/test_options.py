"""What may be asked of a run."""

from typing import Any

import pytest

from stationmaster.agents.scripted import ScriptedAgent
from stationmaster.kernel.errors import Denied, Invalid, StationmasterError, TooLarge
from stationmaster.sessions.runs.options import MAX_PROMPT_BYTES, RunOptions, RunPlan, plan
from tests.support.core import LIMITS

AGENT = ScriptedAgent()


def _plan(**options: Any) -> RunPlan:
    return plan(RunOptions(**({"prompt": "Do it."} | options)), LIMITS, AGENT)


def test_defaults_are_the_servers() -> None:
    made = _plan()
    assert made == RunPlan(
        prompt="Do it.",
        system_prompt=None,
        model=LIMITS.default_model,
        tools=AGENT.default_tools,
        max_turns=None,
        max_cost=LIMITS.default_cost,
        timeout=LIMITS.default_timeout,
        permission_mode="bypassPermissions",
        working_directory=None,
        metadata={},
    )
    assert RunPlan.from_json(made.to_json()) == made


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        ({"tools": ()}, "tools", ()),
        ({"tools": ("Read", "Bash", "Read")}, "tools", ("Read", "Bash")),
        ({"max_cost": 0}, "max_cost", 0),
        ({"max_cost": LIMITS.max_cost}, "max_cost", LIMITS.max_cost),
        ({"timeout": 1}, "timeout", 1),
        ({"timeout": LIMITS.max_timeout}, "timeout", LIMITS.max_timeout),
        ({"max_turns": 1}, "max_turns", 1),
        ({"model": "claude-opus-4-1"}, "model", "claude-opus-4-1"),
        ({"model": "anthropic/claude@2026:x[1m]"}, "model", "anthropic/claude@2026:x[1m]"),
        ({"permission_mode": "plan"}, "permission_mode", "plan"),
        ({"prompt": "x" * MAX_PROMPT_BYTES}, "prompt", "x" * MAX_PROMPT_BYTES),
        ({"prompt": "-p --model \U0001f682"}, "prompt", "-p --model \U0001f682"),
        ({"metadata": {"k": ""}}, "metadata", {"k": ""}),
    ],
)
def test_what_is_kept_as_asked(options: dict[str, Any], field: str, value: object) -> None:
    assert getattr(_plan(**options), field) == value


@pytest.mark.parametrize(
    ("options", "kind", "param"),
    [
        ({"prompt": ""}, Invalid, "description"),
        ({"prompt": " \n\t"}, Invalid, "description"),
        ({"prompt": "a\0b"}, Invalid, "description"),
        ({"prompt": "a\ud800"}, Invalid, "description"),
        ({"prompt": "x" * (MAX_PROMPT_BYTES + 1)}, TooLarge, "description"),
        ({"prompt": "é" * (MAX_PROMPT_BYTES // 2 + 1)}, TooLarge, "description"),
        ({"system_prompt": "a\0b"}, Invalid, "system_prompt"),
        ({"system_prompt": "x" * 100_001}, TooLarge, "system_prompt"),
        ({"model": ""}, Invalid, "model"),
        ({"model": "--dangerously-skip-permissions"}, Invalid, "model"),
        ({"model": "a b"}, Invalid, "model"),
        ({"model": "a\n"}, Invalid, "model"),
        ({"model": "a\0"}, Invalid, "model"),
        ({"model": "a" * 129}, Invalid, "model"),
        ({"tools": ("Nope",)}, Denied, "allow_tools"),
        ({"tools": ("Bash(rm *)",)}, Denied, "allow_tools"),
        ({"tools": ("bash",)}, Denied, "allow_tools"),
        ({"tools": ("Read", "")}, Denied, "allow_tools"),
        ({"max_turns": 0}, Invalid, "max_turns"),
        ({"max_turns": -1}, Invalid, "max_turns"),
        ({"max_turns": 1001}, Invalid, "max_turns"),
        ({"max_cost": -1}, Invalid, "max_cost"),
        ({"max_cost": LIMITS.max_cost + 1}, Invalid, "max_cost"),
        ({"timeout": 0}, Invalid, "timeout"),
        ({"timeout": 0.999}, Invalid, "timeout"),
        ({"timeout": -5}, Invalid, "timeout"),
        ({"timeout": float("nan")}, Invalid, "timeout"),
        ({"timeout": float("inf")}, Invalid, "timeout"),
        ({"timeout": LIMITS.max_timeout + 1}, Invalid, "timeout"),
        ({"permission_mode": "yolo"}, Invalid, "permission_mode"),
        ({"working_directory": "a\0"}, Invalid, "working_directory"),
        ({"working_directory": "x" * 4097}, TooLarge, "working_directory"),
        ({"metadata": {str(number): "" for number in range(17)}}, Invalid, "metadata"),
        ({"metadata": {"k": "\ud800"}}, Invalid, "metadata"),
        ({"metadata": {"k\0": ""}}, Invalid, "metadata"),
        ({"metadata": {"k" * 65: ""}}, TooLarge, "metadata"),
        ({"metadata": {"k": "v" * 513}}, TooLarge, "metadata"),
    ],
)
def test_what_is_refused_by_name(
    options: dict[str, Any], kind: type[StationmasterError], param: str
) -> None:
    with pytest.raises(kind) as caught:
        _plan(**options)
    assert caught.value.param == param


def test_a_plan_of_before_the_owners_login_is_nobodys() -> None:
    kept = _plan().to_json()
    del kept["by_owner"]
    assert RunPlan.from_json(kept).by_owner is False
    assert plan(RunOptions(prompt="Do it."), LIMITS, AGENT, by_owner=True).by_owner is True
