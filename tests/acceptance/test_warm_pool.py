"""The pool with the real agent: taken warm, kept, restored from its stored history, never left."""

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from stationmaster.access import Resolver, RunTokens
from stationmaster.access.secret import Hasher
from stationmaster.agents.base import Finished, LaunchSpec, McpServer
from stationmaster.agents.claude_code import ClaudeCodeAgent
from stationmaster.agents.claude_code.processes import read_table
from stationmaster.agents.pool import Pool
from stationmaster.agents.slots import PoolLimits, Seat
from stationmaster.bootstrap.pooling import SessionPlaces
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.principal import Owner
from stationmaster.sessions.runs.workspace import Workspaces
from stationmaster.storage import Database
from stationmaster.transcripts import HistoryKey, SessionSink, Transcripts
from tests.support import wire_upstream as wire
from tests.support.pools import pool_of

# Seconds by which this process tells what its own tests left running from what others' did.
_NAP = f"4711.{os.getpid():07}"

# A tool server that counts its calls: one that was started again begins anew.
_COUNTER = """
import json, sys
number = 0
for line in sys.stdin:
    said = json.loads(line)
    if said.get("method") == "initialize":
        result = {"protocolVersion": said["params"]["protocolVersion"],
            "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}
    elif said.get("method") == "tools/list":
        result = {"tools": [{"name": "next", "description": "Counts.",
            "inputSchema": {"type": "object"}}]}
    elif said.get("method") == "tools/call":
        number += 1
        result = {"content": [{"type": "text", "text": f"counted {number}"}]}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": said["id"], "result": result}), flush=True)
"""
ALICE = Owner("org_a", "proj_a")
MIB = 1024**2
START_SECONDS = 60

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(
        shutil.which("bwrap") is None and os.environ.get("CI") != "true",
        reason="bubblewrap is not installed",
    ),
]


@dataclass(slots=True)
class Depot:
    """A pool of the real agent, which answers as its upstream's script says."""

    top: Path
    agent: ClaudeCodeAgent
    upstream: wire.WireUpstream
    pool: Pool
    transcripts: Transcripts

    def spec(self, session: str) -> LaunchSpec:
        assert self.upstream.socket_path is not None
        nowhere = self.top / "nowhere"
        return LaunchSpec(
            session_id=session,
            workspace=nowhere,
            home=nowhere,
            gateway_socket=self.upstream.socket_path,
            gateway_url=self.upstream.url,
            token="",
            model="claude-sonnet-4-5",
            transcripts=SessionSink(self.transcripts, ALICE, session),
        )

    async def warm(self, *, but: int = 0) -> None:
        """Have one more than `but` warm."""
        self.pool.expect(self.spec("none"))
        async with asyncio.timeout(START_SECONDS):
            while self.pool.stats().warm <= but:
                await self.pool.tend()
                await asyncio.sleep(0.02)

    async def say(self, seat: Seat, text: str) -> str:
        """One turn; what the agent said."""
        events = [event async for event in seat.live.turn([{"type": "text", "text": text}])]
        assert isinstance(events[-1], Finished)
        assert events[-1].outcome == "success"
        return events[-1].text


@pytest.fixture
def top() -> Iterator[Path]:
    # Not pytest's own: the socket's path and what an agent may pass through are short and open.
    directory = Path(tempfile.mkdtemp(prefix="depot-")).resolve()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def sandbox() -> Literal["require", "off"]:
    return "require"


@pytest.fixture
async def depot(
    top: Path, database: Database, sandbox: Literal["require", "off"]
) -> AsyncIterator[Depot]:
    hasher, clock = Hasher(b"pepper-of-the-test"), ManualClock()
    tokens = RunTokens(hasher, clock, forget=Resolver(database, hasher, clock).forget)
    async with wire.WireUpstream(wire.fixed(wire.text("hello")), unix=True) as upstream:
        agent = ClaudeCodeAgent(state_dir=top / "state", sandbox=sandbox)
        pool = pool_of(agent, database, tokens, top, PoolLimits(size=1))
        yield Depot(top, agent, upstream, pool, Transcripts(database, clock, max_size=10**8))
        await pool.aclose()
        assert agent.alive() == 0
        await agent.aclose()


async def test_a_session_lives_on_a_warm_process_and_goes_on_without_it(depot: Depot) -> None:
    await depot.warm()
    session = "sesn_1"
    spec = depot.spec(session)
    seat = await depot.pool.take(session, spec, fresh=True)
    assert seat.source == "warm"
    depot.upstream.script = wire.write_run_read
    await depot.say(seat, "Write, run and read a program.")
    assert [path.name for path in seat.workspace.iterdir()] != []
    assert {call.headers["Authorization"] for call in depot.upstream.message_calls} == {
        f"Bearer {seat.token}"
    }
    assert 50 * MIB < await asyncio.to_thread(seat.live.memory) < 2000 * MIB
    history = seat.live.agent_session_id
    stored = await depot.transcripts.load(ALICE, HistoryKey(session, history))
    assert stored is not None
    assert {each["sessionId"] for each in stored if "sessionId" in each} == {history}

    await depot.pool.keep(session, seat)
    depot.upstream.script = wire.fixed(wire.text("still here"))
    later = replace(spec, workspace=seat.workspace, home=seat.home, resume=history)
    again = await depot.pool.take(session, later, fresh=False)
    assert again.live is seat.live
    assert await depot.say(again, "And now?") == "still here"

    await depot.pool.drop(session)
    cold = await depot.pool.take(session, later, fresh=False)
    assert (cold.source, cold.live.agent_session_id) == ("cold", history)
    calls = len(depot.upstream.message_calls)
    await depot.say(cold, "Do you remember?")
    asked = str(depot.upstream.message_calls[calls].body["messages"])
    assert "Write, run and read a program." in asked
    assert "still here" in asked
    await depot.pool.drop(session)
    assert seat.workspace.is_dir()


async def test_getting_ready_leaves_nothing_in_the_history(depot: Depot) -> None:
    await depot.warm()
    assert {call.path for call in depot.upstream.calls} == {"/v1/messages/count_tokens"}
    asked = []
    for session in ("sesn_1", "sesn_2"):
        seat = await depot.pool.take(session, depot.spec(session), fresh=True)
        assert await depot.say(seat, "Say hello.") == "hello"
        asked.append((seat.source, depot.upstream.message_calls[-1].body["messages"]))
        stored = await depot.transcripts.load(
            ALICE, HistoryKey(session, seat.live.agent_session_id)
        )
        assert stored is not None
        assert "context" not in {each.get("subtype") for each in stored}
        await depot.pool.drop(session)
    (first, warm), (second, cold) = asked
    assert (first, second) == ("warm", "cold")
    assert _words(warm) == _words(cold)


def _words(messages: list[dict[str, Any]]) -> list[str]:
    """What a model reads, but for the directory, which is each agent's own."""
    return [re.sub(r"slot_\w+", "SLOT", json.dumps(each)) for each in messages]


@pytest.mark.parametrize("sandbox", ["require", "off"])
async def test_what_a_turn_leaves_running_is_ended_and_the_session_goes_on(depot: Depot) -> None:
    seat = await depot.pool.take("sesn_1", depot.spec("sesn_1"), fresh=True)
    command = (
        f"(setsid nohup sleep {_NAP} >/dev/null 2>&1 &) ; (sleep {_NAP} &) >/dev/null 2>&1;"
        " echo begun"
    )
    use = wire.Reply((wire.Tool("Bash", {"command": command}),))
    depot.upstream.script = wire.steps(use, wire.text("done"))
    await depot.say(seat, "Go.")
    assert len(_sleepers()) == 2
    await depot.pool.keep("sesn_1", seat)
    assert _sleepers() == []
    again = await depot.pool.take("sesn_1", depot.spec("sesn_1"), fresh=False)
    assert again.live is seat.live
    depot.upstream.script = wire.steps(
        wire.Reply((wire.Tool("Bash", {"command": "echo $((6*7)) > made.txt"}),)), wire.text("well")
    )
    assert await depot.say(again, "And now?") == "well"
    assert (seat.workspace / "made.txt").read_text() == "42\n"


async def test_a_tool_server_outlives_a_turn_and_what_it_left(depot: Depot) -> None:
    server = McpServer("count", "/usr/bin/python3", ("-c", _COUNTER))
    spec = replace(depot.spec("sesn_1"), mcp_servers=(server,))
    seat = await depot.pool.take("sesn_1", spec, fresh=True)
    for number in (1, 2):
        leave = wire.Tool("Bash", {"command": f"(setsid sleep {_NAP} >/dev/null 2>&1 &)"})
        counted = wire.Tool("mcp__count__next", {})
        depot.upstream.script = wire.steps(
            wire.Reply((leave,)), wire.Reply((counted,)), wire.text("done")
        )
        await depot.say(seat, "Count.")
        last = depot.upstream.message_calls[-1].body["messages"]
        assert f"counted {number}" in str(last)
        await depot.pool.keep("sesn_1", seat)
        assert _sleepers() == []
        seat = await depot.pool.take("sesn_1", spec, fresh=False)
        assert seat.source == "kept"


async def test_a_warm_agent_that_is_killed_is_replaced(depot: Depot) -> None:
    await depot.warm()
    before = _agents(depot)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(START_SECONDS):
        while depot.pool.stats().warm:
            await depot.pool.tend()
            await asyncio.sleep(0.02)
    await depot.warm()
    seat = await depot.pool.take("sesn_1", depot.spec("sesn_1"), fresh=True)
    assert seat.source == "warm"
    assert await depot.say(seat, "Hello?") == "hello"
    assert before.isdisjoint(_agents(depot))
    assert [path.name for path in (depot.top / "state" / "homes").iterdir()] == [seat.home.name]


async def test_a_copied_history_is_gone_on_with_from_a_past_turn(
    depot: Depot, database: Database
) -> None:
    spec = depot.spec("sesn_1")
    seat = await depot.pool.take("sesn_1", spec, fresh=True)
    depot.upstream.script = wire.fixed(wire.text("the first answer"))
    await depot.say(seat, "The first question")
    key = HistoryKey("sesn_1", seat.live.agent_session_id)
    stored = await depot.transcripts.load(ALICE, key)
    assert stored is not None
    position = [each["uuid"] for each in stored if each["type"] == "assistant"][-1]
    depot.upstream.script = wire.fixed(wire.text("the second answer"))
    await depot.say(seat, "The second question")
    await depot.pool.drop("sesn_1")

    fork = await depot.transcripts.copy(ALICE, key, up_to=position)
    await database.write(lambda tx: depot.transcripts.put(tx, ALICE, "sesn_2", fork))
    workspace, home = depot.top / "workspaces" / "sessions" / "sesn_2", depot.top / "home-2"
    for directory in (workspace, home):
        directory.mkdir(mode=0o700)
    copy = replace(depot.spec("sesn_2"), workspace=workspace, home=home, resume=fork.history_id)
    other = await depot.pool.take("sesn_2", copy, fresh=False)
    calls = len(depot.upstream.message_calls)
    assert await depot.say(other, "Another question") == "the second answer"
    asked = str(depot.upstream.message_calls[calls].body["messages"])
    assert "the first answer" in asked
    assert "The second question" not in asked


async def test_a_killed_server_leaves_no_warm_agent_and_no_directory(depot: Depot) -> None:
    program = f"""
import asyncio
from pathlib import Path
from stationmaster.agents.base import LaunchSpec
from stationmaster.agents.claude_code import ClaudeCodeAgent
from stationmaster.agents.pool import Pool
from stationmaster.agents.slots import PoolLimits
from stationmaster.bootstrap.pooling import SessionPlaces
from stationmaster.sessions.runs.workspace import Workspaces

class Tokens:
    async def issue(self): return "tok_1", "secret"
    async def revoke(self, token_id): pass

async def main():
    top = Path({str(depot.top)!r})
    agent = ClaudeCodeAgent(state_dir=top / "state", sandbox="require")
    places = SessionPlaces(Workspaces(top / "workspaces"), top / "state")
    pool = Pool(agent, Tokens(), places, PoolLimits())
    pool.expect(LaunchSpec("s", top, top, Path({str(depot.upstream.socket_path)!r}),
        {depot.upstream.url!r}, "", "claude-sonnet-4-5"))
    while not pool.stats().warm:
        await pool.tend()
        await asyncio.sleep(0.02)
    print("warm", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": "/usr/bin:/bin"},
    )
    assert server.stdout is not None
    async with asyncio.timeout(START_SECONDS):
        assert await server.stdout.readline() == b"warm\n"
    assert depot.agent.alive() == 1
    server.send_signal(signal.SIGKILL)
    await server.wait()
    async with asyncio.timeout(5):
        while depot.agent.alive():
            await asyncio.sleep(0.02)
    assert await depot.agent.reap() == 0
    homes, spaces = depot.top / "state" / "homes", depot.top / "workspaces" / "sessions"
    assert len(list(homes.iterdir())) == len(list(spaces.iterdir())) == 1
    places = SessionPlaces(Workspaces(depot.top / "workspaces"), depot.top / "state")
    assert await asyncio.to_thread(places.sweep) == 1
    assert list(homes.iterdir()) == list(spaces.iterdir()) == []


def _agents(depot: Depot) -> set[int]:
    """The agents' processes below this one."""
    table = read_table()
    mine = {os.getpid()}
    while more := {pid for pid, each in table.items() if each.parent in mine} - mine:
        mine |= more
    return {
        pid
        for pid in mine - {os.getpid()}
        if b"/claude" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    }


def _sleepers() -> list[int]:
    """Processes that a turn of the test has left behind, wherever they are."""
    found = []
    for pid, each in read_table().items():
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if each.alive and words == [b"sleep", _NAP.encode(), b""]:
                found.append(pid)
    return found
