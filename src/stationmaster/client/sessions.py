"""Agents, environments and sessions, for plain code.

Anthropic's own SDK is a client for these too: `anthropic.Anthropic(base_url=…, api_key=…).beta`.
This one adds a stream that goes on after a cut, and approvals.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from stationmaster.client.calls import Call
from stationmaster.client.errors import (
    ConnectionFailed,
    LimitReached,
    ServerFailed,
    UnexpectedAnswer,
)
from stationmaster.client.models import Json, Page
from stationmaster.client.reading import Decoder, Frame
from stationmaster.client.retry import backoff
from stationmaster.client.synchronous import Client

_PREVIEWS = {"event_deltas[]": ["agent.message", "agent.thinking"]}
_PASSING = frozenset({"ping", "message"})
PATIENCE_S = 60.0
_HISTORY_PAGE = 500


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """An event of a session. `seq` is its number in the book; None for one that passes by."""

    seq: int | None
    type: str
    data: Json


class SessionClient:
    """Sessions through a `Client`, which stays its owner's to close. Raises `ClientError`s."""

    def __init__(self, client: Client) -> None:
        self._client = client

    # --- agents and environments --------------------------------------------------------------

    def create_agent(self, definition: Json) -> Json:
        """Define an agent, at version 1."""
        return self._post("/v1/agents", definition, repeatable=False)

    def agents(self, *, limit: int, after: str | None = None, archived: bool = False) -> Page[Json]:
        """The project's agents, newest first."""
        return self._page("/v1/agents", limit, after, include_archived=archived)

    def agent(self, agent_id: str, version: int | None = None) -> Json:
        """One agent, at its latest version unless another is named."""
        params = {} if version is None else {"version": str(version)}
        return self._get(_path("agents", agent_id), params)

    def archive_agent(self, agent_id: str) -> Json:
        """Take an agent out of use."""
        return self._post(_path("agents", agent_id, "archive"), None)

    def create_environment(self, name: str) -> Json:
        """Make an environment as this server has them."""
        return self._post("/v1/environments", {"name": name}, repeatable=False)

    def environments(self, *, limit: int, after: str | None = None) -> Page[Json]:
        """The project's environments, newest first."""
        return self._page("/v1/environments", limit, after)

    # --- sessions -----------------------------------------------------------------------------

    def create(self, agent: str, environment: str, *, title: str | None = None) -> Json:
        """Make a session."""
        body = {"agent": agent, "environment_id": environment, "title": title}
        given = {name: value for name, value in body.items() if value is not None}
        return self._post("/v1/sessions", given, repeatable=False)

    def sessions(
        self, *, limit: int, after: str | None = None, archived: bool = False
    ) -> Page[Json]:
        """The project's sessions, newest first."""
        return self._page("/v1/sessions", limit, after, include_archived=archived)

    def get(self, session_id: str) -> Json:
        """One session."""
        return self._get(_path("sessions", session_id))

    def send(self, session_id: str, events: Sequence[Json]) -> list[Json]:
        """Send events. Sent twice they would be there twice."""
        path = _path("sessions", session_id, "events")
        return _list(self._post(path, {"events": list(events)}, repeatable=False))

    def say(self, session_id: str, text: str) -> list[Json]:
        """Send a message."""
        content = [{"type": "text", "text": text}]
        return self.send(session_id, [{"type": "user.message", "content": content}])

    def interrupt(self, session_id: str) -> list[Json]:
        """Ask the turn under way to end."""
        return self.send(session_id, [{"type": "user.interrupt"}])

    def fork(self, session_id: str, *, run_id: str | None = None) -> Json:
        """Make a session that goes on from this one's past: its last turn, or the one named."""
        body = {} if run_id is None else {"run_id": run_id}
        return self._post(_path("sessions", session_id, "fork"), body, repeatable=False)

    def archive(self, session_id: str) -> Json:
        """Take a session out of use. It can still be read."""
        return self._post(_path("sessions", session_id, "archive"), None)

    # --- approvals ----------------------------------------------------------------------------

    def approvals(
        self,
        *,
        limit: int,
        after: str | None = None,
        state: str | None = None,
        session_id: str | None = None,
    ) -> Page[Json]:
        """The project's approvals, newest first."""
        wanted = {"limit": limit, "after": after, "state": state, "session_id": session_id}
        params = {name: str(value) for name, value in wanted.items() if value is not None}
        found = self._get("/v1/approvals", params)
        following = found.get("next")
        items = _list(found, "approvals")
        return Page(items, following if isinstance(following, str) else None)

    def approval(self, approval_id: str) -> Json:
        """One approval."""
        return self._get(_path("approvals", approval_id))

    def decide(self, approval_id: str, decision: Json) -> Json:
        """Answer an approval. Only the first answer counts; another is a `Conflict`."""
        return self._post(_path("approvals", approval_id), decision, repeatable=False)

    # --- events -------------------------------------------------------------------------------

    def history(self, session_id: str) -> Iterator[Json]:
        """Everything that has happened so far, oldest first."""
        path, cursor = _path("sessions", session_id, "events"), None
        while True:
            page = self._page(path, _HISTORY_PAGE, cursor)
            yield from page.items
            if (cursor := page.next_cursor) is None:
                return

    @contextmanager
    def listening(
        self, session_id: str, *, after: int | None = None, patience: float = PATIENCE_S
    ) -> Iterator[Iterator[SessionEvent]]:
        """Follow a session; what is sent inside the block is heard.

        Begins with what comes next, or behind event number `after`. A cut connection is taken up
        again where it was; after `patience` seconds without a sign of life from the server,
        `ConnectionFailed` is raised.
        """
        ear = _Ear(self._client, session_id, after, patience)
        try:
            ear.open()
            yield ear.events()
        finally:
            ear.close()

    # --- sending ------------------------------------------------------------------------------

    def _get(self, path: str, params: dict[str, str] | None = None) -> Json:
        return self._client.call(Call("GET", path, _object, params or {}))

    def _post(self, path: str, body: Json | None, *, repeatable: bool = True) -> Json:
        return self._client.call(Call("POST", path, _object, body=body, repeatable=repeatable))

    def _page(
        self, path: str, limit: int, after: str | None, **params: str | bool | None
    ) -> Page[Json]:
        wanted = {name: _word(value) for name, value in params.items() if value is not None}
        cursor = {} if after is None else {"page": after}
        found = self._get(path, {"limit": str(limit), **cursor, **wanted})
        following = found.get("next_page")
        return Page(_list(found), following if isinstance(following, str) else None)


class _Ear:
    """One listener, over as many connections as it takes."""

    def __init__(self, client: Client, session_id: str, after: int | None, patience: float) -> None:
        self._client = client
        self._path = _path("sessions", session_id, "events/stream")
        self._after = after
        self._patience = patience
        self._answer: httpx.Response | None = None

    def open(self) -> None:
        """Connect. Raises what the server says, `httpx.TransportError` where it says nothing."""
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        if self._after is not None:
            headers["last-event-id"] = str(self._after)
        self._answer = self._client.open(self._path, params=_PREVIEWS, headers=headers)

    def close(self) -> None:
        """Listen no more."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def events(self) -> Iterator[SessionEvent]:
        """What happens, each event once and in order."""
        heard, failures = time.monotonic(), 0
        while True:
            try:
                if self._answer is None:
                    self.open()
                decoder, answer = Decoder(), self._answer
                assert answer is not None
                for chunk in answer.iter_bytes():
                    heard, failures = time.monotonic(), 0
                    for frame in decoder.feed(chunk):
                        if (event := self._event(frame)) is not None:
                            yield event
                reason = "The server closes the stream."
            except (httpx.TransportError, ConnectionFailed) as error:
                reason = self._client.told(error)
            except (ServerFailed, LimitReached) as error:
                reason = error.message
            self.close()
            failures += 1
            pause = backoff(failures)
            if time.monotonic() + pause - heard > self._patience:
                raise ConnectionFailed(f"The session cannot be followed any longer: {reason}")
            time.sleep(pause)

    def _event(self, frame: Frame) -> SessionEvent | None:
        seq = int(frame.id) if frame.id and frame.id.isdigit() else None
        if seq is not None:
            if self._after is not None and seq <= self._after:
                return None
            self._after = seq
        if frame.event in _PASSING:
            return None
        try:
            data = json.loads("\n".join(frame.data))
        except (ValueError, RecursionError):
            raise UnexpectedAnswer("The server sent an event that is not one.") from None
        if not isinstance(data, dict):
            raise UnexpectedAnswer("The server sent an event that is not one.")
        return SessionEvent(seq, frame.event, data)


def _path(kind: str, object_id: str, what: str = "") -> str:
    return f"/v1/{kind}/{quote(object_id, safe='')}" + (f"/{what}" if what else "")


def _word(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value


def _object(answer: httpx.Response) -> Json:
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UnexpectedAnswer("The answer is not a JSON object. Is this a Stationmaster server?")
    return found


def _list(found: Json, name: str = "data") -> list[Json]:
    items: Any = found.get(name)
    if not isinstance(items, list):
        raise UnexpectedAnswer(f"The answer has no list of {name}.")
    return [item for item in items if isinstance(item, dict)]
