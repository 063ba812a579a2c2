"""Sessions from the command line: talked to, asked, followed, forked; no account."""

import asyncio
import json
import os
import select
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from stationmaster.cli.exits import Exit
from tests.acceptance.test_cli import Done, command, environment
from tests.support.server import ADMIN_KEY, ServerProcess

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

TASK = "Print the first 5 prime numbers."
CTRL_C = "\x03"
CALLS = 3  # of tools, that the offline script makes for it: write, run, read


class Shell:
    """Commands against one server."""

    def __init__(self, server: ServerProcess, directory: Path) -> None:
        self.server = server
        self.directory = directory

    @property
    def env(self) -> dict[str, str]:
        return {"STATIONMASTER_URL": self.server.url, "STATIONMASTER_API_KEY": ADMIN_KEY}

    async def __call__(self, *arguments: str) -> Done:
        return await command(*arguments, cwd=self.directory, **self.env)

    async def said(self, *arguments: str) -> str:
        done = await self(*arguments)
        assert done.code == 0, done
        return done.out.strip()

    async def waiting(self, but: set[str]) -> str:
        """The id of a call that waits, as soon as there is one."""
        async with asyncio.timeout(60):
            while True:
                listed = json.loads(await self.said("approvals", "list", "-o", "json"))
                for item in listed["approvals"]:
                    if item["id"] not in but:
                        return str(item["id"])

    async def until(self, path: str, done: Callable[[Any], bool]) -> None:
        """Wait until an answer of the server's is so."""
        async with asyncio.timeout(60):
            while not done((await self.server.client.get(path)).raise_for_status().json()):
                await asyncio.sleep(0.05)

    async def chat(self, *arguments: str, stdin: str) -> Done:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "stationmaster", "chat", *arguments),
            cwd=self.directory,
            env=environment(self.directory, **self.env),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    async with ServerProcess(tmp_path, {"PROVIDER": "offline", "OFFLINE_DELAY": "0s"}) as server:
        yield Shell(server, tmp_path)


async def test_a_chat_asks_before_each_call_and_goes_on(shell: Shell) -> None:
    done = await shell.chat(stdin=f"{TASK}\n" + "y\n" * CALLS + "/exit\n")
    assert done.code == 0, done
    assert "Session sesn_" in done.err
    assert "> Write" in done.err, "the call that was asked about"
    assert "2 3 5 7 11" in done.out
    listed = json.loads(await shell.said("approvals", "list", "--state", "all", "-o", "json"))
    assert {item["state"] for item in listed["approvals"]} == {"allowed"}
    session = json.loads(await shell.said("sessions", "list", "-o", "json"))["sessions"][0]
    again = await shell.chat("--session", session["id"], stdin="/session\n")
    assert session["id"] in again.err


async def test_a_conversation_in_a_real_terminal(shell: Shell) -> None:
    """Prompts stand where somebody is to type; what a program reads is free of them."""
    async with terminal(shell) as (typed, shown):
        await shown("you> ")
        typed(TASK)
        for _ in range(CALLS):
            await shown("may it? [y/N, or why not] ")
            typed("y")
        assert "2 3 5 7 11" in await shown("you> ")
        typed("/session")
        assert "sesn_" in await shown("you> ")
        typed("/nonsense")
        assert "/interrupt" in await shown("you> ")
        typed("/exit")


async def test_ctrl_c_ends_the_turn_and_at_the_prompt_it_leaves(tmp_path: Path) -> None:
    env = {"PROVIDER": "offline", "OFFLINE_DELAY": "10s"}  # a model that thinks before each call
    async with ServerProcess(tmp_path, env) as server:
        shell = Shell(server, tmp_path)
        async with terminal(shell, code=Exit.INTERRUPTED) as (typed, shown):
            await shown("you> ")
            typed(TASK)
            session = json.loads(await shell.said("sessions", "list", "-o", "json"))["sessions"][0]
            here = f"/v1/sessions/{session['id']}"
            await shell.until(here, lambda found: found["status"] == "running")
            typed(CTRL_C)
            assert "Interrupting" in await shown("you> ")
            await shell.until(f"{here}/turns", lambda found: bool(found["data"]))
            [turn] = (await server.client.get(f"{here}/turns")).json()["data"]
            assert turn["state"] == "interrupted"
            typed("/session")  # the conversation goes on
            await shown(session["id"])
            await shown("you> ")
            typed(CTRL_C)
        shown_session = json.loads(
            await shell.said("sessions", "show", session["id"], "-o", "json")
        )
        assert shown_session["status"] == "idle"
        assert shown_session["archived_at"] is None


@asynccontextmanager
async def terminal(
    shell: Shell, *, code: int = 0
) -> AsyncIterator[tuple[Callable[[str], None], Callable[[str], Awaitable[str]]]]:
    """A chat in a pseudo terminal: how to type, and how to wait for what it shows.

    It is the process's own terminal, so a key can be a signal. At last it exits with `code`.
    """
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *("setsid", "--ctty", sys.executable, "-m", "stationmaster", "chat"),
        cwd=shell.directory,
        env=environment(shell.directory, TERM="xterm", **shell.env),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    screen = bytearray()

    def typed(line: str) -> None:
        os.write(ours, f"{line}\n".encode() if line != CTRL_C else CTRL_C.encode())

    async def shown(words: str) -> str:
        """What has come since the last time, as soon as `words` are among it."""
        async with asyncio.timeout(90):
            while words.encode() not in screen:
                readable, _, _ = await asyncio.to_thread(select.select, [ours], [], [], 1.0)
                assert readable or process.returncode is None, screen.decode()
                if readable:
                    screen.extend(os.read(ours, 65536))
        end = screen.index(words.encode()) + len(words)
        before = bytes(screen[:end])
        del screen[:end]
        return before.decode()

    try:
        yield typed, shown
        async with asyncio.timeout(60):
            assert await process.wait() == code
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)


async def test_what_is_denied_does_not_happen(shell: Shell) -> None:
    done = await shell.chat(stdin=f"{TASK}\n" + "not on my watch\n")
    assert done.code == 0, done
    assert "not on my watch" in done.out
    assert "2 3 5 7 11" not in done.out


async def test_sessions_are_talked_to_followed_and_forked(shell: Shell) -> None:
    agent = await shell.said("agents", "create", "worker", "--model", "sonnet")
    assert agent.startswith("agent_")
    assert agent in await shell.said("agents", "list")
    assert "worker" in await shell.said("agents", "show", agent)
    done = await shell.chat("--agent", agent, stdin=f"{TASK}\n")
    assert done.code == 0, done
    assert "2 3 5 7 11" in done.out
    session = json.loads(await shell.said("sessions", "list", "-o", "json"))["sessions"][0]["id"]
    talked = await shell("sessions", "talk", session, TASK)
    assert talked.code == 0, talked
    assert "2 3 5 7 11" in talked.out
    assert "worker" in await shell.said("sessions", "show", session)
    events = (await shell.said("sessions", "events", session)).splitlines()
    kinds = [json.loads(line)["type"] for line in events]
    assert kinds.count("user.message") == 2
    assert kinds[-1] == "session.status_idle"
    fork = await shell.said("sessions", "fork", session)
    assert fork.startswith("sesn_")
    assert fork != session
    talked = await shell("sessions", "talk", fork, TASK)
    assert talked.code == 0, talked
    assert "archived" in await shell.said("sessions", "archive", fork)
    refused = await shell("sessions", "talk", fork, "More.")
    assert refused.code == 5, refused
    assert "archived" in await shell.said("agents", "archive", agent)


async def test_an_approval_is_answered_from_another_terminal(shell: Shell) -> None:
    agent = await shell.said("agents", "create", "careful", "--ask")
    assert (await shell.chat("--agent", agent, stdin="/exit\n")).code == 0
    session = json.loads(await shell.said("sessions", "list", "-o", "json"))["sessions"][0]["id"]
    talked = await shell("sessions", "talk", session, TASK)
    assert talked.code == 6, talked
    answered = set[str]()
    for _ in range(CALLS):
        waiting = await shell.waiting(answered)
        assert session in await shell.said("approvals", "show", waiting)
        assert "allowed" in await shell.said("approvals", "approve", waiting)
        second = await shell("approvals", "deny", waiting, "-m", "Too late.")
        assert second.code == 5, second
        answered.add(waiting)
    followed = await shell("sessions", "talk", session, "Thank you.")
    assert followed.code in {0, 6}, followed
    assert "2 3 5 7 11" in await shell.said("sessions", "events", session)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("sessions", "show", "sesn_01jd3k00000000000000000000"), 4),
        (("sessions", "show", "../etc"), 4),
        (("sessions", "talk", "sesn_01jd3k00000000000000000000", "Hi"), 4),
        (("agents", "show", "agent_01jd3k00000000000000000000"), 4),
        (("agents", "create", "x", "--model", "no model"), 5),
        (("approvals", "approve", "appr_01jd3k00000000000000000000"), 4),
        (("approvals", "approve", "x", "--input", "no json"), 2),
        (("chat", "--agent", "a", "--session", "b"), 2),
    ],
)
async def test_what_cannot_be_is_said(shell: Shell, arguments: tuple[str, ...], code: int) -> None:
    done = await shell(*arguments)
    assert done.code == code, done
    assert done.err.startswith(("error: ", "Usage")), done
