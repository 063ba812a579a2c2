"""Agents and environments: what they take, what they refuse by name, and how they change."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stationmaster.agents.base import McpServer, Skill
from stationmaster.kernel.errors import Conflict, Denied, Invalid, NotFound, StationmasterError
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Owner
from stationmaster.sessions.agents import Agents
from stationmaster.sessions.catalogue import Catalogue
from stationmaster.sessions.session import SessionPatch, SessionRequest
from tests.support.core import ALICE, Core, principal
from tests.unit.sessions.talking import ASKING, TOOLS, agent_fields

STRANGER = principal("mallory", Owner("org_default", "proj_other"))
POWER = replace(ALICE, scopes=frozenset({"*"}))
DOCS = McpServer("docs", url="https://docs.example/mcp")
OFFERS = Catalogue(
    frozenset({"Bash", "Read"}),
    {"docs": DOCS, "local": McpServer("local", command="serve")},
    {"review": Skill("review", Path("/skills/review"))},
)
MCP = {"type": "url", "name": "docs", "url": "https://docs.example/mcp"}
MCP_TOOLS = {"type": "mcp_toolset", "mcp_server_name": "docs"}


@pytest.fixture
def agents(core: Core) -> Agents:
    return Agents(database=core.database, clock=core.clock, catalogue=OFFERS)


async def test_a_definition_with_every_default_filled_in(agents: Agents) -> None:
    made = await agents.create(ALICE, {"name": "A", "model": "claude-haiku-4-5", "tools": [TOOLS]})
    assert (made.version, made.definition.name) == (1, "A")
    assert made.definition.model == {"id": "claude-haiku-4-5", "speed": "standard"}
    allow = {"type": "always_allow"}
    assert made.definition.tools == [
        {
            "type": "agent_toolset_20260401",
            "configs": [],
            "default_config": {"enabled": True, "permission_policy": allow},
        }
    ]
    assert await agents.get(ALICE, made.id) == made


async def test_each_change_is_a_version_and_none_is_lost(agents: Agents, core: Core) -> None:
    first = await agents.create(ALICE, agent_fields(metadata={"a": "1", "b": "2"}))
    core.clock.advance(5)
    second = await agents.update(
        ALICE, first.id, {"system": "Be kind.", "metadata": {"b": None, "c": "3"}}, version=1
    )
    assert (second.version, second.definition.system) == (2, "Be kind.")
    assert second.definition.metadata == {"a": "1", "c": "3"}
    assert second.created_at == first.created_at < second.updated_at
    with pytest.raises(Conflict) as caught:
        await agents.update(ALICE, first.id, {"name": "late"}, version=1)
    assert caught.value.error_code == "version_conflict"
    same = await agents.update(ALICE, first.id, {"system": "Be kind."})
    assert same == second, "what changes nothing makes no version"
    assert await agents.get(ALICE, first.id, version=1) == first
    page = await agents.versions(ALICE, first.id, limit=1)
    assert (page.items, page.next_cursor) == ([second], "2")
    page = await agents.versions(ALICE, first.id, limit=1, after=2)
    assert (page.items, page.next_cursor) == ([first], None)
    with pytest.raises(NotFound):
        await agents.get(ALICE, first.id, version=3)


async def test_lists_are_by_owner_and_without_the_archived(agents: Agents) -> None:
    made = [await agents.create(ALICE, agent_fields()) for _ in range(3)]
    page = await agents.list(ALICE, limit=2)
    rest = await agents.list(ALICE, limit=2, after=page.next_cursor)
    assert {each.id for each in [*page.items, *rest.items]} == {each.id for each in made}
    gone = await agents.archive(ALICE, made[0].id)
    assert gone.archived_at is not None
    assert await agents.archive(ALICE, made[0].id) == gone
    assert len((await agents.list(ALICE, limit=10)).items) == 2
    assert len((await agents.list(ALICE, limit=10, include_archived=True)).items) == 3
    with pytest.raises(Conflict):
        await agents.update(ALICE, made[0].id, {"name": "again"})
    assert (await agents.list(STRANGER, limit=10)).items == []
    for work in (
        agents.get(STRANGER, made[1].id),
        agents.update(STRANGER, made[1].id, {"name": "mine"}),
        agents.archive(STRANGER, made[1].id),
        agents.versions(STRANGER, made[1].id, limit=1),
    ):
        with pytest.raises(NotFound):
            await work


DEFAULT = {"type": "agent_toolset_20260401"}
CUSTOM = {"type": "custom", "name": "x", "description": "", "input_schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": 5}, "name"),
        ({"name": "x" * 300}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"model": "--flag"}, "model"),
        ({"model": 7}, "model"),
        ({"model": {"id": "m", "speed": "fast"}}, "model.speed"),
        ({"model": {"id": "m", "effort": {"type": "high"}}}, "model.effort"),
        ({"colour": "red"}, "colour"),
        ({"execution_identity": {"type": "aws_role"}}, "execution_identity"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "magic"}]}, "tools.0.type"),
        ({"tools": [DEFAULT, DEFAULT]}, "tools"),
        ({"tools": [{**DEFAULT, "configs": [{"name": "fly"}]}]}, "tools.0.configs.0.name"),
        (
            {"tools": [{**DEFAULT, "default_config": {"permission_policy": {"type": "auto"}}}]},
            "tools.0.default_config.permission_policy.type",
        ),
        ({"tools": [MCP_TOOLS]}, "tools"),
        ({"mcp_servers": [MCP]}, "tools"),
        ({"tools": [{**CUSTOM, "name": "bash"}]}, "tools.0.name"),
        ({"tools": [{**CUSTOM, "name": "a b"}]}, "tools.0.name"),
        ({"tools": [{**CUSTOM, "name": "Task"}]}, "tools.0.name"),
        ({"tools": [{**CUSTOM, "name": "StructuredOutput"}]}, "tools.0.name"),
        ({"tools": [{**CUSTOM, "name": "mcp__docs__find"}]}, "tools.0.name"),
        ({"tools": [{**CUSTOM, "name": f"t{n}"} for n in range(129)]}, "tools"),
        ({"tools": [CUSTOM, CUSTOM]}, "tools"),
        ({"tools": [{**CUSTOM, "input_schema": []}]}, "tools.0.input_schema"),
        ({"tools": [{**CUSTOM, "input_schema": {"type": "list"}}]}, "tools.0.input_schema"),
        ({"multiagent": {"type": "multiagent_20261001"}}, "multiagent.type"),
        ({"multiagent": {"type": "coordinator", "agents": []}}, "multiagent.agents"),
        (
            {"multiagent": {"type": "coordinator", "agents": [{"type": "self"}]}},
            "multiagent.agents.0.type",
        ),
        (
            {"skills": [{"type": "custom", "skill_id": "review", "version": "7"}]},
            "skills.0.version",
        ),
    ],
)
async def test_what_is_refused_is_named(agents: Agents, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Invalid) as caught:
        await agents.create(POWER, agent_fields() | fields)
    assert str(caught.value.param).startswith(param)
    assert (await agents.list(POWER, limit=10)).items == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"mcp_servers": [{**MCP, "url": "https://evil.example"}]}, "mcp_server_not_offered"),
        ({"mcp_servers": [{**MCP, "name": "other"}]}, "mcp_server_not_offered"),
        ({"skills": [{"type": "custom", "skill_id": "hack"}]}, "skill_not_offered"),
        ({"skills": [{"type": "anthropic", "skill_id": "xlsx"}]}, "skill_not_offered"),
        (
            {"tools": [{**DEFAULT, "configs": [{"name": "web_fetch", "enabled": True}]}]},
            "tool_not_allowed",
        ),
    ],
)
async def test_what_is_not_offered(agents: Agents, fields: dict[str, Any], code: str) -> None:
    with pytest.raises(Denied) as caught:
        await agents.create(POWER, agent_fields() | fields)
    assert caught.value.error_code == code


async def test_the_catalogue_is_under_the_keys_rights(agents: Agents, core: Core) -> None:
    fields = agent_fields(TOOLS, MCP_TOOLS, mcp_servers=[MCP])
    with pytest.raises(Denied):
        await agents.create(ALICE, fields)
    made = await agents.create(POWER, fields)
    core.sessions._catalogue = OFFERS
    with pytest.raises(Denied):  # nor may she use what another has made
        await core.sessions.create(ALICE, SessionRequest(made.id))
    one = replace(ALICE, scopes=ALICE.scopes | {"use:mcp.docs"})
    session = await core.sessions.create(one, SessionRequest(made.id))
    assert (session.state.agent or {})["mcp_servers"] == [MCP]
    local = {"type": "url", "name": "local", "url": "catalogue://local"}
    tools = [TOOLS, {"type": "mcp_toolset", "mcp_server_name": "local"}]
    made = await agents.create(POWER, agent_fields(*tools, mcp_servers=[local]))
    assert made.definition.mcp_servers == [local]


async def test_sub_agents_keep_the_version_they_had(agents: Agents, core: Core) -> None:
    helper = await agents.create(ALICE, {**agent_fields(), "name": "helper"})
    team = {"type": "coordinator", "agents": [helper.id]}
    leader = await agents.create(ALICE, agent_fields(multiagent=team))
    assert leader.definition.multiagent is not None
    assert leader.definition.multiagent["agents"][0]["version"] == 1
    await agents.update(ALICE, helper.id, {"system": "Changed."})
    session = await core.sessions.create(ALICE, SessionRequest(leader.id))
    [other] = (session.state.agent or {})["multiagent"]["agents"]
    assert (other["name"], other["version"], other["system"]) == ("helper", 1, None)
    for wrong in (new_id("agent"), leader.id):
        fields = {"multiagent": {"type": "coordinator", "agents": [wrong]}}
        with pytest.raises(Invalid):
            await agents.update(ALICE, leader.id, fields)


@pytest.mark.parametrize(
    ("name", "tools", "code"),
    [
        ("Code Reviewer", [], "sub_agent_name"),
        ("größer", [], "sub_agent_name"),
        ("-x", [], "sub_agent_name"),
        ("a__b", [], "sub_agent_name"),
        ("x" * 65, [], "sub_agent_name"),
        ("twin", [], "sub_agent_name"),
        ("helper", [{**DEFAULT, "configs": [{"name": "read"}]}], "sub_agent_tool"),
    ],
)
async def test_a_team_that_could_not_be_launched_is_refused_when_it_is_defined(
    agents: Agents, core: Core, name: str, tools: list[Any], code: str
) -> None:
    first = await agents.create(ALICE, {"name": "twin", "model": "m"})
    other = await agents.create(ALICE, {"name": name, "model": "m", "tools": tools})
    team = {"multiagent": {"type": "coordinator", "agents": [first.id, other.id]}}
    leader = await agents.create(ALICE, {"name": "Leader of all", "model": "m"})
    for refused in (
        agents.create(ALICE, {"name": "L", "model": "m", **team}),
        agents.update(ALICE, leader.id, team),
        core.sessions.create(
            ALICE, SessionRequest({"type": "inline", "name": "L", "model": "m", **team})
        ),
    ):
        with pytest.raises(Invalid) as caught:
            await refused
        assert (caught.value.error_code, caught.value.param) == (code, "multiagent.agents.1")
    assert await agents.get(ALICE, leader.id) == leader


async def test_a_team_keeps_to_the_tools_of_its_leader_when_those_change(
    agents: Agents, core: Core
) -> None:
    helper = await agents.create(ALICE, {**agent_fields(TOOLS), "name": "helper"})
    team = {"type": "coordinator", "agents": [helper.id]}
    leader = await agents.create(ALICE, agent_fields(TOOLS, multiagent=team))
    session = await core.sessions.create(ALICE, SessionRequest(leader.id))
    without: dict[str, Any] = {"tools": []}
    overriding = {"type": "agent_with_overrides", "id": leader.id, **without}
    for refused in (
        agents.update(ALICE, leader.id, without),
        core.sessions.create(ALICE, SessionRequest(overriding)),
        core.sessions.update(ALICE, session.id, SessionPatch({"agent": without})),
    ):
        with pytest.raises(Invalid) as caught:
            await refused
        assert caught.value.error_code == "sub_agent_tool"


async def test_overrides_are_of_the_session_alone(agents: Agents, core: Core) -> None:
    made = await agents.create(ALICE, agent_fields(system="Original."))
    wanted = {
        "type": "agent_with_overrides",
        "id": made.id,
        "system": "Other.",
        "tools": [ASKING],
    }
    session = await core.sessions.create(ALICE, SessionRequest(wanted))
    agent = session.state.agent or {}
    assert (agent["id"], agent["version"], agent["system"]) == (made.id, 1, "Other.")
    assert agent["tools"][0]["default_config"]["permission_policy"] == {"type": "always_ask"}
    assert await agents.get(ALICE, made.id) == made
    for wrong in ({"type": "agent", "id": made.id, "system": "no"}, {"type": "cat"}, 7):
        with pytest.raises(StationmasterError):
            await core.sessions.create(ALICE, SessionRequest(wrong))  # type: ignore[arg-type]


# --- environments -----------------------------------------------------------------------------


async def test_an_environment_lives(core: Core) -> None:
    made = await core.environments.create(ALICE, {"name": "box", "metadata": {"a": "b"}})
    assert made.config["networking"]["type"] == "limited"
    assert made.config["packages"]["pip"] == []
    core.clock.advance(1)
    fields = {"description": "The box.", "metadata": {"a": None}}
    changed = await core.environments.update(ALICE, made.id, fields)
    assert (changed.description, changed.metadata, changed.name) == ("The box.", {}, "box")
    assert await core.environments.get(ALICE, made.id) == changed
    fields = agent_fields()
    agent = await core.agents.create(ALICE, fields)
    session = await core.sessions.create(ALICE, SessionRequest(agent.id, made.id))
    with pytest.raises(Conflict):
        await core.environments.delete(ALICE, made.id)
    await core.environments.archive(ALICE, made.id)
    with pytest.raises(Conflict):
        await core.sessions.create(ALICE, SessionRequest(agent.id, made.id))
    with pytest.raises(Conflict):
        await core.environments.update(ALICE, made.id, {"name": "other"})
    assert (await core.environments.list(ALICE, limit=5)).items == []
    assert len((await core.environments.list(ALICE, limit=5, include_archived=True)).items) == 1
    await core.sessions.delete(ALICE, session.id)
    await core.environments.delete(ALICE, made.id)
    with pytest.raises(NotFound):
        await core.environments.get(ALICE, made.id)


@pytest.mark.parametrize(
    ("config", "param"),
    [
        ({"type": "mainframe"}, "config.type"),
        ({"type": "cloud", "networking": {"type": "unrestricted"}}, "config.networking.type"),
        (
            {"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["a.example"]}},
            "config.networking.allowed_hosts",
        ),
        (
            {"type": "cloud", "networking": {"type": "limited", "allow_mcp_servers": True}},
            "config.networking.allow_mcp_servers",
        ),
        ({"type": "cloud", "packages": {"pip": ["numpy"]}}, "config.packages.pip"),
        ({"type": "cloud", "disk": "large"}, "config.disk"),
        ("cloud", "config"),
    ],
)
async def test_what_an_environment_cannot_be(core: Core, config: Any, param: str) -> None:
    with pytest.raises(Invalid) as caught:
        await core.environments.create(ALICE, {"name": "box", "config": config})
    assert caught.value.param == param


async def test_another_owners_environment_is_not_there(core: Core) -> None:
    made = await core.environments.create(ALICE, {"name": "box"})
    agent = await core.agents.create(STRANGER, agent_fields())
    for work in (
        core.environments.get(STRANGER, made.id),
        core.environments.update(STRANGER, made.id, {"name": "mine"}),
        core.environments.archive(STRANGER, made.id),
        core.environments.delete(STRANGER, made.id),
        core.sessions.create(STRANGER, SessionRequest(agent.id, made.id)),
    ):
        with pytest.raises(NotFound):
            await work
