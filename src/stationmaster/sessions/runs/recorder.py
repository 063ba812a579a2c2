"""What an agent does, as it stands in the book."""

from dataclasses import dataclass
from typing import Any, Protocol

from stationmaster.agents import base as agents
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.text import scrub
from stationmaster.sessions.approval import Kind
from stationmaster.sessions.calls import Asked
from stationmaster.sessions.forwarding import is_forwarded
from stationmaster.sessions.rules import Action
from stationmaster.sessions.runs import state as states
from stationmaster.sessions.runs.journal import Journal
from stationmaster.sessions.runs.recovery import Recovery
from stationmaster.sessions.threads import Opened, primary_id
from stationmaster.sessions.toolset import API_NAMES

_USES: dict[agents.ToolKind, str] = {
    "tool": "agent.tool_use",
    "sub_agent": "agent.tool_use",
    "custom": "agent.custom_tool_use",
    "mcp": "agent.mcp_tool_use",
}


@dataclass(frozen=True, slots=True)
class Called:
    """A tool call that stands in the book. `thread_id` is that of the sub-agent that made it.

    One that is `forwarded` is run by a worker elsewhere.
    """

    event_id: str
    name: str
    kind: agents.ToolKind
    permission: Action
    thread_id: str | None = None
    forwarded: bool = False

    @property
    def waits(self) -> bool:
        """Whether somebody is asked: for a word, or for the result."""
        return self.permission == "ask" or (self.kind == "custom" and self.permission != "deny")


class Decides(Protocol):
    """See `Rules`."""

    def decide(
        self,
        name: str,
        input_: dict[str, Any],
        *,
        server: str | None = None,
        agent: str | None = None,
    ) -> Action:
        """Whether a call may happen."""
        ...


class TaskRecorder:
    """Writes the events of a task."""

    def __init__(self, journal: Journal) -> None:
        self._add = journal.add
        self._pass_on = journal.pass_on

    def take(self, event: agents.AgentEvent) -> None:
        """Write one event down, but for `Started` and `Finished`."""
        match event:
            case agents.Delta():
                self._pass_on("agent.delta", kind=event.kind, text=event.text)
            case agents.Message():
                content = [{"type": "text", "text": event.text}]
                self._add("agent.message", content=content, **_parent(event.parent))
            case agents.Thinking():
                self._add("agent.thinking", thinking=event.text, **_parent(event.parent))
            case agents.ToolUse():
                self._add(
                    "agent.tool_use",
                    tool_use_id=event.id,
                    name=event.name,
                    input=event.input,
                    **_parent(event.parent),
                )
            case agents.ToolResult():
                self._add(
                    "agent.tool_result",
                    tool_use_id=event.tool_use_id,
                    content=event.content,
                    is_error=event.is_error,
                    **_parent(event.parent),
                )
            case agents.McpFailed():
                self._add("session.error", error=_unconnected(event))


class SessionRecorder:
    """Writes the events of a session's turn, each sub-agent's into a stream of its own.

    A call is written once, whether its `ToolUse` comes first or the question about it.
    """

    def __init__(
        self,
        journal: Journal,
        session_id: str,
        rules: Decides,
        recovery: Recovery | None,
        *,
        patience: float,
    ) -> None:
        """`patience` is how long, in seconds, somebody's answer is waited for."""
        self._journal = journal
        self._primary = primary_id(session_id)
        self._rules = rules
        self._recovery = recovery
        self._patience = patience
        self._calls: dict[str, Called] = {}
        self._threads: dict[str, Opened] = {}
        self._told: set[str] = set()
        self._next: dict[str, str] = {}  # by kind of delta: the id that its message will have

    def take(self, event: agents.AgentEvent) -> None:
        """Write one event down, but for `Started` and `Finished`."""
        match event:
            case agents.Delta():
                self._delta(event)
            case agents.Message():
                content = [{"type": "text", "text": event.text}]
                self._say("agent.message", "text", event.parent, content=content)
            case agents.Thinking():
                self._say("agent.thinking", "thinking", event.parent, thinking=event.text)
            case agents.ToolUse():
                self.called(event)
            case agents.ToolResult():
                self._result(event)
            case agents.McpFailed():
                self._journal.add("session.error", error=_unconnected(event))

    def _delta(self, event: agents.Delta) -> None:
        if event.kind == "tool_input":
            self._journal.pass_on("agent.delta", kind=event.kind, text=event.text)
            return
        id_ = self._next.setdefault(event.kind, new_id("sevt"))
        self._journal.pass_on("agent.delta", kind=event.kind, text=event.text, event_id=id_)

    def _say(self, type_: str, kind: str, parent: str | None, **data: Any) -> None:
        thread = self._thread(parent)
        # Pieces come from the session's own agent alone.
        id_ = None if thread is not None else self._next.pop(kind, None)
        self._journal.add(
            type_,
            stream=None if thread is None else thread.id,
            id=id_ or new_id("sevt"),
            **data,
            **_parent(parent),
        )

    def _thread(self, parent: str | None) -> Opened | None:
        return None if parent is None else self._threads.get(parent)

    # --- calls --------------------------------------------------------------------------------

    def called(self, call: agents.ToolUse | agents.ToolCall) -> Called:
        """The call as it stands in the book, written down if it is not yet."""
        found = self._calls.get(call.id)
        if found is not None:
            return found
        name, thread = _name(call), self._thread(call.parent)
        permission: Action = "allow"
        elsewhere = is_forwarded(call.kind, name)
        if call.kind != "custom" or elsewhere:
            permission = self._rules.decide(
                name,
                call.input,
                server=call.target if call.kind == "mcp" else None,
                agent=None if thread is None else thread.agent_name,
            )
        again = self._recovery and self._recovery.take_up(name, call.input)
        made = Called(
            again or new_id("sevt"),
            name,
            call.kind,
            permission,
            None if thread is None else thread.id,
            elsewhere,
        )
        self._calls[call.id] = made
        if again is None:
            self._write_call(call, made, thread)
        if call.kind == "sub_agent":
            self._open(call, made)
        return made

    def _write_call(
        self, call: agents.ToolUse | agents.ToolCall, made: Called, thread: Opened | None
    ) -> None:
        data: dict[str, Any] = {
            "id": made.event_id,
            "tool_use_id": call.id,
            "name": made.name,
            "input": call.input,
            **_parent(call.parent),
        }
        if call.kind != "custom" or made.forwarded:
            data["evaluated_permission"] = made.permission
        if call.kind == "mcp":
            data["mcp_server_name"] = call.target
        type_ = _USES["tool" if made.forwarded else call.kind]
        asks = self.asked(call, made) if made.waits else None
        if thread is None:
            self._journal.add(type_, asks=asks, **data)
            return
        self._journal.add(type_, stream=thread.id, **data)
        if made.waits:
            # Who answers looks at the session's own stream.
            self._journal.add(type_, asks=asks, **data, session_thread_id=thread.id)

    def asked(self, call: agents.ToolUse | agents.ToolCall, made: Called) -> Asked:
        """The call as somebody is asked about it."""
        return Asked(
            event_id=made.event_id,
            tool_use_id=call.id,
            kind=_waits_for(made),
            name=scrub(made.name),
            input=scrub(call.input),
            patience=self._patience,
            thread_id=made.thread_id,
            forwarded=made.forwarded,
        )

    def told(self, made: Called) -> None:
        """The book has the result of a call that was run elsewhere."""
        self._told.add(made.event_id)

    def _result(self, event: agents.ToolResult) -> None:
        call = self._calls.get(event.tool_use_id)
        thread = self._threads.pop(event.tool_use_id, None)
        if thread is not None:
            self._close(thread, event)
        if call is None:
            return  # of a turn before, told again by a resumed agent
        mcp = call.kind == "mcp"
        # The API tells a custom tool's result as the client sent it, and not a second time.
        own = call.event_id in self._told if call.forwarded else call.kind == "custom"
        again: dict[str, Any] = {"custom": True} if own else {}
        self._journal.add(
            "agent.mcp_tool_result" if mcp else "agent.tool_result",
            stream=call.thread_id,
            **again,
            id=new_id("sevt"),
            tool_use_event_id=call.event_id,
            tool_use_id=event.tool_use_id,
            content=event.content,
            is_error=event.is_error,
            **_parent(event.parent),
        )

    # --- threads ------------------------------------------------------------------------------

    def _open(self, call: agents.ToolUse | agents.ToolCall, made: Called) -> None:
        name = call.target or str(call.input.get("subagent_type") or "agent")
        thread = Opened(new_id("sthr"), name, call.id)
        self._threads[call.id] = thread
        content = [{"type": "text", "text": str(call.input.get("prompt", ""))}]
        self._journal.open_thread(thread)
        self._journal.add(
            "agent.thread_message_sent",
            id=new_id("sevt"),
            to_session_thread_id=thread.id,
            to_agent_name=name,
            content=content,
        )
        self._journal.add(
            "agent.thread_message_received",
            stream=thread.id,
            id=new_id("sevt"),
            from_session_thread_id=self._primary,
            content=content,
        )

    def _close(self, thread: Opened, result: agents.ToolResult) -> None:
        content = result.content
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        self._journal.add(
            "agent.thread_message_sent",
            stream=thread.id,
            id=new_id("sevt"),
            to_session_thread_id=self._primary,
            content=blocks,
        )
        self._journal.close_thread(thread)
        self._journal.add(
            "agent.thread_message_received",
            id=new_id("sevt"),
            from_session_thread_id=thread.id,
            from_agent_name=thread.agent_name,
            content=blocks,
        )


def ready(journal: Journal, event: agents.Started, **where: str) -> None:
    """Write down which agent serves the run, and `where`: how it is confined, by which login."""
    journal.add(
        states.AGENT_READY,
        agent={
            "name": where.pop("name"),
            "version": event.version,
            "session_id": event.agent_session_id,
            "model": event.model,
            "tools": list(event.tools),
            **where,
        },
    )


def _waits_for(made: Called) -> Kind:
    if made.kind != "custom" or (made.forwarded and made.permission == "ask"):
        return "confirmation"
    return "tool" if made.forwarded else "custom_tool"


def _name(call: agents.ToolUse | agents.ToolCall) -> str:
    """A tool's name as the API has it."""
    if call.kind == "mcp" and call.target is not None:
        return call.name.removeprefix(f"mcp__{call.target}__")
    return API_NAMES.get(call.name, call.name) if call.kind == "tool" else call.name


def _unconnected(failure: agents.McpFailed) -> dict[str, Any]:
    return {
        "code": "mcp_connection_failed",
        "message": failure.reason,
        "mcp_server_name": failure.server,
    }


def _parent(parent: str | None) -> dict[str, Any]:
    return {} if parent is None else {"parent_tool_use_id": parent}
