"""Tasks with sub-agents, skills and tool servers of the operator's: given, told, refused."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from stationmaster.agents.scripted import Delegate, Say, UseTool
from tests.http.conftest import House, Open
from tests.http.test_stream_socket import talking

READER = {
    "name": "reviewer",
    "model": "haiku",
    "system": "Look closely.",
    "tools": [{"type": "agent_toolset_20260401"}],
}
KIT: dict[str, Any] = {
    "allow_agents": ["reviewer"],
    "allow_skills": ["pdf"],
    "mcp_servers": ["docs"],
    "allow_tools": ["Read"],
}


@pytest.fixture
async def offering(open_house: Open, tmp_path: Path) -> AsyncIterator[House]:
    """A server with an agent, a skill, and a tool server that cannot be run."""
    (tmp_path / "skills" / "pdf").mkdir(parents=True)
    (tmp_path / "skills" / "pdf" / "SKILL.md").write_text("Read PDFs.")
    servers = tmp_path / "mcp.json"
    servers.write_text('{"mcpServers": {"docs": {"command": "/nonexistent/docs"}}}')
    env = {"SKILLS_DIR": str(tmp_path / "skills"), "MCP_SERVERS_FILE": str(servers)}
    async with open_house(**env) as house:
        made = await house.client.post("/v1/agents", json=READER)
        assert made.status_code == 200, made.text
        house.agent.script = (
            Delegate("reviewer", (Say("Fine."),), prompt="Review it."),
            UseTool("Skill", {"skill": "skills:pdf"}),
            Say("Done."),
        )
        yield house


async def test_a_task_has_them_and_its_log_tells(offering: House) -> None:
    task = await offering.perform(**KIT)
    assert task["status"] == "completed"
    [spec] = offering.agent.launched
    [reviewer] = spec.sub_agents
    assert (reviewer.name, reviewer.prompt, reviewer.tools) == (
        *("reviewer", "Look closely."),
        ("Read",),
    )
    assert [skill.name for skill in spec.skills] == ["pdf"]
    assert [server.command for server in spec.mcp_servers] == ["/nonexistent/docs"]
    log = {entry["action"]: entry["details"] for entry in task["execution_log"]}
    assert log["agent_spawn"]["agent"] == "reviewer"
    assert log["agent_spawn"]["input"]["prompt"] == "Review it."
    assert log["skill_invoke"]["skill"] == "skills:pdf"
    assert log["error"]["error"]["mcp_server_name"] == "docs"
    assert log["error"]["error"]["code"] == "mcp_connection_failed"


async def test_a_socket_tells_them_as_the_guide_says(offering: House) -> None:
    async with talking(offering) as talk:
        frames = await talk.answer(type="agentic_task", description="Do it.", **KIT)
    told = {frame["type"]: frame for frame in frames}
    assert told["agent_spawn"]["agent"] == "reviewer"
    assert "reason" in told["agent_spawn"]
    assert told["skill_invoke"]["skill"] == "skills:pdf"
    assert told["skill_invoke"]["input"] == {"skill": "skills:pdf"}
    assert told["result"]["status"] == "completed"
    assert "tool_call" not in told


async def test_a_key_has_no_more_than_its_profile_and_scopes_say(offering: House) -> None:
    async def refused(field: str, **key: Any) -> Any:
        made = await offering.client.post("/api/admin/keys", json={"name": "made", **key})
        headers = offering.as_key(made.json()["key"])
        body = {"description": "x", field: KIT[field]}
        answer = await offering.client.post("/v1/task", json=body, headers=headers)
        assert answer.status_code == 403, answer.text
        return answer.json()

    for field, code in (
        ("allow_agents", "agent_not_allowed"),
        ("allow_skills", "skill_not_allowed"),
        ("mcp_servers", "mcp_server_not_allowed"),
    ):
        found = await refused(field, profile="free")
        assert (found["code"], found["param"]) == (code, field)
        assert (await refused(field, permissions=["*:tasks"]))["code"] == "permission_denied"
    assert offering.agent.launched == []


async def test_capabilities_show_what_the_profile_leaves(offering: House) -> None:
    made = await offering.client.post("/api/admin/keys", json={"name": "made", "profile": "free"})
    headers = offering.as_key(made.json()["key"])
    less = (await offering.client.get("/v1/capabilities", headers=headers)).json()
    assert (less["agents"], less["skills"], less["mcp_servers"]) == ([], [], [])
    whole = (await offering.client.get("/v1/capabilities")).json()
    assert [len(whole[name]) for name in ("agents", "skills", "mcp_servers")] == [1, 1, 1]
