"""Sessions of the real agent on a server that is killed again and again: no turn is lost."""

import asyncio
import faulthandler
import json
import os
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import anthropic
import pytest
from claude_agent_sdk import SessionKey, SessionStoreEntry, get_session_messages_from_store

from stationmaster.kernel.clock import SystemClock
from stationmaster.kernel.principal import Owner
from stationmaster.storage import open_database
from stationmaster.transcripts import OwnedStore, Transcripts
from tests.http import managed
from tests.http.managed import ASK, TOOLSET
from tests.support.books import (
    assert_ended_once,
    assert_nothing_open,
    ledger_cost,
    query,
    served_cost,
)
from tests.support.sdk import sdk
from tests.support.server import ADMIN_KEY, ServerProcess
from tests.support.wire_upstream import (
    Json,
    Reply,
    Script,
    Text,
    Tool,
    Usage,
    WireUpstream,
    tool_results,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(3600)]

# The long form is CRASH_SESSIONS=20 CRASH_TURNS=10 CRASH_KILLS=60; a run is repeated by its seed.
SESSIONS = int(os.environ.get("CRASH_SESSIONS", "4"))
TURNS = int(os.environ.get("CRASH_TURNS", "4"))
KILLS = int(os.environ.get("CRASH_KILLS", "4"))
SEED = int(os.environ.get("CRASH_SEED", "7"))
IDLE = 100
TALKED = int(os.environ.get("CRASH_IDLE_TURNS", "4"))  # of the idle ones have had a turn
EVENTS = 12  # of a turn, about
MOST_LOST = 2  # servers that may be lost with one turn; the third would end it
LOST = "was lost in the middle of this turn"
USAGE = Usage(200, 20, 100, 50)


def model(request: Json) -> Reply:
    """Writes each message's word into a file; after a crash, only if that had not begun."""
    word, lost, begun, since = "", False, False, 0
    for message in request["messages"]:
        content = message["content"]
        since += len(tool_results({"messages": [message]}))
        begun = begun or any(word and word in use for use in _uses(content))
        for text in _words(content) if message["role"] == "user" else ():
            if "Write word-" in text:
                word, lost, begun, since = text.split()[1], False, False, 0
            elif LOST in text:
                lost, since = True, 0
                begun = begun or word in text
    done = since or (lost and begun)
    if done or not word or not request.get("tools"):
        return Reply((Text(f"It is written: {word}."),), USAGE)
    return Reply((Tool("Bash", {"command": f"echo {word} >> words.txt"}),), USAGE)


def _uses(content: Any) -> list[str]:
    blocks = [] if isinstance(content, str) else content
    return [str(block["input"]) for block in blocks if block.get("type") == "tool_use"]


def _words(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [str(block.get("text", "")) for block in content if block.get("type") == "text"]


@dataclass(frozen=True)
class Town:
    """A server with the real agent, an upstream and sessions that are alike."""

    server: ServerProcess
    upstream: WireUpstream
    client: anthropic.AsyncAnthropic
    sessions: Sequence[str]

    async def send(self, session_id: str, *events: Any) -> None:
        await self.client.beta.sessions.events.send(session_id, events=list(events))

    async def crash(self) -> None:
        """Kill the server and start it again; what ran for the old one is gone then."""
        before = set(self.server.agent_processes())
        await self.server.kill()
        before |= set(self.server.agent_processes())

        async def gone() -> None:
            async with asyncio.timeout(5):
                while before & set(self.server.agent_processes()):
                    await asyncio.sleep(0.1)

        await asyncio.gather(self.server.start(), gone())

    async def all_ended(self, turns: int, *, of: str = "%") -> None:
        """Wait until so many turns have ended, of all sessions or of one."""
        ended = "SELECT count(*) FROM runs WHERE ended_at IS NOT NULL AND session_id LIKE ?"
        async with asyncio.timeout(60 + 10 * turns):
            while query(self.server.data_dir, ended, of) != [(turns,)]:
                lost = "SELECT id FROM sessions WHERE status = 'terminated'"
                assert query(self.server.data_dir, lost) == []
                await asyncio.sleep(0.05)


@asynccontextmanager
async def town(
    directory: Path, script: Script, toolset: Any, sessions: int, **settings: str
) -> AsyncIterator[Town]:
    async with WireUpstream(script) as upstream:
        env = {
            "ANTHROPIC_API_KEY": "sk-ant-server-key-for-tests",
            "ANTHROPIC_BASE_URL": upstream.url,
            "AGENT_POOL_SIZE": "0",
            **settings,
        }
        async with ServerProcess(directory, env) as server, sdk(server.url, ADMIN_KEY) as client:
            agent = await client.beta.agents.create(
                name="Writer", model="claude-haiku-4-5", tools=[toolset]
            )
            box = await client.beta.environments.create(name="box")
            made = [
                await client.beta.sessions.create(agent=agent.id, environment_id=box.id)
                for _ in range(sessions)
            ]
            yield Town(server, upstream, client, [session.id for session in made])
            assert await server.stop() == 0
            await server.no_agents_left()


def order(word: str) -> Any:
    """What the models here understand."""
    return managed.text(f"Write {word} down.")


# --- killed at random moments -------------------------------------------------------------------


async def test_sessions_outlive_a_server_that_is_killed(tmp_path: Path) -> None:
    print(f"CRASH_SEED={SEED}")  # noqa: T201 (a failure is repeated by it)
    faulthandler.cancel_dump_traceback_later()  # pytest's would end the long form half-way
    chance = random.Random(SEED)
    # Of two hundred turns the last wait long, and all the longer for each kill.
    async with town(tmp_path, model, TOOLSET, SESSIONS, QUEUE_TIMEOUT="1h") as there:
        data_dir = there.server.data_dir
        for number, session_id in enumerate(there.sessions):
            for turn in range(TURNS):
                await there.send(session_id, order(f"word-{number}-{turn}"))
        kills = 0
        while kills < KILLS and await _moment(data_dir, chance):
            await there.crash()
            kills += 1
        assert kills > KILLS // 2, "it was not killed often enough to show anything"
        await there.all_ended(SESSIONS * TURNS)
        assert_ended_once(data_dir)
        assert_nothing_open(data_dir)
        for number, session_id in enumerate(there.sessions):
            wanted = [f"word-{number}-{turn}" for turn in range(TURNS)]
            _check_turns(data_dir, session_id, wanted)
            await _check_histories(data_dir, session_id)
            _check_deeds(data_dir, session_id, wanted)
        total, lost = ledger_cost(data_dir)
        served = served_cost(there.upstream.message_calls)
        assert served <= total <= served + lost


async def _moment(data_dir: Path, chance: random.Random) -> bool:
    """Wait for some moment of the sessions' work: so many events from now, and a little more.

    False where every turn has ended before.
    """
    spread = SESSIONS * TURNS * EVENTS // (KILLS + 1)
    count = "SELECT count(*) FROM events"
    [[now]] = query(data_dir, count)
    until = now + chance.randrange(1, spread)
    at_work = "SELECT coalesce(max(lost), -1) FROM runs WHERE ended_at IS NULL"
    async with asyncio.timeout(300):
        while True:
            [[events]], [[lost]] = query(data_dir, count), query(data_dir, at_work)
            if lost < 0:
                return False
            if events >= until and lost < MOST_LOST:
                break
            await asyncio.sleep(0.005)
    # Between two events, too.
    await asyncio.sleep(chance.uniform(0, 0.1))
    return True


def _check_turns(data_dir: Path, session_id: str, wanted: Sequence[str]) -> None:
    """Each message has had one turn, in order, and each turn came to its end."""
    turns = query(
        data_dir,
        "SELECT json_extract(m.data, '$.content[0].text'), r.state FROM runs r"
        " JOIN events m ON m.stream_id = r.session_id AND m.type = 'user.message'"
        " AND json_extract(m.data, '$.id') = r.message_id WHERE r.session_id = ? ORDER BY r.id",
        session_id,
    )
    assert turns == [(f"Write {word} down.", "completed") for word in wanted]


async def _check_histories(data_dir: Path, session_id: str) -> None:
    """What the agent's SDK reads of the session is what the book says."""
    book, history = (
        _by_turn(_told(data_dir, session_id)),
        _by_turn(await _read(data_dir, session_id)),
    )
    cut = query(data_dir, "SELECT lost FROM runs WHERE session_id = ? ORDER BY id", session_id)
    for [lost], in_book, in_history in zip(cut, book, history, strict=True):
        if lost:  # what was said at the very end of a life may have been said again
            assert _once(in_book) == _once(in_history)
        else:
            assert in_book == in_history
            assert len(in_book) == 2


def _by_turn(said: Iterable[tuple[str, str]]) -> list[list[str]]:
    turns: list[list[str]] = []
    for role, text in said:
        if role == "user":
            turns.append([])
        turns[-1].append(text)
    return turns


def _once(said: Sequence[str]) -> list[str]:
    return [text for text, _ in groupby(said)]


def _told(data_dir: Path, session_id: str) -> list[tuple[str, str]]:
    """Who has said what, by the book; a message stands where its turn begins."""
    events = query(
        data_dir, "SELECT type, data FROM events WHERE stream_id = ? ORDER BY seq", session_id
    )
    messages: dict[str, str] = {}
    said: list[tuple[str, str]] = []
    for kind, raw in events:
        data = json.loads(raw)
        if kind == "user.message":
            [messages[data["id"]]] = _words(data["content"])
        elif kind == "run.queued":
            said.append(("user", messages[data["message_id"]]))
        elif kind == "agent.message":
            said += [("assistant", text) for text in _words(data["content"])]
    return said


async def _read(data_dir: Path, session_id: str) -> list[tuple[str, str]]:
    """The same, as the SDK reads it; without the notes of crashes, its own and ours."""
    [[organization, project, history]] = query(
        data_dir,
        "SELECT organization_id, project_id, history FROM sessions WHERE id = ?",
        session_id,
    )
    database = open_database(f"sqlite:///{data_dir / 'stationmaster.db'}")
    try:
        kept = Transcripts(database, SystemClock(), max_size=2**30)
        store = OfSession(kept, Owner(organization, project), session_id)
        messages = await get_session_messages_from_store(store, history)
    finally:
        await database.close()
    return [
        (message.type, text)
        for message in messages
        if message.message.get("model") != "<synthetic>"
        for text in _words(message.message["content"])
        if LOST not in text
    ]


class OfSession(OwnedStore):
    """The store as its SDK reads it: what that takes for a directory is our session."""

    def __init__(self, transcripts: Transcripts, owner: Owner, session_id: str) -> None:
        super().__init__(transcripts, owner)
        self._session_id = session_id

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        return await super().load({**key, "project_key": self._session_id})


def _check_deeds(data_dir: Path, session_id: str, wanted: Sequence[str]) -> None:
    """What was cut at a call has happened or not; nothing has happened twice."""
    written = _written(data_dir, session_id)
    assert written == [word for word in wanted if word in written]
    assert len(wanted) - len(written) <= _unknown(data_dir, session_id)


def _written(data_dir: Path, session_id: str) -> list[str]:
    [[workspace]] = query(data_dir, "SELECT workspace FROM sessions WHERE id = ?", session_id)
    file = Path(workspace) / "words.txt"
    return file.read_text().split() if file.exists() else []


def _unknown(data_dir: Path, session_id: str) -> int:
    [[number]] = query(
        data_dir,
        "SELECT count(*) FROM events WHERE stream_id = ? AND type = 'agent.tool_result'"
        " AND json_extract(data, '$.outcome') = 'unknown'",
        session_id,
    )
    return int(number)


# --- killed while somebody is waited for --------------------------------------------------------


def obedient(request: Json) -> Reply:
    """Makes its call again where it is told that it has not happened."""
    said = [
        text
        for message in request["messages"]
        if message["role"] == "user"
        for text in _words(message["content"])
        if "Write word" in text or LOST in text
    ]
    last = request["messages"][-1]
    if tool_results({"messages": [last]}) or not said or not request.get("tools"):
        return Reply((Text("It is written."),))
    if LOST in said[-1] and "did not happen" not in said[-1]:
        return Reply((Text("I had better look first."),))
    return Reply((Tool("Bash", {"command": "echo once >> words.txt"}),))


async def test_an_approval_outlives_the_server_that_asked(tmp_path: Path) -> None:
    async with town(tmp_path, obedient, ASK, 3) as there:
        data_dir = there.server.data_dir
        at_once, later, cut = there.sessions
        for session_id in there.sessions:
            await there.send(session_id, order("word"))
        asked = {each: await _asked(data_dir, each, times=1) for each in there.sessions}
        await there.crash()
        await _answer(there, at_once, asked[at_once])  # perhaps before anybody has the turn again
        assert await _asked(data_dir, later, times=2) == asked[later]
        await _answer(there, later, asked[later])
        await there.all_ended(1, of=at_once)
        await there.all_ended(1, of=later)
        assert await _asked(data_dir, cut, times=2) == asked[cut]
        await _answer(there, cut, asked[cut])
        await there.crash()  # the agent has been told of the answer, or not
        await there.all_ended(3)
        for session_id in (at_once, later):
            assert _written(data_dir, session_id) == ["once"]
        assert len(_written(data_dir, cut)) <= 1
        assert _written(data_dir, cut) or _unknown(data_dir, cut) == 1
        assert query(data_dir, "SELECT state FROM approvals") == [("allowed",)] * 3
        answers = "SELECT count(*) FROM events WHERE type = 'user.tool_confirmation'"
        assert query(data_dir, answers) == [(3,)]
        assert query(data_dir, "SELECT state FROM runs") == [("completed",)] * 3
        assert_ended_once(data_dir)
        assert_nothing_open(data_dir)


async def _asked(data_dir: Path, session_id: str, *, times: int) -> str:
    """The call that the session waits with, once it has said so for the `times`-th time."""
    idle = (
        "SELECT json_extract(data, '$.stop_reason.event_ids') FROM events"
        " WHERE stream_id = ? AND type = 'session.status_idle' ORDER BY seq"
    )
    async with asyncio.timeout(120):
        while len(found := query(data_dir, idle, session_id)) < times:
            await asyncio.sleep(0.05)
    [event_id] = json.loads(found[times - 1][0])
    return str(event_id)


async def _answer(there: Town, session_id: str, event_id: str) -> None:
    """Four answer at the same time: one of them does."""
    word: Any = {"type": "user.tool_confirmation", "tool_use_id": event_id, "result": "allow"}
    said = await asyncio.gather(
        *(there.send(session_id, word) for _ in range(4)), return_exceptions=True
    )
    assert [each for each in said if each is None] == [None]
    late = [each for each in said if each is not None]
    assert [type(each) for each in late] == [anthropic.ConflictError] * 3


# --- idle ---------------------------------------------------------------------------------------


async def test_a_hundred_idle_sessions_cost_rows_and_no_processes(tmp_path: Path) -> None:
    settings = {"AGENT_POOL_SIZE": "1", "AGENT_POOL_IDLE_TIME": "1s"}
    async with town(tmp_path, model, TOOLSET, IDLE, **settings) as there:
        await there.send(there.sessions[0], order("word-0-0"))
        await there.all_ended(1)
        await _only_warm(there.server)
        await asyncio.sleep(2)  # what ended has been reaped
        one_warm = len(there.server.agent_processes())
        assert one_warm > 0
        for session_id in there.sessions[1:TALKED]:
            await there.send(session_id, order("word-1-0"))
        await there.all_ended(TALKED)
        await _only_warm(there.server)
        async with asyncio.timeout(60):  # ended ones close in their own time
            while len(there.server.agent_processes()) > one_warm:
                await asyncio.sleep(0.1)
        assert query(there.server.data_dir, "SELECT status, count(*) FROM sessions") == [
            ("idle", IDLE)
        ]
        # Each goes on as if its process had waited.
        await there.send(there.sessions[0], order("word-0-1"))
        await there.all_ended(TALKED + 1)
        assert _written(there.server.data_dir, there.sessions[0]) == ["word-0-0", "word-0-1"]
        await _check_histories(there.server.data_dir, there.sessions[0])


async def _only_warm(server: ServerProcess) -> None:
    """Wait until no session has a process, and one is warm for the next."""
    wanted = {"alive": 1, "warm": 1, "idle": 0, "busy": 0}
    async with asyncio.timeout(60):
        while True:
            health = (await server.client.get("/health")).json()["services"]["agents"]
            if wanted == {name: health[name] for name in wanted}:
                return
            await asyncio.sleep(0.1)
