"""Budgets and usage, for plain code."""

from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

import httpx

from stationmaster.client.calls import Call
from stationmaster.client.errors import UnexpectedAnswer
from stationmaster.client.models import Json, Page
from stationmaster.client.synchronous import Client

_HERE = "/v1/budgets"


class BudgetClient:
    """Budgets through a `Client`, which stays its owner's to close. Raises `ClientError`s."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, budget: Json) -> Json:
        """Set a budget, of the API's fields. Sent twice it would be there twice."""
        return self._send("POST", _HERE, budget, repeatable=False)

    def budgets(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        subject_type: str | None = None,
        subject_id: str | None = None,
    ) -> Page[Json]:
        """Budgets, newest first."""
        wanted = {
            "limit": limit,
            "after": after,
            "subject_type": subject_type,
            "subject_id": subject_id,
        }
        params = {name: str(value) for name, value in wanted.items() if value is not None}
        found = self._client.call(Call("GET", _HERE, _object, params))
        following = found.get("next")
        return Page(_items(found, "budgets"), following if isinstance(following, str) else None)

    def get(self, budget_id: str) -> Json:
        """One budget, with what is spent, held and left."""
        return self._client.call(Call("GET", _of(budget_id), _object))

    def update(self, budget_id: str, change: Json) -> Json:
        """Change a budget's limit, mode or alerts."""
        return self._send("PATCH", _of(budget_id), change)

    def delete(self, budget_id: str) -> Json:
        """End a budget; return what it was."""
        return self._client.call(Call("DELETE", _of(budget_id), _object))

    def alerts(self, *, after: int = 0, limit: int | None = None) -> list[Json]:
        """The alerts of the project's budgets that follow number `after`."""
        params = {"after": str(after), **({} if limit is None else {"limit": str(limit)})}
        found = self._client.call(Call("GET", "/v1/budget-alerts", _object, params))
        return _items(found, "alerts")

    def usage(self, period: str = "month", **asked: str) -> Json:
        """The usage of a period; `asked` are the API's other parameters, such as `group_by`."""
        return self._client.call(Call("GET", "/v1/usage", _object, {"period": period, **asked}))

    def export(self, into: BinaryIO, **asked: str) -> int:
        """Write the ledger's lines to `into`; return how many bytes."""
        return self._client._download(f"/v1/usage/export?{urlencode(asked)}", into)

    def _send(self, method: str, path: str, body: Json, *, repeatable: bool = True) -> Json:
        return self._client.call(Call(method, path, _object, body=body, repeatable=repeatable))


def _of(budget_id: str) -> str:
    return f"{_HERE}/{quote(budget_id, safe='')}"


def _object(answer: httpx.Response) -> Json:
    try:
        found: Any = answer.json()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UnexpectedAnswer("The answer is not a JSON object. Is this a Stationmaster server?")
    return found


def _items(found: Json, name: str) -> list[Json]:
    items = found.get(name)
    if not isinstance(items, list):
        raise UnexpectedAnswer(f"The answer has no list of {name}.")
    return [item for item in items if isinstance(item, dict)]
