"""The server against its own OpenAPI document: whatever fits it, and whatever does not."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from stationmaster.agents.base import Agent
from stationmaster.agents.scripted import ScriptedAgent
from stationmaster.bootstrap import listening, parts
from stationmaster.http.routes.app import openapi_document
from stationmaster.settings import Settings
from tests.http.conftest import ADMIN, environment

EXAMPLES = 12  # for each operation; the whole stays within half a minute

schema = schemathesis.openapi.from_dict(openapi_document())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on a loop of its own: the calls below block."""
    directory = tmp_path_factory.mktemp("schema")
    loaded = Settings.load(environment({"MAX_QUEUE": "1000"}), cwd=directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "agent", _scripted)
        thread = _Server(loaded)
        thread.start()
        yield thread.url()
        thread.stop()


async def _scripted(
    stack: AsyncExitStack, *_: object, **__: object
) -> tuple[Agent, str, list[str]]:
    agent = ScriptedAgent()
    stack.push_async_callback(agent.aclose)
    return agent, "none", []


class _Server(threading.Thread):
    def __init__(self, loaded: Settings) -> None:
        super().__init__(name="server")
        self._settings = loaded
        self._up = threading.Event()
        self._url = ""

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with listening(self._settings) as server:
                self._url = server.url
                self._up.set()
                await self._over.wait()
        finally:
            self._up.set()

    def url(self) -> str:
        self._up.wait()
        assert self._url, "the server did not start"
        return self._url

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self.join()


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_the_document_promises(
    server: str, case: schemathesis.Case[Any]
) -> None:
    headers = {"authorization": f"Bearer {ADMIN}"}
    if case.path.startswith("/v1/files"):  # of two shapes the document has Anthropic's
        headers["anthropic-version"] = "2023-06-01"
    # What clients of another system may ask for and is not here is a 501, as the document says;
    # any other 5xx that it does not list still fails.
    refusing = case.path == "/v1/process"
    case.call_and_validate(
        base_url=server,
        headers=headers,
        # What fits the document may still be refused: a model's name, for one, must be known.
        # And an empty header beside a valid one is no attempt to get in without a key.
        excluded_checks=[
            positive_data_acceptance,
            ignored_auth,
            *([not_a_server_error] if refusing else []),
        ],
    )


def test_the_document_is_complete() -> None:
    document = openapi_document()
    assert {"bearer", "x-api-key", "api-key"} == set(document["components"]["securitySchemes"])
    for path, ways in document["paths"].items():
        for operation in ways.values():
            assert operation["summary"], path
            assert operation["operationId"], path
            assert operation["tags"], path
            needs_key = operation.get("security") != []
            if path.startswith(("/v1", "/api")) and needs_key:
                assert operation["security"], path
                assert {"400", "401", "403", "503"} <= set(operation["responses"]), path


@pytest.fixture(autouse=True)
def _no_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # what the library writes beside its reports
