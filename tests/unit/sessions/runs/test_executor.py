"""Carrying out one run, from its start to the agent's own end."""

import asyncio
from dataclasses import replace

import msgspec
import pytest

from stationmaster.agents.base import (
    AgentExited,
    AgentFailure,
    AgentLimitExceeded,
    AgentProtocolError,
    AgentUnavailable,
    LaunchSpec,
)
from stationmaster.agents.scripted import (
    Call,
    Fail,
    Finish,
    Output,
    Say,
    ScriptedAgent,
    Step,
    Think,
    UseTool,
    WaitFor,
    WriteFile,
)
from stationmaster.budgets import LedgerEntry, Reserved, Usage
from stationmaster.events import Event, Live
from stationmaster.gateway.ports import CallEnded, CallStarted
from stationmaster.kernel.errors import Invalid
from stationmaster.sessions.runs import executor as executor_module
from stationmaster.sessions.runs.executor import Timers
from tests.support.core import ALICE, Core
from tests.unit.sessions.runs.carrying import (
    BEGIN,
    END,
    FAILED,
    READY,
    Reached,
    Slow,
    carry_out,
    claimed,
    ended,
)

# --- success ----------------------------------------------------------------------------------


async def test_a_success_stands_whole_in_the_book(core: Core) -> None:
    run, _ = await carry_out(
        core,
        Think("Let me see."),
        Say("I will write a file."),
        WriteFile("out/hello.txt", "hello"),
        UseTool("Bash", {"command": "cat out/hello.txt"}, "hello"),
        Say("Done."),
    )
    state = run.state
    assert (state.state, state.result, state.error, state.turns) == ("completed", "Done.", None, 3)
    assert await core.types(run) == [
        *READY,
        "agent.thinking",
        "agent.message",
        "agent.tool_use",
        "agent.tool_result",
        "agent.tool_use",
        "agent.tool_result",
        "agent.message",
        *END,
    ]
    assert state.agent is not None
    assert (state.agent["name"], state.agent["sandbox"]) == ("scripted", "none")
    (artifact,) = state.artifacts["items"]
    assert (artifact["path"], artifact["kind"], artifact["size"]) == ("out/hello.txt", "created", 5)
    book = await core.book(run)
    assert book[6].data["content"] == [{"type": "text", "text": "I will write a file."}]
    assert book[9].data["input"] == {"command": "cat out/hello.txt"}
    assert (book[10].data["content"], book[10].data["is_error"]) == ("hello", False)
    assert book[9].data["tool_use_id"] == book[10].data["tool_use_id"]
    assert all(event.data["run_id"] == run.id for event in book)


async def test_the_agent_is_told_what_was_asked(core: Core, agent: ScriptedAgent) -> None:
    run, _ = await carry_out(
        core,
        Say("Done."),
        prompt="Count.",
        system_prompt="Be brief.",
        tools=("Read",),
        max_turns=7,
        model="other-model",
        permission_mode="plan",
    )
    (spec,) = agent.launched
    _, place = await core.runs.place(ALICE, run.id)
    assert (spec.session_id, spec.workspace, spec.directory) == (
        run.session_id,
        place.workspace,
        None,  # the workspace itself
    )
    assert (spec.system_prompt, spec.tools, spec.max_turns) == ("Be brief.", ("Read",), 7)
    assert (spec.model, spec.permission_mode) == ("other-model", "plan")
    assert spec.home.is_dir()
    assert core.directory / "state" in spec.home.parents


async def test_what_is_being_written_passes_by_and_is_not_kept(core: Core) -> None:
    reached = Reached()
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = (reached.step, Say("one two"), Think("hm"))
    claim = await claimed(core)
    live: list[str] = []
    texts: list[str] = []

    async def watch() -> None:
        async for item in core.runs.follow(ALICE, claim.run.id, after=0, idle=30):
            if isinstance(item, Live):
                live.append(f"{item.data['kind']} {item.data['text']}")
            elif isinstance(item, Event) and item.type == "agent.message":
                texts.append(item.data["content"][0]["text"])

    async with asyncio.timeout(60):
        watching = asyncio.create_task(watch())
        running = asyncio.create_task(core.execution(claim).run())
        await reached.here.wait()
        while not core.bus.listeners(claim.run.session_id):
            await asyncio.sleep(0)
        reached.go_on.set()
        await running
        await watching
    assert (live, texts) == (["text one ", "text two", "thinking hm"], ["one two"])
    assert "agent.delta" not in await core.types(claim.run)


async def test_text_that_no_database_likes_is_no_trouble(core: Core) -> None:
    run, _ = await carry_out(
        core,
        UseTool("Bash", {"command": "\0\ud800"}, "out\0\udfff"),
        Say("nul \0 surrogate \ud800 train \U0001f682"),
    )
    assert run.state.state == "completed"
    assert run.state.result == "nul \0 surrogate ? train \U0001f682"
    assert (await core.book(run))[6].data["content"] == "out\0?"


async def test_a_failures_words_may_be_wild_too(core: Core) -> None:
    run, _ = await carry_out(core, Fail(AgentExited("a\0b\ud800", stderr_tail="\0\udcff tail")))
    assert run.state.error == {
        "code": "agent_exited",
        "message": "a\0b?",
        "stderr_tail": "\0? tail",
    }


async def test_many_events_are_all_kept_in_order(core: Core) -> None:
    run, _ = await carry_out(core, *(Say(f"message {number}") for number in range(1500)))
    said = [
        event.data["content"][0]["text"]
        for event in await core.book(run)
        if event.type == "agent.message"
    ]
    assert said == [f"message {number}" for number in range(1500)]


# --- failures of the agent --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (Finish("max_turns", "so far"), "max_turns"),
        (Finish("error", "so far", "it broke"), "agent_error"),
        (Finish("error", "so far"), "agent_error"),
    ],
)
async def test_an_agent_that_ends_without_success(core: Core, step: Finish, code: str) -> None:
    run, _ = await carry_out(core, Say("so far"), step)
    state = run.state
    assert (state.state, state.result, state.turns) == ("failed", "so far", 1)
    assert state.error is not None
    assert state.error["code"] == code
    assert await core.types(run) == [*READY, "agent.message", *FAILED]


@pytest.mark.parametrize(
    "failure",
    [
        AgentExited("The agent ended.", stderr_tail="last words"),
        AgentProtocolError("Not a frame."),
        AgentLimitExceeded("Too much memory.", limit="memory"),
        AgentFailure("Something else."),
    ],
)
async def test_each_failure_of_an_agent_keeps_its_kind(core: Core, failure: AgentFailure) -> None:
    run, _ = await carry_out(core, Say("working"), Fail(failure))
    assert run.state.state == "failed"
    wanted = {"code": failure.error_code, "message": failure.message}
    if failure.stderr_tail:
        wanted["stderr_tail"] = failure.stderr_tail
    assert run.state.error == wanted
    assert await core.types(run) == [*READY, "agent.message", *FAILED]


async def test_an_agent_that_cannot_start(core: Core, agent: ScriptedAgent) -> None:
    agent.launch_failure = AgentUnavailable("No CLI.", stderr_tail="not found")
    run, _ = await carry_out(core)
    assert run.state.error == {
        "code": "agent_unavailable",
        "message": "No CLI.",
        "stderr_tail": "not found",
    }
    assert await core.types(run) == [*BEGIN, *FAILED]


async def test_a_fault_of_our_own_is_told_without_its_words(core: Core) -> None:
    def script(_spec: LaunchSpec, _content: object) -> list[Step]:
        raise ValueError("a secret of the implementation")

    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = script
    claim = await claimed(core)
    ending = await core.execution(claim).run()
    run, _ = await ended(core, claim, ending)
    assert run.state.error is not None
    assert run.state.error["code"] == "internal_error"
    assert "secret" not in str(await core.book(run))


async def test_a_workspace_that_is_gone_is_a_failure_of_the_run(core: Core) -> None:
    claim = await claimed(core)
    assert claim.place is not None
    await asyncio.to_thread(claim.place.workspace.rmdir)
    run, _ = await ended(core, claim, await core.execution(claim).run())
    assert run.state.state == "failed"


# --- timers -----------------------------------------------------------------------------------


async def test_an_agent_that_does_not_start_in_time(core: Core) -> None:
    slow = Slow()
    run, _ = await carry_out(core.beside(agent=slow), timers=Timers(1.0, 60))
    assert run.state.state == "timed_out"
    assert run.state.error is not None
    assert run.state.error["code"] == "agent_start_timeout"
    assert slow.cancelled


async def test_an_agent_that_falls_silent(core: Core) -> None:
    run, _ = await carry_out(core, Say("hm"), WaitFor(), timers=Timers(60, 0.02))
    assert run.state.state == "timed_out"
    assert run.state.error is not None
    assert run.state.error["code"] == "agent_silent"
    assert await core.types(run) == [*READY, "agent.message", *FAILED]


async def test_silence_while_the_model_is_asked_is_the_models(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module, "CALLS_GRACE_S", 0.01)
    claim = await claimed(core)
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = (WaitFor(),)
    execution = core.execution(claim, timers=Timers(60, 0.02))
    execution.observe(CallStarted(core.context(claim.run)))
    run, _ = await ended(core, claim, await execution.run())
    assert run.state.error is not None
    assert run.state.error["code"] == "upstream_timeout"


async def test_a_run_that_takes_longer_than_its_timeout(core: Core) -> None:
    claim = await claimed(core)
    plan = msgspec.structs.replace(claim.run.plan, timeout=0.05)
    claim = replace(claim, run=replace(claim.run, plan=plan))
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = (Say("working"), WaitFor())
    async with asyncio.timeout(60):
        ending = await core.execution(claim).run()
    run, _ = await ended(core, claim, ending)
    assert run.state.state == "timed_out"
    assert run.state.error is not None
    assert run.state.error["code"] == "timeout"


# --- model calls ------------------------------------------------------------------------------


async def test_calls_are_told_in_the_book_and_summed_at_the_end(core: Core) -> None:
    assert isinstance(core.agent, ScriptedAgent)
    claim = await claimed(core, max_cost=1000)
    execution = core.execution(claim)

    async def call(_spec: LaunchSpec) -> None:
        context = core.context(claim.run)
        assert isinstance(await core.budgets.reserve(context, 400), Reserved)
        execution.observe(CallStarted(context))
        usage = Usage(10, 20, 30, 40, 25)
        await core.budgets.settle(LedgerEntry(context, 0, usage, 100, "complete", 5))
        execution.observe(CallEnded(context, usage, 100, "complete", 200, "end_turn", 5, 1))

    core.agent.script = (Call(call), Call(call), Say("Done."))
    run, _ = await ended(core, claim, await execution.run())
    assert (run.state.cost, run.state.model_calls) == (200, 2)
    assert run.state.usage == {
        "input_tokens": 20,
        "output_tokens": 40,
        "cache_write_tokens": 60,
        "cache_write_1h_tokens": 50,
        "cache_read_tokens": 80,
    }
    spans = [e for e in await core.book(run) if e.type.startswith("span.")]
    assert [e.type for e in spans] == [
        "span.model_request_start",
        "span.model_request_end",
    ] * 2
    assert spans[0].data["call_id"] == spans[1].data["call_id"]
    assert (spans[1].data["cost"], spans[1].data["outcome"]) == (100, "complete")
    assert spans[1].data["usage"]["cache_write_1h_tokens"] == 25


async def test_the_end_waits_for_calls_that_are_still_open(core: Core) -> None:
    """So that their cost is in the run's sum."""
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = (Say("Done."),)
    claim = await claimed(core)
    execution = core.execution(claim)
    context = core.context(claim.run)
    await core.budgets.reserve(context, 10)
    execution.observe(CallStarted(context))
    running = asyncio.create_task(execution.run())
    while "agent.message" not in await core.types(claim.run):
        await asyncio.sleep(0)
    await core.budgets.settle(LedgerEntry(context, 0, Usage(1, 1), 10, "partial", 5))
    execution.observe(CallEnded(context, Usage(1, 1), 10, "partial", 200, None, 5, 1))
    run, _ = await ended(core, claim, await running)
    assert run.state.cost == 10
    assert (await core.types(run))[-4] == "span.model_request_end"


async def test_a_diff_is_kept_for_what_changed(core: Core) -> None:
    run, _ = await carry_out(core, WriteFile("a.txt", "new\n"), Say("Done."))
    diff = await asyncio.to_thread(core.files.diff, run.id)
    assert diff is not None
    with diff:
        assert b"+new" in await asyncio.to_thread(diff.read)
    quiet, _ = await carry_out(core, Say("Done."))
    assert await asyncio.to_thread(core.files.diff, quiet.id) is None
    assert quiet.state.artifacts == {"items": [], "truncated": False}


async def test_a_task_has_output_after_a_schema(core: Core) -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}}
    run, _ = await carry_out(core, Output({"answer": 42}), Say("42."), output_schema=schema)
    assert (run.state.state, run.state.structured) == ("completed", {"answer": 42})
    assert isinstance(core.agent, ScriptedAgent)
    assert core.agent.launched[0].output_schema == schema
    missing, _ = await carry_out(core, Say("I would rather not."), output_schema=schema)
    assert missing.state.state == "failed"
    assert missing.state.error is not None
    assert missing.state.error["code"] == "output_invalid"


async def test_a_schema_that_is_none_is_refused_before_anything_starts(core: Core) -> None:
    with pytest.raises(Invalid):
        await core.start(output_schema={"type": "text"})
    assert (await core.runs.depth()).queued == 0
