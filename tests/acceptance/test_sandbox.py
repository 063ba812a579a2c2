"""Attempts to break out: the real agent, whose model orders hostile commands, in the real sandbox.

Each test is about one thing an agent must not reach, and looks from the server's side as well.
"""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from stationmaster.agents.base import (
    AgentEvent,
    AgentHistoryMissing,
    AgentLimitExceeded,
    Finished,
    LaunchSpec,
    Limits,
    LiveAgent,
    Started,
    ToolResult,
)
from stationmaster.agents.claude_code import ClaudeCodeAgent
from stationmaster.agents.claude_code.processes import read_table
from tests.support import wire_upstream as wire

CANARY = "canary-7f1c9b2e"
_UID_BASE = 64_500 + 2_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(
        shutil.which("bwrap") is None and os.environ.get("CI") != "true",
        reason="bubblewrap is not installed",
    ),
]


@dataclass(slots=True)
class Yard:
    """A server's directory with a secret in it, and agents that work beside it."""

    top: Path
    agent: ClaudeCodeAgent
    upstream: wire.WireUpstream
    numbers: Iterator[int]

    @property
    def database(self) -> Path:
        return self.top / "data" / "stationmaster.db"

    def spec(self, limits: Limits | None = None) -> LaunchSpec:
        session = self.top / f"session-{next(self.numbers)}"
        for name in ("workspace", "home"):
            (session / name).mkdir(parents=True)
        assert self.upstream.socket_path is not None
        return LaunchSpec(
            session_id=session.name,
            workspace=session / "workspace",
            home=session / "home",
            gateway_socket=self.upstream.socket_path,
            gateway_url=self.upstream.url,
            token="run-token",
            model="claude-sonnet-4-5",
            limits=limits or Limits(),
        )

    async def order(self, live: LiveAgent, command: str) -> tuple[str, list[AgentEvent]]:
        """Have the agent run `command`; what it said, and all that happened.

        The commands are meant to do harm, and would: without the sandbox they overwrite files of
        the machine. Never weaken this check, not even to see the tests fail.
        """
        if live.rung != "bubblewrap":
            pytest.fail("A hostile command is for a confined agent only.")
        use = wire.Reply((wire.Tool("Bash", {"command": command}),))
        self.upstream.script = wire.steps(use, wire.text("done"))
        events = [event async for event in live.turn([{"type": "text", "text": "Do it."}])]
        results = [event for event in events if isinstance(event, ToolResult)]
        assert len(results) == 1, events
        return json.dumps(results[0].content), events

    async def say(self, command: str) -> str:
        """What `command` says in a fresh agent, whose turn must end well."""
        live = await self.agent.launch(self.spec())
        try:
            said, events = await self.order(live, command)
        finally:
            await live.close()
        assert isinstance(events[-1], Finished)
        assert events[-1].outcome == "success"
        return said


@pytest.fixture
def top(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="yard-")).resolve()
    (directory / "data").mkdir()
    (directory / "data" / "stationmaster.db").write_text(CANARY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
async def yard(top: Path) -> AsyncIterator[Yard]:
    async with wire.WireUpstream(unix=True) as upstream:
        agent = ClaudeCodeAgent(state_dir=top / "data", sandbox="require", agent_uid_base=_UID_BASE)
        yield Yard(top, agent, upstream, itertools.count(1))
        await agent.aclose()
        assert agent.alive() == 0
        assert not [each for each in read_table().values() if each.uid == _UID_BASE and each.alive]


async def test_it_works_in_there(yard: Yard) -> None:
    said = await yard.say("echo made > made.txt; cat /workspace/made.txt; python3 -c 'print(6*7)'")
    assert "made" in said
    assert "42" in said
    assert (yard.top / "session-1" / "workspace" / "made.txt").read_text() == "made\n"
    assert all(
        call.headers["Authorization"] == "Bearer run-token" for call in yard.upstream.message_calls
    )


async def test_a_session_is_resumed_by_a_later_process(yard: Yard) -> None:
    spec = replace(yard.spec(), system_prompt="Answer in the manner of a station master.")
    yard.upstream.script = wire.fixed(wire.text("noted"))
    ids: list[str] = []
    for resume in (None, "the last one"):
        live = await yard.agent.launch(replace(spec, resume=ids[-1] if resume else None))
        events = [event async for event in live.turn([{"type": "text", "text": "Remember 42."}])]
        assert isinstance(events[0], Started)
        ids.append(events[0].agent_session_id)
        await live.close()
    assert ids[0] == ids[1]
    last = yard.upstream.message_calls[-1].body
    assert json.dumps(last["messages"]).count("Remember 42.") == 2
    assert "manner of a station master" in json.dumps(last["system"])
    with pytest.raises(AgentHistoryMissing):
        await yard.agent.launch(replace(spec, resume="00000000-0000-0000-0000-000000000000"))


@pytest.mark.parametrize("path", ["{database}", "{database}-wal", "/etc/shadow", "/root", "/home"])
async def test_files_of_the_server_are_not_there(yard: Yard, path: str) -> None:
    target = path.format(database=yard.database)
    said = await yard.say(f"cat {target} || ls -la {target}; echo end")
    assert "No such file or directory" in said
    assert CANARY not in said
    assert "root:*" not in said
    assert "root:x" not in said


async def test_other_workspaces_are_not_there(yard: Yard) -> None:
    other = yard.spec()
    (other.workspace / "secret.txt").write_text(CANARY)
    neighbour = await yard.agent.launch(other)
    live = await yard.agent.launch(yard.spec())
    said, _ = await yard.order(
        live, f"find {yard.top} -maxdepth 3 -not -path '*/home/*'; cat {other.workspace}/secret.txt"
    )
    assert "session-2/workspace" in said
    assert "session-1\\n" not in said
    assert "session-1/workspace\\n" not in said
    assert CANARY not in said
    assert (other.workspace / "secret.txt").read_text() == CANARY
    await neighbour.close()
    await live.close()


async def test_the_machines_network_is_not_there(yard: Yard) -> None:
    reached: list[str] = []

    def arrived(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append("somebody")
        writer.close()

    server = await asyncio.start_server(arrived, "0.0.0.0", 0)
    port = server.sockets[0].getsockname()[1]
    abstract = socket.socket(socket.AF_UNIX)
    name = f"\0stationmaster-test-{os.getpid()}"
    abstract.bind(name)
    abstract.listen()
    abstract.setblocking(False)
    program = f"""
import socket
for family, address in [
    (socket.AF_INET, ("127.0.0.1", {port})),
    (socket.AF_INET, ("192.0.2.1", 443)),
    (socket.AF_INET, ("169.254.169.254", 80)),
    (socket.AF_INET6, ("2001:db8::1", 443)),
    (socket.AF_UNIX, {name!r}),
]:
    one = socket.socket(family)
    one.settimeout(3)
    print(address, "answer", one.connect_ex(address))
"""
    said = await yard.say(
        f"cat > probe.py <<'END'\n{program}\nEND\npython3 probe.py; ls /sys/class/net"
    )
    server.close()
    await server.wait_closed()
    assert said.count("answer") == 5
    assert "answer 0" not in said
    assert reached == []
    with pytest.raises(BlockingIOError):
        abstract.accept()
    abstract.close()


async def test_links_do_not_lead_out(yard: Yard) -> None:
    spec = yard.spec()
    (spec.workspace / "planted").symlink_to(yard.database)
    live = await yard.agent.launch(spec)
    said, _ = await yard.order(
        live,
        f"cat planted; ln -s {yard.database} mine; cat mine; ln {yard.database} hard;"
        " ln /etc/passwd hard2; cat /proc/1/root/etc/shadow; ls /proc/1/cwd/ /proc/self/root/;"
        " cat ../../data/stationmaster.db; echo over > planted; echo end",
    )
    await live.close()
    assert CANARY not in said
    assert yard.database.read_text() == CANARY
    # What was planted must not have been given to the agent's user id either.
    assert yard.database.stat().st_uid == os.getuid()


async def test_the_server_is_not_in_proc(yard: Yard) -> None:
    said = await yard.say(
        "for each in /proc/[0-9]*; do tr '\\0' '\\n' < $each/environ; tr '\\0' ' ' < $each/cmdline;"
        f" done; env; kill -9 {os.getpid()}; ls -d /proc/[0-9]* | wc -l; cat /proc/*/maps | head -3"
    )
    assert "HOME=" in said
    assert CANARY not in said
    assert "No such process" in said


async def test_it_has_no_privilege(yard: Yard) -> None:
    said = await yard.say(
        "id -u; grep -E 'CapEff|CapPrm|CapAmb|NoNewPrivs' /proc/self/status;"
        " mount -t tmpfs none /mnt; mknod disk b 8 0; chroot / true; ls -l /dev; cat /dev/mem"
    )
    assert not said.startswith('"0\\n')
    assert said.count("0000000000000000") == 3
    assert "NoNewPrivs:\\t1" in said
    assert "sda" not in said
    assert "vda" not in said


async def test_nothing_outside_can_be_written(yard: Yard) -> None:
    places = ("/usr/bin/x", "/etc/x", "/etc/passwd", "/x", "/run/x", "/dev/x", "/opt/claude-code/x")
    orders = " ".join(f"(echo x > {place}) && echo WROTE {place};" for place in places)
    said = await yard.say(
        f"{orders} echo x >> /opt/claude-code/claude && echo WROTE cli;"
        f" mkdir -p {yard.top}/session-9 && echo WROTE beside; echo end"
    )
    assert "WROTE" not in said
    assert "end" in said
    assert not (yard.top / "session-9").exists()


async def test_memory_behind_files_is_bounded(yard: Yard) -> None:
    said = await yard.say(
        "for place in /tmp /dev/shm; do"
        " dd if=/dev/zero of=$place/big bs=1M count=900 2>&1 | tail -1; done"
    )
    assert "No space left on device" in said or "268 MB" in said
    assert "944 MB" not in said


async def test_one_file_is_bounded(yard: Yard) -> None:
    spec = yard.spec(Limits(file_bytes=64 * 1024**2))
    live = await yard.agent.launch(spec)
    await yard.order(live, "dd if=/dev/zero of=big bs=1M count=200; echo end")
    await live.close()
    assert (spec.workspace / "big").stat().st_size <= 64 * 1024**2


@pytest.mark.parametrize(
    ("limits", "command", "limit"),
    [
        (
            Limits(disk_bytes=48 * 1024**2),
            "for n in $(seq 1 400); do dd if=/dev/zero of=part$n bs=1M count=8; done; sleep 60",
            "disk_bytes",
        ),
        (
            Limits(disk_bytes=48 * 1024**2),
            "exec 5>gone; rm gone; dd if=/dev/zero bs=1M count=100 >&5; sleep 60",
            "disk_bytes",
        ),
        (
            Limits(memory_bytes=700 * 1024**2),
            "python3 -c 'import time; b = bytearray(b\"x\") * 900_000_000; time.sleep(60)'",
            "memory_bytes",
        ),
        (
            Limits(processes=40),
            "for n in $(seq 1 60); do sleep 60 & done; wait",
            "processes",
        ),
        (  # that none of them passes alone, and some have ended
            Limits(cpu_seconds=6),
            "busy() { i=0; while [ $i -lt $1 ]; do i=$((i+1)); done; }; (busy 300000);"
            " for n in 1 2 3 4; do (busy 999999999) & done; wait",
            "cpu_seconds",
        ),
    ],
    ids=["files", "deleted-files", "memory", "processes", "processor-time"],
)
async def test_over_its_limit_it_is_stopped(
    yard: Yard, limits: Limits, command: str, limit: str
) -> None:
    live = await yard.agent.launch(yard.spec(limits))
    with pytest.raises(AgentLimitExceeded) as caught:
        await yard.order(live, command)
    assert caught.value.details["limit"] == limit
    await live.close()
    assert yard.agent.alive() == 0


async def test_a_fork_bomb_stays_inside(yard: Yard) -> None:
    limits = Limits(processes=100)
    live = await yard.agent.launch(yard.spec(limits))
    neighbour = await yard.agent.launch(yard.spec())
    bomb = "import os\\nwhile True:\\n  try: os.fork()\\n  except OSError: pass"
    with pytest.raises(AgentLimitExceeded):
        await yard.order(live, f"printf '{bomb}' > bomb.py; python3 bomb.py")
    await live.close()
    yard.upstream.script = wire.fixed(wire.text("still served"))
    events = [event async for event in neighbour.turn([{"type": "text", "text": "Well?"}])]
    assert isinstance(events[-1], Finished)
    assert events[-1].text == "still served"
    await neighbour.close()
    assert [each for each in read_table().values() if "bomb.py" in _command_of(each.pid)] == []


# Launches agents, several at once, until it is killed.
_LAUNCHING = """
import asyncio, sys
from pathlib import Path
from stationmaster.agents.base import LaunchSpec
from stationmaster.agents.claude_code import ClaudeCodeAgent

async def main(data, base, top, socket, url):
    agent = ClaudeCodeAgent(state_dir=Path(data), sandbox="require", agent_uid_base=int(base))
    await agent.probe()
    print("ready", flush=True)

    async def launch(name):
        while True:
            workspace, home = Path(top, name, "workspace"), Path(top, name, "home")
            live = await agent.launch(
                LaunchSpec(name, workspace, home, Path(socket), url, "token", "claude-sonnet-4-5")
            )
            await live.close()

    await asyncio.gather(*(launch(name) for name in ("one", "two", "three")))

asyncio.run(main(*sys.argv[1:]))
"""
_STARTING_S = 0.2  # in which a sandbox is built, and its agent begins


async def test_a_server_killed_at_any_moment_of_a_launch_leaves_nothing(yard: Yard) -> None:
    """Nothing that was started for it lives, and that without a next server's help."""
    for name, part in itertools.product(("one", "two", "three"), ("workspace", "home")):
        (yard.top / name / part).mkdir(parents=True)
    assert yard.upstream.socket_path is not None
    rounds = int(os.environ.get("LAUNCH_KILLS", "8"))
    for number in range(rounds):
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _LAUNCHING, str(yard.top / "data"), str(_UID_BASE)),
            *(str(yard.top), str(yard.upstream.socket_path), yard.upstream.url),
            stdout=asyncio.subprocess.PIPE,
            env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": "/usr/bin:/bin"},
        )
        assert server.stdout is not None
        assert await server.stdout.readline() == b"ready\n"
        async with asyncio.timeout(20):
            while not _processes_of(yard.top, named="bwrap"):
                await asyncio.sleep(0)
        await asyncio.sleep(_STARTING_S * number / rounds)  # the moment itself is what is tried
        server.send_signal(signal.SIGKILL)
        await server.wait()
        async with asyncio.timeout(5):
            while left := _processes_of(yard.top):
                await asyncio.sleep(0.02)
        assert left == []


def _processes_of(top: Path, *, named: str = "") -> list[int]:
    """Living processes in whose command or environment the directory stands."""
    needle, found = str(top).encode(), []
    for process in read_table().values():
        with contextlib.suppress(OSError):
            place = Path(f"/proc/{process.pid}")
            said = (place / "environ").read_bytes() + (place / "cmdline").read_bytes()
            name = (place / "comm").read_text().strip()
            if needle in said and process.alive and named in name and process.pid != os.getpid():
                found.append(process.pid)
    return found


async def test_a_killed_server_leaves_no_agent(yard: Yard) -> None:
    """`kill -9` of the server while its agent is in the middle of a command."""
    spec = yard.spec()
    use = wire.Reply((wire.Tool("Bash", {"command": "touch begun; sleep 300"}),))
    yard.upstream.script = wire.steps(use, wire.text("done"))
    program = f"""
import asyncio
from pathlib import Path
from stationmaster.agents.base import LaunchSpec
from stationmaster.agents.claude_code import ClaudeCodeAgent

async def main():
    agent = ClaudeCodeAgent(state_dir=Path({str(yard.top / "data")!r}), sandbox="require",
                            agent_uid_base={_UID_BASE})
    live = await agent.launch(LaunchSpec("s", Path({str(spec.workspace)!r}),
        Path({str(spec.home)!r}), Path({str(spec.gateway_socket)!r}), {spec.gateway_url!r},
        "run-token", "claude-sonnet-4-5"))
    async for event in live.turn([{{"type": "text", "text": "Go."}}]):
        print(type(event).__name__, flush=True)

asyncio.run(main())
"""
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": "/usr/bin:/bin"},
    )
    assert server.stdout is not None
    while b"ToolUse" not in await server.stdout.readline():
        pass
    assert yard.agent.alive() == 1
    server.send_signal(signal.SIGKILL)
    await server.wait()
    async with asyncio.timeout(5):
        while yard.agent.alive():
            await asyncio.sleep(0.02)
    assert await yard.agent.reap() == 0


def _command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
    return ""


async def test_a_frozen_workspace_is_read_and_never_written(yard: Yard) -> None:
    spec = replace(yard.spec(), readonly=True)
    (spec.workspace / "kept.txt").write_text("as it was")
    live = await yard.agent.launch(spec)
    try:
        said, events = await yard.order(
            live,
            "cat kept.txt; echo over > kept.txt; touch new.txt; mkdir new; rm -f kept.txt;"
            " echo x > /workspace/new.txt; ls -A; echo end",
        )
    finally:
        await live.close()
    assert "as it was" in said
    assert "Read-only file system" in said
    assert "end" in said
    assert isinstance(events[-1], Finished)
    assert events[-1].outcome == "success"
    assert [path.name for path in spec.workspace.iterdir()] == ["kept.txt"]
    assert (spec.workspace / "kept.txt").read_text() == "as it was"
