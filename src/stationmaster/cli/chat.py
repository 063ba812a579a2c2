"""`stationmaster chat`: a conversation with an agent, approvals asked in place."""

import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from stationmaster.cli.agents import toolset
from stationmaster.cli.exits import CommandError, Exit
from stationmaster.cli.printing import safe, warn
from stationmaster.cli.target import KeyFileOption, UrlOption, shared_of

if TYPE_CHECKING:
    from stationmaster.cli.conversation import Conversation, Turn
    from stationmaster.client.sessions import SessionClient, SessionEvent

_Send = Callable[[], object]

_NAME = "chat"
_PAGE = 100
HELP = """\
  /interrupt   end the turn under way (so does Ctrl-C)
  /session     the session's id, to come back with --session
  /exit        leave; the session stays (so does Ctrl-D)"""


def chat(
    context: typer.Context,
    *,
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="AGENT_ID", help="Default: one made for this.")
    ] = None,
    session: Annotated[
        str | None, typer.Option("--session", metavar="SESSION_ID", help="Go on with this one.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="Of the agent made for this.")
    ] = "sonnet",
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask before calls of tools (agent made for this).")
    ] = False,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Talk with an agent. Each line is a message; /help tells the rest.

    Ctrl-C ends the agent's turn; at the prompt it leaves. The session stays on the server.
    """
    from stationmaster.client.sessions import SessionClient

    if agent is not None and session is not None:
        raise CommandError("--session has its agent already.", Exit.USAGE)
    with shared_of(context).target(url, key_file).client() as client:
        sessions = SessionClient(client)
        if session is None:
            session = _begin(sessions, agent or _own_agent(sessions, model, ask=not yes))
        found = sessions.get(session)
        warn(f"Session {session} with {safe((found.get('agent') or {}).get('name'))}. /help helps.")
        with sessions.listening(session) as events:
            _Chat(sessions, session, events).run()


def _begin(sessions: "SessionClient", agent: str) -> str:
    environments = sessions.environments(limit=1).items
    environment = environments[0] if environments else sessions.create_environment("default")
    return str(sessions.create(agent, str(environment.get("id"))).get("id"))


def _own_agent(sessions: "SessionClient", model: str, *, ask: bool) -> str:
    """An agent for chats, made once for each choice."""
    name = _NAME if ask else f"{_NAME}-unasked"
    for found in sessions.agents(limit=_PAGE).items:
        if found.get("name") == name and (found.get("metadata") or {}).get("model") == model:
            return str(found.get("id"))
    definition = {
        "name": name,
        "model": model,
        "tools": [toolset(ask=ask)],
        "metadata": {"model": model},
    }
    return str(sessions.create_agent(definition).get("id"))


@dataclass(slots=True)
class _Chat:
    sessions: "SessionClient"
    session_id: str
    events: "Iterator[SessionEvent]"

    def run(self) -> None:
        """Read messages and show answers until one side ends it."""
        from stationmaster.cli.conversation import Conversation

        shown = Conversation(sys.stdout)
        while (line := _read("you> ")) is not None:
            if not line.strip():
                continue
            if line.startswith("/"):
                if not self._command(line.strip()):
                    return
                continue
            said = partial(self.sessions.say, self.session_id, line)
            turn = self._turn(shown, said)
            while turn.waits_for and not turn.over:
                answers = [self._ask(shown, each) for each in turn.waits_for]
                turn = self._turn(shown, partial(self.sessions.send, self.session_id, answers))
            if turn.over:
                return

    def _turn(self, shown: "Conversation", send: _Send) -> "Turn":
        """Send what begins a turn, or lets it go on, and show the turn."""
        with _Interrupting(partial(self.sessions.interrupt, self.session_id)) as ctrl_c:
            send()
            ctrl_c.begun()
            return shown.watch(self.events)

    def _command(self, line: str) -> bool:
        match line:
            case "/exit" | "/quit":
                return False
            case "/session":
                warn(self.session_id)
            case "/interrupt":
                self.sessions.interrupt(self.session_id)
            case _:
                warn(HELP)
        return True

    def _ask(self, shown: "Conversation", event_id: str) -> dict[str, Any]:
        """The answer to one call that waits."""
        from stationmaster.cli.conversation import described

        call = shown.calls.get(event_id)
        if call is not None and call.get("type") == "agent.custom_tool_use":
            warn(described(call))
            text = _read("its result> ") or ""
            return {
                "type": "user.custom_tool_result",
                "custom_tool_use_id": event_id,
                "content": [{"type": "text", "text": text}],
            }
        answer = {"type": "user.tool_confirmation", "tool_use_id": event_id}
        warn(described(call))
        said = (_read("may it? [y/N, or why not] ") or "").strip()
        if said.lower() in {"y", "yes"}:
            return {**answer, "result": "allow"}
        reason = said if said.lower() not in {"", "n", "no"} else "The user said no."
        return {**answer, "result": "deny", "deny_message": reason}


def _read(prompt: str) -> str | None:
    """A line from stdin; None at its end. The prompt is for terminals only."""
    if sys.stdin.isatty():
        sys.stderr.write(prompt)
        sys.stderr.flush()
    line = sys.stdin.readline()
    return line.removesuffix("\n") if line else None


class _Interrupting:
    """While inside, the first Ctrl-C ends the agent's turn; a second one ends this program.

    One that comes before the turn has `begun` ends it then: in the middle of the request that
    begins it, its connection is in use.
    """

    def __init__(self, interrupt: _Send) -> None:
        self._interrupt = interrupt
        self._begun = False
        self._pressed = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def begun(self) -> None:
        """There is a turn to end."""
        self._begun = True
        if self._pressed:
            self._interrupt()

    def _press(self, _number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, self._before)
        warn("Interrupting; Ctrl-C again leaves.")
        self._pressed = True
        if self._begun:
            self._interrupt()
