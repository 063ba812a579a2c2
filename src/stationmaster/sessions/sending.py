"""What a client sends to a session, taken into its book. Inside the callers' transactions."""

from collections.abc import Sequence
from functools import partial

from stationmaster.access.profiles import to_row
from stationmaster.access.roles import is_operator
from stationmaster.budgets.definition import check_tags
from stationmaster.events import Event, NewEvent
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Denied, Exhausted, Invalid
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Principal
from stationmaster.live.bus import Bus
from stationmaster.sessions.approval import Kind
from stationmaster.sessions.approvals import to_answer
from stationmaster.sessions.calls import Answer, answer
from stationmaster.sessions.content import check_content
from stationmaster.sessions.inputs import (
    CustomToolResult,
    Input,
    Interrupt,
    ToolConfirmation,
    ToolResult,
    UserMessage,
)
from stationmaster.sessions.runs import state as states
from stationmaster.sessions.runs.bounds import Shares, check_concurrency, check_kit, is_waiting
from stationmaster.sessions.runs.queue import check_room, one_at_a_time
from stationmaster.sessions.runs.record import Records
from stationmaster.sessions.runs.settlement import Ending, Settlement
from stationmaster.sessions.runs.turns import Turns
from stationmaster.sessions.schema import check_schema
from stationmaster.sessions.session import Session
from stationmaster.sessions.standing import check_usable
from stationmaster.sessions.state import MESSAGE
from stationmaster.sessions.toolset import NAMES, tools_of
from stationmaster.sessions.topics import control_topic
from stationmaster.sessions.work_queue import WorkQueue
from stationmaster.storage import Transaction

INTERRUPT = "user.interrupt"
MAX_INPUTS = 50  # of one request, as the API has it
MAX_WAITING = 100  # messages that wait in one session


def check_inputs(inputs: Sequence[Input], param: str = "events") -> list[Input]:
    """Inputs, looked at before anything is changed. Raises `Invalid` and `TooLarge`."""
    if not 1 <= len(inputs) <= MAX_INPUTS:
        raise Invalid(f"{param} has between 1 and {MAX_INPUTS} entries.", param=param)
    return [_checked(each, f"{param}.{index}") for index, each in enumerate(inputs)]


def _checked(given: Input, at: str) -> Input:
    match given:
        case UserMessage():
            if given.output_schema is not None:
                check_schema(given.output_schema, f"{at}.output_schema")
            content = check_content(given.content, f"{at}.content")
            return UserMessage(content, given.output_schema, check_tags(given.tags))
        case CustomToolResult():
            content = check_content(given.content, f"{at}.content", empty=True)
            return CustomToolResult(given.custom_tool_use_id, content, given.is_error)
        case ToolResult():
            return _result(given, at)
        case ToolConfirmation():
            to_answer(given.allow, given.deny_message, given.input, always=given.always)
    return given


def _result(given: ToolResult, at: str) -> ToolResult:
    """A worker's result. One that cannot be taken becomes an error that the agent is told of.

    The worker would not make another of it: the call would wait until nobody waits any more.
    """
    try:
        content = check_content(given.content, f"{at}.content", empty=True)
    except Invalid as error:
        words = f"The tool's result could not be taken. {error.message}"
        return ToolResult(given.tool_use_id, [{"type": "text", "text": words}], is_error=True)
    return ToolResult(given.tool_use_id, content, given.is_error)


def check_sender(principal: Principal, inputs: Sequence[Input]) -> None:
    """Raise `Denied` where a worker sends anything but what its tools have given."""
    if principal.environment_id is None:
        principal.require("write:sessions")
    elif not all(isinstance(each, ToolResult | CustomToolResult) for each in inputs):
        raise Denied("A worker sends the results of tools alone.")


class Sending:
    """Takes inputs into a session whose row is locked."""

    def __init__(
        self,
        *,
        records: Records,
        settlement: Settlement,
        turns: Turns,
        bus: Bus,
        clock: Clock,
        max_queue: int,
        shares: Shares,
        work: WorkQueue,
    ) -> None:
        self._records = records
        self._settlement = settlement
        self._turns = turns
        self._bus = bus
        self._clock = clock
        self._max_queue = max_queue
        self._shares = shares
        self._work = work

    def take(
        self, tx: Transaction, principal: Principal, session_id: str, inputs: Sequence[Input]
    ) -> list[Event]:
        """Take them all, in order; return the events of the inputs themselves."""
        taken = []
        for each in inputs:
            # Each may have changed the session.
            session = self._records.sessions.get(tx, session_id)
            check_usable(session)
            match each:
                case UserMessage():
                    taken.append(self._say(tx, principal, session, each))
                case Interrupt():
                    taken.append(self._interrupt(tx, session))
                case ToolConfirmation():
                    given = to_answer(each.allow, each.deny_message, each.input, always=each.always)
                    taken += self._answer(
                        tx, principal, session, each.tool_use_id, given, kind="confirmation"
                    )
                case CustomToolResult():
                    given = Answer("answered", content=each.content, is_error=each.is_error)
                    taken += self._answer(
                        tx, principal, session, each.custom_tool_use_id, given, kind="custom_tool"
                    )
                case ToolResult():
                    given = Answer("answered", content=each.content, is_error=each.is_error)
                    taken += self._answer(
                        tx, principal, session, each.tool_use_id, given, kind="tool"
                    )
        return taken

    def _say(
        self, tx: Transaction, principal: Principal, session: Session, message: UserMessage
    ) -> Event:
        if len(session.state.queue) >= MAX_WAITING:
            raise Exhausted(
                f"{MAX_WAITING} messages wait in this session already.",
                code="session_queue_full",
                retry_after=5.0,
            )
        _check_profile(principal, session)
        if session.state.run_id is None:
            check_room(tx, self._max_queue)
        if not self._takes_part(tx, session, principal.key_id):
            one_at_a_time(tx)
            check_concurrency(tx, principal, self._shares)
        data = {
            "id": new_id("sevt"),
            "content": message.content,
            "key_id": principal.key_id,
            "by_owner": is_operator(principal),
        }
        if principal.profile is not None:
            data["held"] = to_row(principal.profile)
        if message.output_schema is not None:
            data["output_schema"] = message.output_schema
        if message.tags:
            data["tags"] = list(message.tags)
        [event] = self._records.sessions.append(tx, session.id, [NewEvent(MESSAGE, data)])
        self._work.ensure(tx, session)
        self._turns.begin(tx, session.id)
        return event

    def _takes_part(self, tx: Transaction, session: Session, key_id: str) -> bool:
        """Whether the session is one of those that count for this credential already."""
        run_id = session.state.run_id
        if run_id is not None and self._records.get(tx, run_id).key_id == key_id:
            return True
        return is_waiting(session.state.queue, key_id)

    def _interrupt(self, tx: Transaction, session: Session) -> Event:
        data = {"id": new_id("sevt")}
        [event] = self._records.sessions.append(tx, session.id, [NewEvent(INTERRUPT, data)])
        run_id = session.state.run_id
        if run_id is None:
            return event
        run = self._records.lock(tx, run_id)
        if run.state.state == "queued":
            self._settlement.end(tx, run, Ending("interrupted"))
        elif not run.state.interrupt_requested:
            wanted = NewEvent(states.INTERRUPT_REQUESTED, {"run_id": run_id})
            self._records.apply(tx, run, [wanted])
            self._wake(tx, run_id)
        return event

    def _answer(
        self,
        tx: Transaction,
        principal: Principal,
        session: Session,
        event_id: str,
        given: Answer,
        *,
        kind: Kind,
    ) -> list[Event]:
        run_id, new = answer(
            tx,
            session,
            event_id,
            kind,
            given,
            by=principal.key_id,
            now=self._clock.now(),
        )
        if not new:
            return []
        event, *_ = self._records.sessions.append(tx, session.id, new)
        self._wake(tx, run_id)
        return [event]

    def _wake(self, tx: Transaction, run_id: str) -> None:
        tx.on_commit(partial(self._bus.publish, control_topic(run_id), "input"))


def _check_profile(principal: Principal, session: Session) -> None:
    """Raise `Denied` where the session's agent has what the caller's profile does not allow."""
    agent = session.state.agent
    if principal.profile is None or agent is None:
        return
    subs = (agent["multiagent"] or {}).get("agents", [])
    every = frozenset(NAMES.values())
    tools = {tool for each in (agent, *subs) for tool in tools_of(each, every)}
    check_kit(
        principal.profile,
        tools=tuple(sorted(tools)),
        sub_agents=tuple(each["name"] for each in subs),
        skills=tuple(each["skill_id"] for each in agent["skills"]),
        mcp_servers=tuple(each["name"] for each in agent["mcp_servers"]),
    )
