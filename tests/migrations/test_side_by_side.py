"""Servers of before and after a change of the schema, at work on one database at once."""

import asyncio
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from stationmaster.migrations import HEAD, current
from tests.support.server import ServerProcess

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = "src/stationmaster/migrations/versions"
MESSAGE = {"model": "haiku", "max_tokens": 64, "messages": [{"role": "user", "content": "Hello"}]}
CLIENTS = 4


def git(*words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
    )
    if done.returncode:  # a checkout of the last commit alone, or an unpacked archive
        pytest.skip("The history of this repository is not here.")
    return done.stdout.strip()


def commit_of_before() -> str:
    """The last commit whose schema is another one than the present: the one before HEAD's."""
    added = git("log", "--diff-filter=A", "--format=%H", "-1", "--", f"{VERSIONS}/v{HEAD}_*.py")
    if not added:  # the migration is not committed yet
        return git("rev-parse", "HEAD")
    return git("rev-parse", f"{added}^")


@pytest.fixture
def program_of_before(tmp_path: Path) -> Path:
    """The source tree of the program before the last change of the schema."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed.")
    commit = commit_of_before()
    archive = tmp_path / "before.tar"
    git("archive", "--output", str(archive), commit, "src")
    place = tmp_path / "before"
    with tarfile.open(archive) as tar:
        tar.extractall(place, filter="data")
    if not (place / "src/stationmaster/cli/serve.py").exists():
        pytest.skip(f"the program could not be started yet before schema {HEAD} ({commit[:9]})")
    return place / "src"


class Clients:
    """Calls of models, tasks and lists, and every answer that was an error."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.failed: list[str] = []
        self.rounds = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended

    async def _client(self) -> None:
        client = self._server.client
        while True:
            self._note(await client.post("/v1/messages", json=MESSAGE))
            task = await client.post("/v1/task", json={"description": "Hello"})
            self._note(task)
            if task.is_success and task.json()["status"] != "completed":
                self.failed.append(f"task: {task.json()}")
            for path in ("/v1/tasks", "/v1/usage", "/v1/sessions", "/api/admin/keys"):
                self._note(await client.get(path))
            self.rounds += 1

    def _note(self, answer: httpx.Response) -> None:
        if not answer.is_success:
            self.failed.append(f"{answer.request.url.path}: {answer.status_code} {answer.text}")

    async def more(self, count: int = 2 * CLIENTS) -> None:
        """Return once so many more rounds were made, all without an error."""
        goal = self.rounds + count
        while self.rounds < goal:
            assert not self.failed, self.failed[:3]
            await asyncio.sleep(0.02)
        assert not self.failed, self.failed[:3]


async def test_the_version_before_goes_on_while_the_schema_is_changed(
    tmp_path: Path, postgres_url: str, program_of_before: Path
) -> None:
    env = {
        "DATABASE_URL": postgres_url,
        "AGENT": "scripted",
        "SECRET_KEY": "a-secret-key-for-tests-0123456789abcdef",
        "LEASE_TIME": "60s",
        "MAX_WORKERS": "8",
    }
    places = [tmp_path / "old", tmp_path / "new"]
    for place in places:
        place.mkdir()
    shared = {**env, "WORKSPACE_DIR": str(tmp_path / "workspaces")}
    before = ServerProcess(places[0], {**shared, "PYTHONPATH": str(program_of_before)})
    async with before:
        began_with = await current(postgres_url)
        assert began_with != HEAD, "the program of before is not the one of before"
        old = Clients(before)
        async with old.running():
            await old.more()
            async with ServerProcess(places[1], shared) as after:
                assert await current(postgres_url) == HEAD
                new = Clients(after)
                async with new.running():
                    await old.more()
                    await new.more()
                    await old.more()
            await old.more()
