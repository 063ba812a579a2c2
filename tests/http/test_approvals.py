"""Approvals and capabilities."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from stationmaster.agents.scripted import Say, UseTool
from tests.http.conftest import ADMIN, House, Open
from tests.http.managed import ASK, MODEL, TOOLSET, WEATHER, Talk, said, talk, text
from tests.http.test_refusals import check_problem
from tests.support.sdk import sdk

NONE = "appr_01jd3k00000000000000000000"


@pytest.fixture
async def client(house: House) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk(house.url, ADMIN) as made:
        yield made


async def waiting(house: House, client: anthropic.AsyncAnthropic) -> tuple[Talk, Any]:
    """A session whose agent asks, and the approval."""
    house.agent.script = (UseTool("Bash", {"command": "ls"}), Say("Done."))
    session = await talk(client, ASK)
    await session.say(text("Go."))
    found = (await house.client.get("/v1/approvals")).json()["approvals"]
    return session, found[0]


async def decide(house: House, approval: str, **body: Any) -> Any:
    return await house.client.post(f"/v1/approvals/{approval}", json=body)


@pytest.mark.parametrize("decision", ["allow", "deny"])
async def test_a_call_is_decided_once(
    house: House, client: anthropic.AsyncAnthropic, decision: str
) -> None:
    session, approval = await waiting(house, client)
    assert (approval["tool"], approval["state"]) == ("bash", "pending")
    assert approval["input"] == {"command": "ls"}
    shown = (await house.client.get(f"/v1/approvals/{approval['id']}")).json()
    assert shown == approval
    async with session.stream() as stream:
        answer = await decide(house, approval["id"], decision=decision)
        assert answer.status_code == 200, answer.text
        assert answer.json()["state"] == {"allow": "allowed", "deny": "denied"}[decision]
        assert answer.json()["decided_by"]
        await session.until_idle(stream)
    again = await decide(house, approval["id"], decision="allow")
    check_problem(again, 409, "already_answered")
    left = (await house.client.get("/v1/approvals", params={"state": "pending"})).json()
    assert left["approvals"] == []
    mine = await house.client.get("/v1/approvals", params={"session_id": session.id})
    assert len(mine.json()["approvals"]) == 1


async def test_a_changed_input_is_what_runs(house: House, client: anthropic.AsyncAnthropic) -> None:
    session, approval = await waiting(house, client)
    async with session.stream() as stream:
        answer = await decide(
            house, approval["id"], decision="allow", input={"command": "pwd"}, always=True
        )
        assert answer.json()["answer"] == {"input": {"command": "pwd"}, "always": True}
        await session.until_idle(stream)
    again = await session.say(text("Again."))  # always: nobody is asked any more
    assert said(again) == "Done."


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 422, "decision"),
        ({"decision": "perhaps"}, 422, "decision"),
        ({"decision": "allow", "message": "x"}, 400, "deny_message"),
        ({"decision": "deny", "input": {}}, 400, "result"),
        ({"decision": "deny", "always": True}, 400, "result"),
        ({"decision": "deny", "message": "x" * 20_000}, 413, "deny_message"),
        ({"decision": "allow", "nonsense": 1}, 422, "nonsense"),
    ],
)
async def test_a_wrong_decision_decides_nothing(
    house: House, client: anthropic.AsyncAnthropic, body: Any, status: int, param: str
) -> None:
    _, approval = await waiting(house, client)
    answer = await decide(house, approval["id"], **body)
    assert answer.status_code == status, answer.text
    assert answer.json()["param"] == param
    shown = await house.client.get(f"/v1/approvals/{approval['id']}")
    assert shown.json()["state"] == "pending"


async def test_an_approval_that_is_not_there(
    house: House, client: anthropic.AsyncAnthropic, stranger: dict[str, str]
) -> None:
    _, approval = await waiting(house, client)
    for path, headers in (
        (f"/v1/approvals/{NONE}", {}),
        ("/v1/approvals/nonsense", {}),
        (f"/v1/approvals/{approval['id']}", stranger),
    ):
        answer = await house.client.get(path, headers=headers)
        check_problem(answer, 404, "not_found")
        answer = await house.client.post(path, json={"decision": "allow"}, headers=headers)
        check_problem(answer, 404, "not_found")
    assert (await house.client.get("/v1/approvals", headers=stranger)).json()["approvals"] == []


async def test_capabilities_by_the_callers_rights(open_house: Open, tmp_path: Path) -> None:
    skills = tmp_path / "skills"
    (skills / "pdf").mkdir(parents=True)
    (skills / "pdf" / "SKILL.md").write_text("---\nname: pdf\ndescription: Reads PDFs.\n---\nX")
    (skills / "not-a-skill").mkdir()
    servers = tmp_path / "mcp.json"
    servers.write_text('{"mcpServers": {"docs": {"command": "docs-server", "env": {"KEY": "x"}}}}')
    async with open_house(SKILLS_DIR=str(skills), MCP_SERVERS_FILE=str(servers)) as house:
        async with sdk(house.url, ADMIN) as client:
            await client.beta.agents.create(name="a", model=MODEL, tools=[TOOLSET, WEATHER])
        found = (await house.client.get("/v1/capabilities")).json()
        assert found["skills"] == [{"name": "pdf", "description": "Reads PDFs.", "command": "/pdf"}]
        assert found["mcp_servers"] == [{"name": "docs", "url": "catalogue://docs"}]
        assert "Bash" in found["tools"]
        [agent] = found["agents"]
        assert (agent["name"], agent["model"]) == ("a", MODEL)
        assert {"bash", "weather"} <= set(agent["tools"])
        assert found["counts"]["skills"] == 1
        assert (found["agents_count"], found["skills_count"]) == (1, 1)
        made = await house.client.post(
            "/api/admin/keys", json={"name": "poor", "permissions": ["read:usage"]}
        )
        poor = house.as_key(made.json()["key"])
        less = (await house.client.get("/v1/capabilities", headers=poor)).json()
        assert (less["agents"], less["skills"], less["mcp_servers"]) == ([], [], [])
