"""The command line as a person uses it: real processes, the real agent, no account."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.server import ADMIN_KEY, ServerProcess

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def environment(directory: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(directory), **more}


async def start(*arguments: str, cwd: Path, env: Mapping[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "stationmaster",
        *arguments,
        cwd=cwd,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def command(*arguments: str, cwd: Path, **env: str) -> Done:
    process = await start(*arguments, cwd=cwd, env=environment(cwd, **env))
    out, err = await process.communicate()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


def processes_below(directory: Path) -> list[int]:
    """Processes that work in a directory or name it."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes() + os.fsencode((entry / "cwd").readlink())
        except OSError:
            continue
        if os.fsencode(str(directory)) in words:
            found.append(int(entry.name))
    return found


async def test_without_a_server_a_task_is_run_and_its_changes_applied(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "notes.txt").write_text("mine\n")
    done = await command(
        *("run", "Print the first 5 prime numbers.", "--dir", "project", "--apply"),
        *("--out", "out", "--data-dir", "data"),
        cwd=tmp_path,
    )
    assert done.code == 0, done
    assert "offline script answers" in done.err
    assert "offline scripted model" in done.out
    assert "> Write  primes.py" in done.out
    assert "    2 3 5 7 11\n" in done.out
    assert re.search(r"^= completed: \$0\.\d+, 4 model calls$", done.out, re.MULTILINE)
    assert sorted(path.name for path in project.iterdir()) == ["notes.txt", "primes.py"]
    assert (tmp_path / "out" / "primes.py").read_text() == (project / "primes.py").read_text()
    [diff] = (tmp_path / "out").glob("*.diff")
    assert "+++ b/primes.py" in diff.read_text()
    assert processes_below(tmp_path) == []


async def test_ctrl_c_cancels_the_task_and_leaves_nothing(tmp_path: Path, scratch: Path) -> None:
    env = environment(tmp_path, OFFLINE_DELAY="10s", TMPDIR=str(scratch))
    process = await start("run", "Print primes.", cwd=tmp_path, env=env)
    assert process.stdout is not None
    said = b""
    while b"Claude Code" not in said:
        line = await process.stdout.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    out, _ = await process.communicate()
    assert process.returncode == 130
    assert "! cancelled:" in out.decode()
    assert processes_below(scratch) == []
    assert list(scratch.iterdir()) == []


async def test_against_a_server(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, {"PROVIDER": "offline"}) as server:
        (tmp_path / "key").write_text(ADMIN_KEY)
        there = {"STATIONMASTER_URL": server.url, "STATIONMASTER_KEY_FILE": "key"}

        async def ask(*arguments: str) -> Done:
            return await command(*arguments, cwd=tmp_path, **there)

        sent = await ask("run", "Play fizzbuzz.", "--detach", "--max-turns", "9")
        assert sent.code == 0, sent
        task_id = sent.out.strip()
        followed = await ask("tasks", "follow", task_id)
        assert followed.code == 0, followed
        assert "> Bash  $ python3 fizzbuzz.py" in followed.out

        shown = json.loads((await ask("tasks", "show", task_id, "-o", "json")).out)
        assert shown["status"] == "completed"
        usage = json.loads((await ask("usage", "-o", "json")).out)
        assert usage["total_cost"] == shown["usage"]["total_cost"] > 0
        listed = json.loads((await ask("-o", "json", "tasks", "list")).out)
        assert [task["task_id"] for task in listed["tasks"]] == [task_id]
        events = (await ask("tasks", "follow", task_id, "-o", "json", "--after", "3")).out
        numbers = [json.loads(line)["seq"] for line in events.splitlines()]
        assert numbers == list(range(4, 4 + len(numbers)))

        assert "created" in (await ask("tasks", "artifacts", task_id)).out
        assert (await ask("tasks", "artifacts", task_id, "--download", "taken")).code == 0
        assert "fizzbuzz" in (tmp_path / "taken" / "fizzbuzz.py").read_text()
        assert "+++ b/fizzbuzz.py" in (await ask("tasks", "diff", task_id)).out
        assert "tool_call" in (await ask("tasks", "log", task_id)).out
        assert (await ask("tasks", "cancel", task_id)).out == f"Task {task_id} is completed.\n"

        poor = await ask("run", "Play fizzbuzz.", "--max-cost", "0.0001")
        assert poor.code == 6
        assert "budget_exceeded" in poor.out

        made = await ask("keys", "create", "reader", "--permission", "read:tasks")
        (tmp_path / "reader").write_text(made.out)
        assert (await ask("tasks", "list", "--key-file", "reader")).code == 0
        assert (await ask("keys", "list", "--key-file", "reader")).code == 3
        keys = json.loads((await ask("keys", "list", "-o", "json")).out)["keys"]
        [key_id] = [key["id"] for key in keys if key["name"] == "reader"]
        assert (await ask("keys", "revoke", key_id)).code == 0
        assert (await ask("tasks", "list", "--key-file", "reader")).code == 3

        assert (await ask("tasks", "show", "run_" + "0" * 26)).code == 4
        assert (await ask("run", "x", "--tools", "Nothing")).code == 3
        assert (await ask("run", "x", "--max-cost", "1000000")).code == 5
        assert await server.stop() == 0
        assert (await ask("run", "x", "--detach")).code == 7


async def test_the_first_start_keeps_the_admin_key_out_of_the_log(tmp_path: Path) -> None:
    process = await start(
        "serve", "--port", "0", "--data-dir", "data", cwd=tmp_path, env=environment(tmp_path)
    )
    assert process.stdout is not None
    said = ""
    while "admin key" not in said:
        line = (await process.stdout.readline()).decode()
        assert line, said
        said += line
    url = re.findall(r"ready at (http://\S+)", said)[0]
    key = (tmp_path / "data" / "admin-key").read_text().strip()
    listed = await command(
        "keys", "list", "--url", url, "--key-file", "data/admin-key", cwd=tmp_path
    )
    assert listed.code == 0, listed
    process.terminate()
    out, err = await process.communicate()
    assert process.returncode == 0
    assert key not in said + (out + err).decode() + listed.out + listed.err


async def test_doctor_finds_what_is_here_and_changes_nothing(tmp_path: Path) -> None:
    done = await command("doctor", "-o", "json", cwd=tmp_path, PORT="0")
    found = {each["name"]: each for each in json.loads(done.out)}
    assert done.code == 0, done
    assert list(found) == [
        *("settings", "agent", "sandbox", "database", "disk", "memory", "model", "port"),
    ]
    assert "Claude Code" in found["agent"]["detail"]
    assert found["model"]["status"] == "warn"
    assert list(tmp_path.iterdir()) == []


async def test_doctor_says_what_is_wrong(tmp_path: Path) -> None:
    wrong = await command("doctor", cwd=tmp_path, MAX_WORKERS="many")
    assert wrong.code == 78
    assert "MAX_WORKERS must be a whole number" in wrong.out
    away = await command(
        *("doctor", "-o", "json"),
        cwd=tmp_path,
        DATABASE_URL="postgresql://nobody:secret-word@127.0.0.1:1/none",
    )
    found = {each["name"]: each for each in json.loads(away.out)}
    assert away.code == 1
    assert found["database"]["status"] == "fail"
    assert "secret-word" not in away.out + away.err


async def test_migrate_makes_the_schema_once(tmp_path: Path) -> None:
    before = await command("migrate", "--check", cwd=tmp_path)
    assert before.code == 1
    first = await command("migrate", cwd=tmp_path)
    again = await command("migrate", cwd=tmp_path)
    assert (first.code, again.code) == (0, 0)
    assert first.out.startswith("The schema is now at")
    assert again.out.startswith("The schema is already at")
    assert (await command("migrate", "--check", cwd=tmp_path)).code == 0
