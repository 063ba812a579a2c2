"""The upstream client is tested on each event loop that a server may run on."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    asyncio_only = {"asyncio": asyncio.new_event_loop}
    if item.path.stem.startswith("test_http_client"):
        return {**asyncio_only, "uvloop": uvloop.new_event_loop}
    return asyncio_only
