"""Whether something is another's or was never there is not told by the work done either.

Time is not measured: it is the database that takes it, so the statements are compared.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from stationmaster.storage import Prepared
from stationmaster.storage.sqlite import SqliteDatabase
from stationmaster.telemetry import about
from tests.http.conftest import House
from tests.http.test_authorization_matrix import (
    NEVER,
    OPEN,
    ROWS,
    Visitor,
    made_here,
    unlimited,
)

__all__ = ["unlimited"]

KNOWN = "api_keys.hash ="  # who asks, which is remembered for a while


class Watched:
    """A transaction that notes its statements."""

    def __init__(self, tx: Any, noted: list[str]) -> None:
        self._tx = tx
        self._noted = noted

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._tx, name)
        if name not in {"execute", "run", "run_many", "command"}:
            return found

        def noting(statement: Any, *args: Any) -> Any:
            said = statement.statement if isinstance(statement, Prepared) else statement
            if KNOWN not in str(said):
                self._noted.append(str(said))
            return found(statement, *args)

        return noting


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, list[str]]:
    """What each request has asked of the database, by the request's id."""
    noted: defaultdict[str, list[str]] = defaultdict(list)

    def watched(method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(self: SqliteDatabase, verb: Callable[[Any], Any]) -> Any:
            request = about.fields().get("request_id")
            if request is None:  # nobody's: the server's own work
                return await method(self, verb)
            mine = noted[request]
            return await method(self, lambda tx: verb(Watched(tx, mine)))

        return call

    for name in ("read", "write"):
        monkeypatch.setattr(SqliteDatabase, name, watched(getattr(SqliteDatabase, name)))
    return noted


async def test_anothers_costs_the_work_of_what_never_was(
    unlimited: House, statements: Mapping[str, list[str]]
) -> None:
    ids = await made_here(unlimited)
    tenant = await unlimited.client.post("/api/admin/organizations", json={"name": "Two"})
    theirs = Visitor(unlimited, tenant.json()["key"], ids)
    never = Visitor(unlimited, tenant.json()["key"])
    looked, wrong = 0, []
    for name, row in ROWS.items():
        if row.scopes == OPEN or all(
            ids[part] == NEVER[part] for part in NEVER if f"{{{part}}}" in name
        ):
            continue
        asked = []
        for visitor in (theirs, never):
            answer = await visitor.ask(name)
            assert answer.status_code == 404, (name, answer.text)
            asked.append(statements[answer.headers["x-request-id"]])
        looked += bool(asked[0])
        if asked[0] != asked[1]:
            wrong.append(f"{name}: {asked[0]}\n  and of what never was: {asked[1]}")
    assert looked > 40
    assert not wrong, "\n".join(wrong)
