"""Calls that are kept, for plain code."""

from typing import Any
from urllib.parse import quote

import httpx

from stationmaster.client.calls import Call
from stationmaster.client.errors import UnexpectedAnswer
from stationmaster.client.models import Json, Page
from stationmaster.client.synchronous import Client

_HERE = "/v1/calls"


class KeptCallClient:
    """Kept calls through a `Client`, which stays its owner's to close. Raises `ClientError`s."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def calls(
        self, *, limit: int | None = None, after: str | None = None, **sought: str
    ) -> Page[Json]:
        """Calls of the key's project, newest first, without what was said.

        `sought` are the API's filters: `key_id`, `user_id`, `session_id`, `run_id`, `model`,
        `outcome`, `since`, `until`.
        """
        given = {"limit": limit, "after": after, **sought}
        params = {name: str(value) for name, value in given.items() if value is not None}
        found = self._client.call(Call("GET", _HERE, _object, params))
        items, following = found.get("calls"), found.get("next")
        if not isinstance(items, list):
            raise UnexpectedAnswer("The answer has no list of calls.")
        return Page(
            [item for item in items if isinstance(item, dict)],
            following if isinstance(following, str) else None,
        )

    def get(self, call_id: str) -> Json:
        """One call with what was said, redacted. That it was read goes on record."""
        return self._client.call(Call("GET", f"{_HERE}/{quote(call_id, safe='')}", _object))

    def delete(self, call_id: str) -> None:
        """Forget what was said in a call."""
        self._client.call(Call("DELETE", f"{_HERE}/{quote(call_id, safe='')}", _object))

    def clear(self) -> int:
        """Forget every call that is kept of the project; return how many."""
        return int(self._client.call(Call("DELETE", _HERE, _object)).get("deleted", 0))

    def policy(self, project_id: str) -> Json:
        """What a project keeps of its calls."""
        return self._client.call(Call("GET", _policy(project_id), _object))

    def set_policy(self, project_id: str, policy: Json) -> Json:
        """Choose what a project keeps of its calls, by the API's fields."""
        return self._client.call(Call("PUT", _policy(project_id), _object, body=policy))


def _policy(project_id: str) -> str:
    return f"/api/admin/projects/{quote(project_id, safe='')}/call-policy"


def _object(answer: httpx.Response) -> Json:
    try:
        found: Any = answer.json()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UnexpectedAnswer("The answer is not a JSON object. Is this a Stationmaster server?")
    return found
