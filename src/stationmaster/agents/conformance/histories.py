"""Histories: kept while a turn runs, gone on with, copied, and never begun anew by mistake."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from stationmaster.agents.base import (
    AgentFailure,
    AgentHistoryLost,
    AgentHistoryMissing,
    AgentUnavailable,
    LaunchSpec,
    SubAgent,
)
from stationmaster.agents.conformance.harness import (
    Check,
    Harness,
    end_of,
    launch,
    promise,
    raises,
    run_turn,
    start_of,
)

Entries = list[dict[str, Any]]


class Shelf:
    """A sink in memory."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str | None], Entries] = {}
        self.broken = False

    async def append(
        self, session: str, subpath: str | None, entries: Sequence[dict[str, Any]]
    ) -> None:
        """Keep them, unless it is broken."""
        if self.broken:
            raise ValueError("The shelf is broken.")
        self.kept.setdefault((session, subpath), []).extend(entries)

    async def load(self, session: str, subpath: str | None) -> Entries | None:
        """What was kept."""
        found = self.kept.get((session, subpath))
        return None if found is None else list(found)

    async def subpaths(self, session: str) -> list[str]:
        """What was kept of sub-agents."""
        return [path for of, path in self.kept if of == session and path is not None]

    def said(self, session: str) -> str:
        """All that was said in a conversation."""
        return str([entry.get("message") for entry in self.kept.get((session, None), [])])


async def a_turn_is_kept_when_it_has_finished(harness: Harness) -> None:
    """What was said to the agent and what it said is in the sink, under the agent's id."""
    shelf = Shelf()
    live = await launch(harness, transcripts=shelf)
    positions = []
    for word in ("first", "second"):
        harness.will_say(f"{word}-answer")
        events = await run_turn(live, f"{word}-question")
        session = start_of(events).agent_session_id
        promise(session == live.agent_session_id, "The agent says its id.")
        promise(str(UUID(session)) == session, "It is a uuid.")
        said = shelf.said(session)
        promise(f"{word}-question" in said and f"{word}-answer" in said, "The turn is kept.")
        positions.append(end_of(events).position)
    promise(None not in positions and len(set(positions)) == 2, "Each turn's end has a place.")
    promise({of for of, _ in shelf.kept} == {live.agent_session_id}, "Nothing else is kept.")
    await live.close()


async def a_sub_agents_history_is_kept(harness: Harness) -> None:
    """Under a subpath of the session."""
    tool, shelf = harness.agent.default_tools[0], Shelf()
    harness.will_delegate("helper", tool)
    helper = SubAgent("helper", "Helps.", "You help.", tools=(tool,))
    live = await launch(harness, transcripts=shelf, sub_agents=(helper,))
    await run_turn(live)
    promise(len(await shelf.subpaths(live.agent_session_id)) == 1, "Its history is kept.")
    await live.close()


async def a_history_is_gone_on_with(harness: Harness) -> None:
    """In another home and workspace, with nothing but the sink."""
    shelf, (session, _) = await _two_turns(harness)
    before = len(shelf.kept[session, None])
    harness.will_say("third-answer")
    live = await launch(harness, transcripts=shelf, resume=session)
    promise(live.agent_session_id == session, "The history keeps its id.")
    end = end_of(await run_turn(live, "third-question"))
    promise(end.text == "third-answer", "The turn goes well.")
    promise(len(shelf.kept[session, None]) > before, "It goes on in the same history.")
    promise("third-answer" in shelf.said(session), "The turn is kept there.")
    promise(shelf.said(session).count("first-question") == 1, "What was kept is not doubled.")
    await live.close()


async def a_missing_history_is_no_fresh_start(harness: Harness) -> None:
    """Nor is a place in one that it does not have. Nothing is left running."""
    shelf, (session, _) = await _two_turns(harness)
    unknown = str(uuid4())
    for changes in (
        {"resume": unknown, "transcripts": shelf},
        {"resume": unknown},
        {"resume": session, "resume_at": unknown, "transcripts": shelf},
    ):
        await raises(
            AgentHistoryMissing, launch(harness, **changes), "A missing history is an error."
        )
    promise(harness.agent.alive() == 0, "A failed launch leaves nothing.")


async def a_fork_leaves_the_original(harness: Harness) -> None:
    """It goes on in a copy, under its own id, from the end or from an earlier turn's."""
    shelf, (session, position) = await _two_turns(harness)
    before = list(shelf.kept[session, None])
    for resume_at in (None, position):
        copy = str(uuid4())
        harness.will_say("forked-answer")
        live = await launch(
            harness, transcripts=shelf, resume=session, agent_session_id=copy, resume_at=resume_at
        )
        promise(live.agent_session_id == copy, "The copy has its own id.")
        await run_turn(live, "forked-question")
        said = shelf.said(copy)
        promise("first-answer" in said and "forked-answer" in said, "The copy is complete.")
        promise(("second-answer" in said) == (resume_at is None), "It ends where it was to.")
        await live.close()
        harness.will_say("later-answer")
        live = await launch(harness, transcripts=shelf, resume=copy)
        await run_turn(live, "later-question")
        promise("later-answer" in shelf.said(copy), "The copy can be gone on with.")
        await live.close()
    promise(shelf.kept[session, None] == before, "The original stays as it was.")


async def an_id_in_use_is_not_begun_anew(harness: Harness) -> None:
    """A new history, or a copy, under an id that has one is refused."""
    shelf, (session, _) = await _two_turns(harness)
    _, (other, _) = await _two_turns(harness, shelf)
    for resume in (None, other):
        error = await raises(
            AgentUnavailable,
            launch(harness, transcripts=shelf, resume=resume, agent_session_id=session),
            "A history is not begun anew.",
        )
        promise(error.error_code == "agent_history_exists", "The code says why.")
    promise(harness.agent.alive() == 0, "A refused launch leaves nothing.")


async def a_history_that_cannot_be_kept_ends_the_turn(harness: Harness) -> None:
    """Rather than that the agent remembers what nobody else does."""
    shelf = Shelf()
    live = await launch(harness, transcripts=shelf)
    shelf.broken = True
    harness.will_say("unheard")
    await raises(AgentHistoryLost, run_turn(live), "A lost history is a failure.")
    await raises(AgentFailure, run_turn(live), "The agent was stopped.")
    await live.close()
    promise(harness.agent.alive() == 0, "It is gone.")


async def a_launch_key_is_what_a_launch_binds(harness: Harness) -> None:
    """Equal for what differs in its slot alone; another for anything else."""
    spec, other = harness.spec(), harness.spec()
    promise(spec.launch_key() == other.launch_key(), "Two sessions' agents are alike.")
    promise(
        replace(other, token=other.session_id).launch_key() == spec.launch_key(),
        "A token is not bound at launch.",
    )
    different: list[LaunchSpec] = [
        replace(spec, model="other-model"),
        replace(spec, system_prompt="Be kind."),
        replace(spec, tools=()),
        replace(spec, gated=True),
        replace(spec, max_turns=3),
        replace(spec, output_schema={"type": "object"}),
        replace(spec, sub_agents=(SubAgent("helper", "Helps.", "You help."),)),
        replace(spec, directory=spec.workspace / "part"),
        replace(spec, resume=str(uuid4())),
    ]
    keys = {each.launch_key() for each in [spec, *different]}
    promise(len(keys) == 1 + len(different), "What is bound at launch makes another key.")


async def _two_turns(
    harness: Harness, shelf: Shelf | None = None
) -> tuple[Shelf, tuple[str, str | None]]:
    """A history of two turns, its id, and where the first turn ended."""
    shelf = shelf or Shelf()
    live = await launch(harness, transcripts=shelf)
    harness.will_say("first-answer")
    position = end_of(await run_turn(live, "first-question")).position
    harness.will_say("second-answer")
    await run_turn(live, "second-question")
    await live.close()
    return shelf, (live.agent_session_id, position)


CHECKS: tuple[Check, ...] = (
    a_turn_is_kept_when_it_has_finished,
    a_sub_agents_history_is_kept,
    a_history_is_gone_on_with,
    a_missing_history_is_no_fresh_start,
    a_fork_leaves_the_original,
    an_id_in_use_is_not_begun_anew,
    a_history_that_cannot_be_kept_ends_the_turn,
    a_launch_key_is_what_a_launch_binds,
)
