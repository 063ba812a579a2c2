"""What a task asks for by name: found, refused, narrowed, and handed to its agent."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stationmaster.access.profiles import profile
from stationmaster.agents.base import McpServer, Skill
from stationmaster.agents.scripted import Delegate, Say, ScriptedAgent
from stationmaster.kernel.errors import Denied, Invalid, NotFound, StationmasterError
from stationmaster.kernel.principal import Principal
from stationmaster.kernel.profile import Profile
from stationmaster.sessions.runs.options import Kit, RunOptions, RunPlan
from stationmaster.storage import Database
from tests.support.core import ALICE, Core
from tests.unit.sessions.runs.carrying import carry_out
from tests.unit.sessions.talking import agent_fields

USER = replace(ALICE, scopes=frozenset({"read:*", "write:*", "use:*"}))
READING = {
    "type": "agent_toolset_20260401",
    "default_config": {"enabled": False},
    "configs": [{"name": name, "enabled": True} for name in ("read", "bash")],
}
WIDE = profile("enterprise", {})


@pytest.fixture
async def offering(database: Database, tmp_path: Path, agent: ScriptedAgent) -> AsyncIterator[Core]:
    """A server with two agents, a skill and a tool server."""
    core = Core(database, tmp_path, agent=agent)
    (tmp_path / "pdf").mkdir()
    (tmp_path / "pdf" / "SKILL.md").write_text("Read PDFs.")
    core.offers.skills["pdf"] = Skill("pdf", tmp_path / "pdf")
    core.offers.mcp_servers["docs"] = McpServer("docs", command="/bin/true")
    fields = agent_fields(READING, system="Look closely.", description="Reviews code.")
    await core.agents.create(USER, {**fields, "name": "Code Reviewer"})
    await core.agents.create(USER, {**agent_fields(), "name": "writer"})
    yield core
    await agent.aclose()


def options(**fields: Any) -> RunOptions:
    return RunOptions(prompt="Do it.", **fields)


def who(held: Profile | None = None, *scopes: str) -> Principal:
    return replace(USER, profile=held, scopes=frozenset(scopes) or USER.scopes)


async def test_a_kit_reaches_the_agent(offering: Core, agent: ScriptedAgent) -> None:
    kit: dict[str, Any] = {
        "agents": ("Code Reviewer",),
        "skills": ("pdf", "pdf"),
        "mcp_servers": ("docs",),
    }
    steps = (Delegate("Code-Reviewer", (Say("Looks fine."),)), Say("Done."))
    run, _ = await carry_out(offering, *steps, by=USER, tools=("Read", "Write"), **kit)
    assert run.state.result == "Done."
    [spec] = agent.launched
    [reviewer] = spec.sub_agents
    assert (reviewer.name, reviewer.prompt) == ("Code-Reviewer", "Look closely.")
    assert (reviewer.description, reviewer.model) == ("Reviews code.", "scripted-model")
    assert reviewer.tools == ("Read",)  # by its definition it has Bash too, but the task has not
    assert spec.skills == (offering.offers.skills["pdf"],)
    assert spec.mcp_servers == (offering.offers.mcp_servers["docs"],)
    assert run.plan.kit.skills == ("pdf",)
    assert RunPlan.from_json(run.plan.to_json()) == run.plan
    said = [event.data for event in await offering.book(run) if event.type == "agent.message"]
    assert [each.get("parent_tool_use_id") is not None for each in said] == [True, False]


async def test_an_agent_is_named_by_its_id_too(offering: Core) -> None:
    made = await offering.agents.create(USER, {**agent_fields(), "name": "評論家"})
    kit = await offering.runs._kits.find(USER, options(agents=(made.id,)), ("Read",))
    assert [each.name for each in kit.sub_agents] == [made.id]


async def test_nothing_asked_for_is_nothing_given(offering: Core) -> None:
    poor = who(None, "write:tasks")
    assert await offering.runs._kits.find(poor, options(), ()) == Kit()


PRO = who(profile("pro", {}))


@pytest.mark.parametrize(
    ("by", "fields", "refusal"),
    [
        (USER, {"agents": ("writter",)}, (NotFound, "unknown_agent", "allow_agents")),
        (USER, {"skills": ("pfd",)}, (NotFound, "unknown_skill", "allow_skills")),
        (USER, {"mcp_servers": ("doc",)}, (NotFound, "unknown_mcp_server", "mcp_servers")),
        (who(WIDE), {"skills": ("pfd",)}, (NotFound, "unknown_skill", "allow_skills")),
        (
            who(replace(WIDE, agents=("review*",))),
            {"agents": ("writer",)},
            (Denied, "agent_not_allowed", "allow_agents"),
        ),
        (PRO, {"skills": ("pdf",)}, (Denied, "skill_not_allowed", "allow_skills")),
        (PRO, {"mcp_servers": ("docs",)}, (Denied, "mcp_server_not_allowed", "mcp_servers")),
        (
            who(replace(WIDE, blocked_tools=("mcp__docs__write",))),
            {"mcp_servers": ("docs",)},
            (Denied, "mcp_server_not_allowed", "mcp_servers"),
        ),
        (who(None, "write:tasks"), {"agents": ("writer",)}, (Denied, "permission_denied", None)),
        (
            who(None, "write:tasks", "use:skills.other"),
            {"skills": ("pdf",)},
            (Denied, "permission_denied", "allow_skills"),
        ),
        (
            who(None, "write:tasks"),
            {"mcp_servers": ("docs",)},
            (Denied, "permission_denied", "mcp_servers"),
        ),
        (
            replace(USER, models=frozenset({"claude-haiku-*"})),
            {"agents": ("writer",)},
            (Denied, "model_not_allowed", "model"),
        ),
        (USER, {"agents": ("a",) * 21}, (Invalid, "invalid_request", "allow_agents")),
        (USER, {"skills": ("a",) * 21}, (Invalid, "invalid_request", "allow_skills")),
    ],
    ids=[
        *("unknown-agent", "unknown-skill", "unknown-server", "unknown-under-profile"),
        *("agent-by-profile", "skill-by-profile", "server-by-profile", "server-tool-blocked"),
        *("agent-by-scope", "skill-by-scope", "server-by-scope", "agent-by-model"),
        *("many-agents", "many-skills"),
    ],
)
async def test_what_may_not_be_is_refused_and_nothing_is_begun(
    offering: Core,
    by: Principal,
    fields: dict[str, Any],
    refusal: tuple[type[StationmasterError], str, str | None],
) -> None:
    kind, code, param = refusal
    with pytest.raises(kind) as caught:
        await offering.runs.start(by, options(**fields))
    assert (caught.value.error_code, caught.value.param) == (code, param)
    assert (await offering.runs.list(USER, limit=10)).items == []
    if kind is NotFound:
        nearest = {"unknown_agent": "writer", "unknown_skill": "pdf", "unknown_mcp_server": "docs"}
        assert repr(nearest[code]) in caught.value.message


async def test_what_the_caller_may_not_use_is_no_hint(offering: Core) -> None:
    with pytest.raises(NotFound) as caught:
        await offering.runs.start(who(None, "write:tasks"), options(skills=("pfd",)))
    assert "pdf'" not in caught.value.message


async def test_two_agents_of_one_name_are_told_apart_by_their_ids(offering: Core) -> None:
    again = await offering.agents.create(USER, {**agent_fields(), "name": "writer"})
    await offering.agents.create(USER, {**agent_fields(), "name": "code reviewer!"})
    await offering.agents.create(USER, {**agent_fields(), "name": "Code, Reviewer"})
    for names in (("writer",), ("Code Reviewer", "Code, Reviewer")):
        with pytest.raises(Invalid) as caught:
            await offering.runs.start(USER, options(agents=names))
        assert caught.value.error_code == "ambiguous_agent"
    await offering.runs.start(USER, options(agents=(again.id, "Code Reviewer", "code reviewer!")))


async def test_what_the_operator_has_taken_away_meanwhile_is_left_out(
    offering: Core, agent: ScriptedAgent
) -> None:
    await offering.start(by=USER, skills=("pdf",))
    del offering.offers.skills["pdf"]
    claim = await offering.claims.next()
    assert claim is not None
    await offering.execution(claim).run()
    assert agent.launched[0].skills == ()


@pytest.mark.parametrize(
    ("tools", "blocked", "allowed"),
    [
        (("*",), (), True),
        (("mcp__docs__*",), (), True),
        (("mcp__*",), ("mcp__other__*",), True),
        (("mcp__docs__read",), (), False),
        (("Read",), (), False),
        (("*",), ("mcp__docs__read",), False),
        (("*",), ("mcp__*",), False),
        (("*",), ("*",), False),
    ],
    ids=["all", "its-own", "another-blocked", "one-of-it", "none", "one-blocked", "mcp", "nothing"],
)
def test_a_profile_allows_a_tool_server_as_a_whole(
    tools: tuple[str, ...], blocked: tuple[str, ...], *, allowed: bool
) -> None:
    held = Profile("made", tools=tools, blocked_tools=blocked)
    assert held.allows_server("docs") is allowed
