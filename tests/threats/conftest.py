"""A whole server, as the tests over HTTP have it."""

from collections.abc import AsyncIterator

import pytest

from tests.http.conftest import House, Open, open_house, stranger

__all__ = ["open_house", "stranger"]


@pytest.fixture
async def house(open_house: Open) -> AsyncIterator[House]:
    """A server that does not count: attacks ask more often than anybody may."""
    async with open_house(RATE_LIMIT_ENABLED="false") as opened:
        yield opened
