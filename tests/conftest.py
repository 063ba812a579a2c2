"""Fixtures that every test may ask for."""

import gc
import logging
import os
import signal
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

from tests.support.certificates import authority, server_context
from tests.support.databases import (
    database,
    databases,
    migrated_url,
    postgres_template,
    sqlite_template,
)
from tests.support.postgres import database_url, postgres_server, postgres_url
from tests.support.rabbitmq import rabbitmq_server, rabbitmq_url
from tests.support.redis import redis_server, redis_url

__all__ = [
    "database",
    "database_url",
    "databases",
    "migrated_url",
    "postgres_server",
    "postgres_template",
    "postgres_url",
    "rabbitmq_server",
    "rabbitmq_url",
    "redis_server",
    "redis_url",
    "sqlite_template",
]

# A machine at work is slow: an example's time is no test. And a check that fails by chance says
# nothing of the change it is run for: elsewhere chance may find.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "here")


def pytest_configure() -> None:
    """Let Ctrl-C be heard: what a shell starts in the background ignores it, its children too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep what the modules of thousands of tests hold out of the collector's sight.

    It took a quarter of the time of a run.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, *gc.get_threshold()[1:])


@pytest.fixture(scope="session", autouse=True)
def _trust_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test speaks to the world, and a client that reads whom the world trusts takes 30 ms."""
    directory = tmp_path_factory.mktemp("trust")
    server_context(directory, "nobody")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(authority(directory)))
        yield


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A server built in a test sets up the process's logging: the next test has its own."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    lines = structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**lines)
