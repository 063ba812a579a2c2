"""A whole server on a real socket and a real database; only the agent plays a script."""

import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import insert

from stationmaster.access.secret import Hasher
from stationmaster.access.tables import api_keys, organizations, projects
from stationmaster.agents.base import Agent
from stationmaster.agents.scripted import ScriptedAgent
from stationmaster.bootstrap import Application, listening, parts
from stationmaster.http.services import Services
from stationmaster.settings import Settings
from stationmaster.storage import Transaction, open_database
from tests.support.rates import GENEROUS

ADMIN = "admin-key-for-tests-0123456789"
USER = "user-key-for-tests-0123456789"
STRANGER = "stranger-key-for-tests-0123456789"
SECRET = "a-secret-for-hashes-of-tests"

JSON = {"accept": "application/json"}


@dataclass(frozen=True)
class House:
    """A server that runs, and clients of it."""

    url: str
    application: Application
    settings: Settings
    agent: ScriptedAgent
    client: httpx.AsyncClient

    @property
    def services(self) -> Services:
        return self.application.services

    def as_key(self, key: str | None) -> dict[str, str]:
        """Headers that replace the client's own credential."""
        return {"authorization": f"Bearer {key}"} if key else {"authorization": ""}

    async def submit(self, description: str = "Do it.", **fields: Any) -> str:
        answer = await self.client.post("/v1/tasks", json={"description": description, **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task_id"])

    async def task(self, task_id: str) -> Any:
        return (await self.client.get(f"/v1/tasks/{task_id}")).raise_for_status().json()

    async def perform(self, description: str = "Do it.", **fields: Any) -> Any:
        answer = await self.client.post("/v1/task", json={"description": description, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def ended(self, task_id: str) -> Any:
        """The task once it has ended: its stream ends with it."""
        async with self.client.stream("GET", f"/v1/tasks/{task_id}/events") as stream:
            async for _ in stream.aiter_raw():
                pass
        return await self.task(task_id)


Open = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def open_house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sqlite_template: Path) -> Open:
    """Makes servers on one migrated database; keyword arguments are settings."""
    (tmp_path / "data").mkdir()
    shutil.copyfile(sqlite_template, tmp_path / "data" / "stationmaster.db")

    @asynccontextmanager
    async def opened(**env: str) -> AsyncIterator[House]:
        agent = ScriptedAgent()

        async def scripted(
            stack: AsyncExitStack, *_: object, **__: object
        ) -> tuple[Agent, str, list[str]]:
            stack.push_async_callback(agent.aclose)
            return agent, "none", []

        monkeypatch.setattr(parts, "agent", scripted)
        settings = Settings.load(environment(env), cwd=tmp_path)
        async with listening(settings) as server:
            client = httpx.AsyncClient(
                base_url=server.url,
                headers={"authorization": f"Bearer {ADMIN}"},
                timeout=30,
            )
            async with client:
                yield House(server.url, server.application, settings, agent, client)

    return opened


@pytest.fixture
async def house(open_house: Open) -> AsyncIterator[House]:
    """A server with the usual settings."""
    async with open_house() as opened:
        yield opened


@pytest.fixture
async def stranger(house: House) -> dict[str, str]:
    """Headers of another organisation's key, with every right in its own house."""
    database = open_database(house.settings.database_url.get_secret_value())
    digest = Hasher(SECRET.encode()).digest(STRANGER)

    def verb(tx: Transaction) -> None:
        tx.execute(insert(organizations), {"id": "org_2", "name": "Two", "created_at": 1})
        project = {"id": "proj_2", "organization_id": "org_2", "name": "two", "created_at": 1}
        tx.execute(insert(projects), project)
        tx.execute(
            insert(api_keys),
            {
                "id": "key_01jd3k00000000000000000000",
                "organization_id": "org_2",
                "project_id": "proj_2",
                "name": "stranger",
                "hash": digest,
                "hint": "",
                "source": "created",
                "scopes": ["*"],
                "created_at": 1,
            },
        )

    await database.write(verb)
    await database.close()
    return house.as_key(STRANGER)


def environment(env: Mapping[str, str]) -> dict[str, str]:
    return {
        "PORT": "0",
        "ADMIN_API_KEY": ADMIN,
        "API_KEYS": USER,
        "SECRET_KEY": SECRET,
        "SQLITE_SYNCHRONOUS": "NORMAL",
        "PROVIDER": "offline",
        "OFFLINE_DELAY": "0s",
        "SHUTDOWN_TIMEOUT": "0s",
        "MAX_WORKERS": "2",
        **GENEROUS,
        **env,
    }
