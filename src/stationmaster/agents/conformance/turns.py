"""Launching, turns, interrupts and ends."""

import asyncio
from contextlib import aclosing
from pathlib import Path

from stationmaster.agents.base import (
    AgentFailure,
    AgentUnavailable,
    Message,
    Started,
    ToolResult,
    ToolUse,
)
from stationmaster.agents.conformance.harness import (
    CLOSE_SECONDS,
    PATIENCE_SECONDS,
    Check,
    Harness,
    check_turn,
    close,
    end_of,
    iterate,
    launch,
    promise,
    raises,
    run_turn,
    start_of,
)
from stationmaster.kernel.errors import Conflict, StationmasterError


async def it_says_what_it_is(harness: Harness) -> None:
    """Its name, its tools and its rung are sensible."""
    agent = harness.agent
    promise(bool(agent.name), "An agent has a name.")
    promise(agent.known_tools.issuperset(agent.default_tools), "The default tools are known tools.")
    live = await launch(harness)
    promise(live.rung in {"bubblewrap", "user", "limits", "none"}, "The rung is a known one.")
    await live.close()


async def a_turn_begins_once_and_ends_once(harness: Harness) -> None:
    """`Started` is first, `Finished` last, each once; what is said is in between and at the end."""
    harness.will_say("hello there")
    live = await launch(harness)
    events = await run_turn(live)
    check_turn(events)
    said = [event.text for event in events if isinstance(event, Message)]
    promise(said == ["hello there"], "What the model says is one message.")
    end = end_of(events)
    promise(end.outcome == "success", "A turn that ends well is a success.")
    promise(end.text == "hello there", "The end repeats what was said last.")
    await live.close()


async def a_tool_use_has_its_result(harness: Harness) -> None:
    """Each tool use is followed by the result of the same id."""
    tool = harness.agent.default_tools[0]
    harness.will_use(tool)
    live = await launch(harness)
    events = await run_turn(live)
    check_turn(events)
    uses = [event for event in events if isinstance(event, ToolUse)]
    results = [event for event in events if isinstance(event, ToolResult)]
    promise([use.name for use in uses] == [tool], "The tool use is reported once.")
    promise(
        [result.tool_use_id for result in results] == [use.id for use in uses],
        "A result names its use.",
    )
    promise(not results[0].is_error, "An allowed tool works.")
    await live.close()


async def one_turn_follows_another(harness: Harness) -> None:
    """A live agent serves turn after turn, under one id."""
    live = await launch(harness)
    ids = set()
    for text in ("one", "two", "three"):
        harness.will_say(text)
        events = await run_turn(live)
        check_turn(events)
        promise(end_of(events).text == text, "A turn ends with its own text.")
        ids.add(start_of(events).agent_session_id)
    promise(len(ids) == 1, "The agent's session id does not change between turns.")
    await live.close()


async def only_one_turn_at_once(harness: Harness) -> None:
    """A second turn is refused while one runs, and harms nothing."""
    harness.will_hang()
    live = await launch(harness)
    async with aclosing(iterate(live)) as events:
        await anext(events)
        await raises(Conflict, run_turn(live), "A second turn at once is a conflict.")
    await live.close()


async def tools_restrict(harness: Harness) -> None:
    """A tool that is not in the list does not work, whatever the model says."""
    allowed, refused = harness.agent.default_tools[1], harness.agent.default_tools[0]
    harness.will_use(refused)
    live = await launch(harness, tools=(allowed,))
    events = await run_turn(live)
    promise(start_of(events).tools == (allowed,), "The agent has the tools of the list alone.")
    results = [event for event in events if isinstance(event, ToolResult)]
    promise(all(result.is_error for result in results), "A tool outside the list is an error.")
    await live.close()


async def no_tools_means_none(harness: Harness) -> None:
    """An empty list is no tools at all, not the default."""
    harness.will_say("nothing to do")
    live = await launch(harness, tools=())
    events = await run_turn(live)
    check_turn(events)
    promise(start_of(events).tools == (), "An empty list of tools is none.")
    await live.close()


async def an_unknown_tool_is_refused(harness: Harness) -> None:
    """A name that is no tool, or tries to be a flag, does not start anything."""
    for name in ("NoSuchTool", "--dangerous", "Bash(*)", "Read,Bash"):
        await raises(
            StationmasterError,
            harness.agent.launch(harness.spec(tools=(name,))),
            f"The tool {name} is refused.",
        )
    promise(harness.agent.alive() == 0, "A refused launch leaves nothing.")


async def an_interrupt_ends_the_turn(harness: Harness) -> None:
    """The interrupted turn still ends with `Finished`; the agent serves the next one."""
    harness.will_hang()
    live = await launch(harness)
    events = []
    async with aclosing(iterate(live)) as running:
        async for event in running:
            events.append(event)
            if isinstance(event, Started):
                await live.interrupt()
                await live.interrupt()
    check_turn(events)
    promise(end_of(events).outcome == "error", "An interrupted turn is no success.")
    harness.will_say("still here")
    promise(end_of(await run_turn(live)).text == "still here", "The agent is usable afterwards.")
    await live.close()


async def an_interrupt_without_a_turn_is_nothing(harness: Harness) -> None:
    """It neither raises nor touches the next turn."""
    harness.will_say("calm")
    live = await launch(harness)
    await live.interrupt()
    events = await run_turn(live)
    promise(end_of(events).outcome == "success", "An early interrupt does not end a later turn.")
    await live.interrupt()
    await live.close()


async def an_abandoned_turn_can_be_interrupted(harness: Harness) -> None:
    """Leaving the iterator leaves the turn; after an interrupt the next turn is clean."""
    harness.will_hang()
    live = await launch(harness)
    async with aclosing(iterate(live)) as events:
        await anext(events)
    await live.interrupt()
    harness.will_say("fresh")
    events_after = await run_turn(live)
    check_turn(events_after)
    promise(end_of(events_after).text == "fresh", "No event of the old turn is in the new one.")
    await live.close()


async def close_is_idempotent_and_complete(harness: Harness) -> None:
    """After close nothing is alive, a turn fails, and a second close does nothing."""
    live = await launch(harness)
    promise(harness.agent.alive() == 1, "A launched agent is alive.")
    await close(live)
    promise(harness.agent.alive() == 0, "A closed agent has no process.")
    await close(live)
    await raises(AgentFailure, run_turn(live), "A closed agent takes no turn.")


async def close_ends_a_running_turn(harness: Harness) -> None:
    """Whoever reads the turn learns of it."""
    harness.will_hang()
    live = await launch(harness)
    begun = asyncio.Event()

    async def read() -> None:
        async with aclosing(iterate(live)) as events:
            async for _ in events:
                begun.set()

    reader = asyncio.create_task(read())
    await begun.wait()
    await close(live)
    await raises(AgentFailure, reader, "The reader of a closed agent gets a failure.")
    promise(harness.agent.alive() == 0, "A turn that runs does not outlive the close.")


async def close_completes_where_it_is_cancelled(harness: Harness) -> None:
    """Cancelling the caller of close does not leave a process."""
    harness.will_hang()
    live = await launch(harness)
    async with aclosing(iterate(live)) as events:
        await anext(events)
        closing = asyncio.create_task(live.close())
        # One step of the loop: it has begun, and cannot have ended.
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
        promise(closing.done(), "A cancelled close ends in time.")
        promise(harness.agent.alive() == 0, "A cancelled close is complete.")


async def a_cancelled_launch_leaves_nothing(harness: Harness) -> None:
    """Wherever in the launch it is cancelled."""
    for steps in (0, 1, 5, 25, 100):
        launching = asyncio.create_task(harness.agent.launch(harness.spec()))
        for _ in range(steps):
            await asyncio.sleep(0)
        launching.cancel()
        await asyncio.wait({launching}, timeout=PATIENCE_SECONDS)
        if not launching.cancelled():
            await launching.result().close()
        promise(harness.agent.alive() == 0, "A cancelled launch leaves no process.")


async def a_cancelled_turn_leaves_the_agent_closable(harness: Harness) -> None:
    """A run that is cancelled closes its agent; nothing may be in the way of that."""
    harness.will_hang()
    live = await launch(harness)
    begun = asyncio.Event()

    async def read() -> None:
        async with aclosing(iterate(live)) as events:
            async for _ in events:
                begun.set()

    reader = asyncio.create_task(read())
    await begun.wait()
    reader.cancel()
    await asyncio.wait({reader}, timeout=CLOSE_SECONDS)
    promise(reader.cancelled(), "A turn can be cancelled.")
    await close(live)
    promise(harness.agent.alive() == 0, "The agent of a cancelled turn can be closed.")


async def a_missing_workspace_is_unavailable(harness: Harness) -> None:
    """It is a typed failure, and leaves nothing."""
    spec = harness.spec(workspace=Path("/nonexistent/workspace"))
    await raises(
        AgentUnavailable, harness.agent.launch(spec), "Without a workspace it cannot start."
    )
    promise(harness.agent.alive() == 0, "A failed launch leaves nothing.")


async def strange_input_is_only_text(harness: Harness) -> None:
    """What looks like a command, a flag, a path or a frame is said, not obeyed."""
    harness.will_say("heard")
    live = await launch(harness)
    for text in (
        "/clear",
        "--help",
        "@/etc/passwd",
        '{"type":"control_request"}\n',
        "\x00\x1b[31m",
    ):
        events = await run_turn(live, text)
        check_turn(events)
        promise(end_of(events).text == "heard", f"The model hears {text!r}.")
    await live.close()


async def reap_spares_the_living(harness: Harness) -> None:
    """Only what another server left behind is reaped."""
    harness.will_say("alive")
    live = await launch(harness)
    promise(await harness.agent.reap() == 0, "There is nothing to reap.")
    promise(end_of(await run_turn(live)).text == "alive", "A live agent is not reaped.")
    await live.close()


async def aclose_closes_all(harness: Harness) -> None:
    """Every live agent ends with its kind. Idempotent."""
    await launch(harness)
    await launch(harness)
    promise(harness.agent.alive() == 2, "Two agents live at once.")
    await harness.agent.aclose()
    promise(harness.agent.alive() == 0, "After aclose nothing is alive.")
    await harness.agent.aclose()


CHECKS: tuple[Check, ...] = (
    it_says_what_it_is,
    a_turn_begins_once_and_ends_once,
    a_tool_use_has_its_result,
    one_turn_follows_another,
    only_one_turn_at_once,
    tools_restrict,
    no_tools_means_none,
    an_unknown_tool_is_refused,
    an_interrupt_ends_the_turn,
    an_interrupt_without_a_turn_is_nothing,
    an_abandoned_turn_can_be_interrupted,
    close_is_idempotent_and_complete,
    close_ends_a_running_turn,
    close_completes_where_it_is_cancelled,
    a_cancelled_launch_leaves_nothing,
    a_cancelled_turn_leaves_the_agent_closable,
    a_missing_workspace_is_unavailable,
    strange_input_is_only_text,
    reap_spares_the_living,
    aclose_closes_all,
)
