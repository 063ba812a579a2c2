"""What the operator offers to agents, when it is not there: told, and the turn goes on."""

from pathlib import Path
from typing import Any

import pytest

from stationmaster.agents.scripted import Say
from tests.http.conftest import ADMIN, Open
from tests.http.managed import MODEL, said, talk, text
from tests.support.sdk import sdk

SERVER: Any = {"type": "url", "name": "docs", "url": "catalogue://docs"}
TOOLS: Any = {"type": "mcp_toolset", "mcp_server_name": "docs"}
SKILL: Any = {"type": "custom", "skill_id": "pdf"}


@pytest.fixture
def offers(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "skills" / "pdf").mkdir(parents=True)
    (tmp_path / "skills" / "pdf" / "SKILL.md").write_text("Read PDFs.")
    servers = tmp_path / "mcp.json"
    servers.write_text('{"mcpServers": {"docs": {"command": "/nonexistent/docs"}}}')
    return {"SKILLS_DIR": str(tmp_path / "skills"), "MCP_SERVERS_FILE": str(servers)}


async def test_a_tool_server_that_does_not_start_is_an_error_of_the_session(
    open_house: Open, offers: dict[str, str]
) -> None:
    async with open_house(**offers) as house, sdk(house.url, ADMIN) as client:
        house.agent.script = (Say("Without it, then."),)
        session = await talk(client, TOOLS, mcp_servers=[SERVER])
        events = await session.say(text("Look it up."))
        [error] = [event.error for event in events if event.type == "session.error"]
        assert (error.type, error.mcp_server_name) == ("mcp_connection_failed_error", "docs")
        assert said(events) == "Without it, then."
        assert events[-1].stop_reason.type == "end_turn"
        assert said(await session.say(text("And again."))) == "Without it, then."


async def test_a_skill_that_is_offered_no_more_makes_no_new_session(
    open_house: Open, offers: dict[str, str]
) -> None:
    async with open_house(**offers) as house, sdk(house.url, ADMIN) as client:
        agent = await client.beta.agents.create(name="a", model=MODEL, skills=[SKILL])
        place = await client.beta.environments.create(name="e")
        services = house.services
        services.sessions._catalogue.skills.clear()
        body = {"agent": agent.id, "environment_id": place.id}
        beta = {"anthropic-beta": "managed-agents-2026-04-01"}
        answer = await house.client.post("/v1/sessions", json=body, headers=beta)
        assert answer.status_code == 403, answer.text
        assert answer.json()["error"]["details"]["error_code"] == "skill_not_offered"
        assert not (await client.beta.sessions.list()).data
