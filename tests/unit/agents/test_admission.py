from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stationmaster.agents import admission
from stationmaster.agents.base import CustomTool, LaunchSpec, McpServer, Skill, SubAgent
from stationmaster.kernel.errors import Invalid

_SPEC = LaunchSpec(
    session_id="s",
    workspace=Path("/w"),
    home=Path("/h"),
    gateway_socket=Path("/g"),
    gateway_url="http://127.0.0.1:1",
    token="token",
    model="m",
)
_TOOL = CustomTool("look_up", "Looks up.", {"type": "object"})
_AGENT = SubAgent("helper", "Helps.", "You help.")
_SERVER = McpServer("files", "/usr/bin/true")
_UUID = "11111111-1111-4111-8111-111111111111"


def _check(**changes: Any) -> None:
    admission.check(
        replace(_SPEC, **changes),
        known=frozenset({"Bash", "Read", "WebFetch"}),
        default=("Bash", "Read"),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tools": ("WebFetch",)},
        {"custom_tools": (_TOOL, replace(_TOOL, name="Look-Up2"))},
        {"sub_agents": (_AGENT, replace(_AGENT, name="other", tools=("Read",), model="m2"))},
        {"sub_agents": (replace(_AGENT, tools=("look_up",)),), "custom_tools": (_TOOL,)},
        {"sub_agents": (replace(_AGENT, tools=("mcp__files__x",)),), "mcp_servers": (_SERVER,)},
        {"mcp_servers": (_SERVER, McpServer("web", url="https://tools.example/mcp"))},
        {"skills": (Skill("greeting", Path("/s")),)},
        {"resume": _UUID, "resume_at": _UUID, "agent_session_id": _UUID},
        {"output_schema": {"type": "object"}},
    ],
)
def test_what_can_be_launched(changes: dict[str, Any]) -> None:
    _check(**changes)


@pytest.mark.parametrize(
    ("param", "changes"),
    [
        ("model", {"model": "--flag"}),
        ("tools", {"tools": ("Bash(*)",)}),
        ("resume", {"resume": "x"}),
        ("agent_session_id", {"agent_session_id": "../x"}),
        ("resume_at", {"resume": _UUID, "resume_at": "--x"}),
        ("resume_at", {"resume_at": _UUID}),
        *(
            ("custom_tools", {"custom_tools": (replace(_TOOL, name=name),)})
            for name in ("", "a b", "Bash", "WebFetch", "Agent", "mcp__files__x", "x" * 129, "é")
        ),
        ("custom_tools", {"custom_tools": (_TOOL, _TOOL)}),
        ("custom_tools", {"custom_tools": (replace(_TOOL, input_schema={}),)}),
        (
            "custom_tools",
            {"custom_tools": tuple(replace(_TOOL, name=f"t{n}") for n in range(129))},
        ),
        *(
            ("sub_agents", {"sub_agents": (replace(_AGENT, **change),)})
            for change in (
                {"name": ""},
                {"name": "a b"},
                {"name": "-x"},
                {"tools": ("WebFetch",)},
                {"tools": ("mcp__files__x",)},
                {"model": "--x"},
            )
        ),
        ("sub_agents", {"sub_agents": (_AGENT, _AGENT)}),
        (
            "sub_agents",
            {"sub_agents": tuple(replace(_AGENT, name=f"a{n}") for n in range(33))},
        ),
        ("sub_agents", {"sub_agents": (replace(_AGENT, tools=("Read",)),), "tools": ("Bash",)}),
        *(
            ("mcp_servers", {"mcp_servers": servers})
            for servers in (
                (replace(_SERVER, name="a__b"),),
                (replace(_SERVER, name="custom"),),
                (replace(_SERVER, url="https://both.example"),),
                (replace(_SERVER, command=None),),
                (_SERVER, _SERVER),
            )
        ),
        ("skills", {"skills": (Skill("../x", Path("/s")),)}),
        ("skills", {"skills": (Skill("a", Path("/s")), Skill("a", Path("/t")))}),
        ("output_schema", {"output_schema": {"description": "x" * 100_001}}),
    ],
)
def test_what_cannot(param: str, changes: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        _check(**changes)
    assert caught.value.param == param
