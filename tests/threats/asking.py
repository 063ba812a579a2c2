"""Asking any route by its row in the authorisation matrix."""

from collections.abc import Mapping
from typing import Any

import httpx

from tests.http.test_authorization_matrix import ROWS

NOTHING = "run_01jd3k00000000000000000000"


class Ids(dict[str, str]):
    """What stands in paths; where nothing was made, an id that nothing has."""

    def __missing__(self, name: str) -> str:
        return NOTHING


async def ask(
    client: httpx.AsyncClient, name: str, ids: Mapping[str, str] | None = None, headers: Any = None
) -> httpx.Response:
    """The answer of a route to its row's body."""
    row, (method, _, path) = ROWS[name], name.partition(" ")
    where = path.format_map(Ids(ids or {})) + row.query
    return await client.request(method, where, headers=headers, json=row.body)
