"""What a credential's profile leaves a run: tools, time, money, and how many at once."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stationmaster.access.profiles import profile
from stationmaster.agents.base import Limits as AgentLimits
from stationmaster.agents.base import McpServer
from stationmaster.agents.scripted import ScriptedAgent
from stationmaster.kernel.errors import Denied, Exhausted, Invalid
from stationmaster.kernel.principal import Limits, Principal
from stationmaster.kernel.profile import Profile
from stationmaster.sessions.inputs import Interrupt
from stationmaster.sessions.runs.bounds import Bounds, Shares, within
from stationmaster.sessions.runs.options import RunOptions, RunPlan, plan
from stationmaster.sessions.session import SessionRequest
from stationmaster.storage import Database
from tests.support.core import ALICE, LIMITS, Core
from tests.unit.sessions.talking import Talk, agent_fields, say

AGENT = ScriptedAgent()
FREE, PRO = profile("free", {}), profile("pro", {})
WIDE = profile("enterprise", {"cost": 10**12, "seconds": 86_400})


def held(by: Profile, **options: Any) -> RunPlan:
    return plan(RunOptions(**({"prompt": "Do it."} | options)), LIMITS, AGENT, profile=by)


def who(**fields: Any) -> Principal:
    return replace(ALICE, **fields)


def test_what_is_left_out_is_what_the_profile_leaves() -> None:
    made = held(FREE)
    assert set(made.tools) == set(AGENT.default_tools) & {"Read"}
    assert (made.timeout, made.max_cost) == (60.0, 100_000)
    assert made.bounds == Bounds(
        cpu_seconds=30, memory_bytes=1024**3, disk_bytes=50 * 1024**2, readonly=True
    )
    assert RunPlan.from_json(made.to_json()) == made


def test_a_profile_allows_no_more_than_the_server() -> None:
    made = held(WIDE)
    assert (made.timeout, made.max_cost) == (LIMITS.default_timeout, LIMITS.default_cost)
    with pytest.raises(Invalid):
        held(WIDE, timeout=LIMITS.max_timeout + 1)
    with pytest.raises(Invalid):
        held(WIDE, max_cost=LIMITS.max_cost + 1)


@pytest.mark.parametrize(
    ("by", "options", "kind", "param"),
    [
        (FREE, {"tools": ("Bash",)}, Denied, "allow_tools"),
        (FREE, {"tools": ("Read", "Write")}, Denied, "allow_tools"),
        (PRO, {"tools": ("Write",)}, Denied, "allow_tools"),
        (PRO, {"tools": ("WebFetch",)}, Denied, "allow_tools"),
        (FREE, {"timeout": 61}, Invalid, "timeout"),
        (FREE, {"max_cost": 100_001}, Invalid, "max_cost"),
    ],
)
def test_what_is_beyond_the_profile_is_refused(
    by: Profile, options: dict[str, Any], kind: type[Exception], param: str
) -> None:
    with pytest.raises(kind) as caught:
        held(by, **options)
    assert getattr(caught.value, "param", None) == param


def test_an_agent_is_held_to_the_tighter_of_both() -> None:
    server = AgentLimits(memory_bytes=100, cpu_seconds=100, disk_bytes=100, file_bytes=100)
    assert within(server, None) == server
    assert within(server, Bounds()) == server
    bounds = Bounds(cpu_seconds=7, memory_bytes=200, disk_bytes=50)
    assert within(server, bounds) == replace(server, cpu_seconds=7, disk_bytes=50, file_bytes=50)


@pytest.mark.parametrize(
    "fields",
    [
        {"profile": replace(PRO, concurrent_tasks=2)},
        {"limits": Limits(concurrent_runs=2)},
        {"profile": replace(PRO, concurrent_tasks=2), "limits": Limits(concurrent_runs=9)},
    ],
)
async def test_of_many_that_start_at_once_no_more_run_than_may(
    core: Core, fields: dict[str, Any]
) -> None:
    alice = who(**fields)
    starts = [core.runs.start(alice, RunOptions(prompt="x")) for _ in range(8)]
    results = await asyncio.gather(*starts, return_exceptions=True)
    refused = [result for result in results if isinstance(result, Exhausted)]
    assert len(refused) == 6, results
    assert {error.error_code for error in refused} == {"concurrent_tasks"}
    assert all(error.retry_after for error in refused)
    other = who(id="key_bob", key_id="key_bob", **fields)
    await core.runs.start(other, RunOptions(prompt="x"))  # another key's are its own
    (run,) = [r for r in results if not isinstance(r, BaseException)][:1]
    await core.runs.cancel(alice, run.id)
    await core.runs.start(alice, RunOptions(prompt="x"))


ONE = RunOptions(prompt="x")


async def refused_for(core: Core, caller: Principal) -> str:
    with pytest.raises(Exhausted) as caught:
        await core.runs.start(caller, ONE)
    assert caught.value.error_code == "concurrent_tasks"
    return caught.value.message


async def test_the_servers_shares_hold_for_who_has_none_of_its_own(
    database: Database, tmp_path: Path
) -> None:
    core = Core(database, tmp_path, limits=replace(LIMITS, shares=Shares(key=1, organization=3)))
    alice, bob = who(), who(id="key_bob", key_id="key_bob")
    await core.runs.start(alice, ONE)
    assert "credential has 1" in await refused_for(core, alice)
    await core.runs.start(replace(alice, limits=Limits(concurrent_runs=2)), ONE)
    await core.runs.start(bob, ONE)
    carol = who(id="key_carol", key_id="key_carol")
    assert "organisation has 3" in await refused_for(core, carol)
    four, many = Limits(concurrent_runs=4), Limits(concurrent_runs=9)
    richer = replace(carol, limits=many, organization_limits=four)
    await core.runs.start(richer, ONE)
    assert "organisation has 4" in await refused_for(core, richer)


async def test_a_projects_own_limit_holds(core: Core) -> None:
    alice = who(project_limits=Limits(concurrent_runs=1))
    await core.runs.start(alice, ONE)
    bob = replace(alice, id="key_bob", key_id="key_bob")
    assert "project has 1" in await refused_for(core, bob)
    await core.runs.start(replace(bob, project_limits=None), ONE)


async def test_a_session_whose_agent_has_more_is_refused_and_stays_as_it_is(core: Core) -> None:
    talk = Talk(core)
    session = await talk.create()
    before = await talk.now(session)
    talk.by = who(profile=FREE)
    with pytest.raises(Denied) as caught:
        await talk.send(session, say("Hello."))
    assert caught.value.error_code == "tool_not_allowed"
    assert await talk.now(session) == before


async def test_a_sessions_turn_is_held_to_the_profile_of_who_spoke(core: Core) -> None:
    talk = Talk(core, who(profile=replace(WIDE, seconds=5.0, cost=7, cpu_cores=2.0)))
    session = await talk.create()
    await talk.send(session, say("Hello."))
    claim = await core.claims.next()
    assert claim is not None
    made = claim.run.plan
    assert (made.timeout, made.max_cost) == (5.0, 7)
    assert made.bounds is not None
    assert (made.bounds.cpu_seconds, made.bounds.readonly) == (10, False)
    await talk.now(session)  # and its row is what its events say


async def test_a_key_has_no_more_turns_at_once_than_its_profile_says(core: Core) -> None:
    talk = Talk(core, who(profile=replace(WIDE, concurrent_tasks=1)))
    first, second = await talk.create(say("Hello.")), await talk.create()
    with pytest.raises(Exhausted) as caught:
        await talk.send(second, say("Hello."))
    assert caught.value.error_code == "concurrent_tasks"
    await talk.send(first, say("And more."))  # it waits for its turn
    with pytest.raises(Exhausted):
        await core.runs.start(talk.by, RunOptions(prompt="x"))
    talk.by = ALICE
    await talk.send(second, say("Hello."))


async def test_the_agent_of_a_session_is_held_to_it_for_one_turn(core: Core) -> None:
    held = replace(WIDE, cpu_cores=0.5, seconds=60.0, memory_bytes=2**29, workspace_bytes=2**20)
    talk, agent = Talk(core, who(profile=held)), core.agent
    assert isinstance(agent, ScriptedAgent)
    async with core.working(core.worker(1)):
        session = await talk.create()
        for turn, by in enumerate((talk.by, talk.by, ALICE, ALICE), start=1):
            talk.by = by
            await talk.send(session, say("Hello."))
            await talk.ended(session, turn)
    first, second, third = agent.launched  # the last two turns had one process
    server = AgentLimits()
    assert first.limits == second.limits
    assert first.limits == replace(
        server, cpu_seconds=30, memory_bytes=2**29, disk_bytes=2**20, file_bytes=2**20
    )
    assert third.limits == server
    assert [spec.readonly for spec in agent.launched] == [False] * 3
    assert {spec.workspace for spec in agent.launched} == {first.workspace}
    assert second.resume is not None


async def test_a_session_of_a_key_that_may_only_read_is_shown_its_files_read_only(
    core: Core,
) -> None:
    talk, agent = Talk(core, who(profile=profile("free", {"tools": ["Read"]}))), core.agent
    assert isinstance(agent, ScriptedAgent)
    reading = {
        "type": "agent_toolset_20260401",
        "default_config": {"enabled": False},
        "configs": [{"name": "read", "enabled": True}],
    }
    async with core.working(core.worker(1)):
        session = await talk.create(say("Hello."), tools=(reading,))
        await talk.ended(session)
    [spec] = agent.launched
    assert (spec.readonly, spec.tools) == (True, ("Read",))


async def test_a_session_with_a_tool_server_that_is_not_allowed_is_refused(core: Core) -> None:
    core.offers.mcp_servers["docs"] = McpServer("docs", command="/bin/true")
    by = who(scopes=frozenset({"read:*", "write:*", "use:*"}))
    server = {"type": "url", "name": "docs", "url": "catalogue://docs"}
    toolset = {"type": "mcp_toolset", "mcp_server_name": "docs"}
    agent = {"type": "inline", **agent_fields(toolset), "mcp_servers": [server]}
    session = await core.sessions.create(by, SessionRequest(agent))
    held = replace(WIDE, tools=("mcp__docs__read",))
    with pytest.raises(Denied) as caught:
        await core.sessions.send(replace(by, profile=held), session.id, [say("Hello.")])
    assert caught.value.error_code == "mcp_server_not_allowed"
    await core.sessions.send(replace(by, profile=WIDE), session.id, [say("Hello.")])


async def test_a_message_behind_anothers_turn_counts_for_its_own_key(core: Core) -> None:
    alice = who(profile=replace(WIDE, concurrent_tasks=1))
    bob = who(id="key_bob", key_id="key_bob")
    talk = Talk(core, bob)
    first, second = await talk.create(say("Bob's.")), await talk.create(say("Bob's."))
    talk.by = alice
    await talk.send(first, say("Mine, after it."))
    await talk.send(first, say("And more, in its turn."))
    for refused in (
        talk.send(second, say("A second one would follow by itself.")),
        talk.create(say("Hello.")),
        core.runs.start(alice, RunOptions(prompt="x")),
    ):
        with pytest.raises(Exhausted) as caught:
            await refused
        assert caught.value.error_code == "concurrent_tasks"
    talk.by = bob
    await talk.send(first, Interrupt())  # his ends before it has begun; hers follows
    talk.by = alice
    now = await talk.now(first)
    assert now.state.run_id is not None
    assert (await core.runs.get(alice, now.state.run_id)).key_id == alice.key_id
    with pytest.raises(Exhausted):
        await talk.send(second, say("Still one too many."))
    await talk.send(first, Interrupt())
    await talk.send(first, Interrupt())  # and her second message's turn
    await talk.send(second, say("Now there is room."))
