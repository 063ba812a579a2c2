"""Every action of the socket, asked for by everybody: who is let in, and who is told what.

An action is a row below: the scope that it needs, and a frame that is right, so that a refusal is
for want of a right and not for a wrong field. A new action without a row fails the first test.
"""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from stationmaster.http.shapes.stream import FRAMES
from stationmaster.http.sockets.connection import PATH
from stationmaster.kernel.principal import Owner, Principal
from tests.http import managed
from tests.http.conftest import ADMIN, House, Open
from tests.http.test_authorization_matrix import ROLES, new_key, nobodies
from tests.support.sdk import sdk

ANY = "any"  # a credential, whatever its scopes
NEVER = {
    "task_id": "run_01jd3k00000000000000000000",
    "session_id": "sesn_01jd3k00000000000000000000",
}
TALK = [{"role": "user", "content": "Hi."}]
DENIED = "permission_denied"
NOBODY = frozenset({"unauthenticated", "invalid_api_key", "expired_api_key"})
UNAUTHENTICATED = 4001


@dataclass(frozen=True)
class Row:
    """What an action needs, and its frame. `of` names the field with the id of what is ours."""

    scope: str
    frame: Mapping[str, Any] = field(default_factory=dict)
    of: str | None = None
    keyed: bool = True  # whether the frame may carry the key


ROWS: Mapping[str, Row] = {
    "auth": Row(ANY),
    "ping": Row(ANY, keyed=False),
    "chat": Row("write:messages", {"model": "haiku", "messages": TALK}),
    "agentic_task": Row("write:tasks", {"description": "Do it."}),
    "start_task": Row("write:tasks", {"description": "Do it."}),
    "resume": Row("read:tasks", of="task_id"),
    "follow": Row("read:sessions", of="session_id"),
    "cancel": Row("write:tasks", of="task_id"),
}


def test_every_action_has_a_row_and_every_row_an_action() -> None:
    assert set(FRAMES) == set(ROWS)


@pytest.fixture
async def unlimited(open_house: Open) -> AsyncIterator[House]:
    async with open_house(RATE_LIMIT_ENABLED="false") as opened:
        yield opened


def frame_of(name: str, key: str | None, ours: Mapping[str, str] = NEVER) -> dict[str, Any]:
    row = ROWS[name]
    frame: dict[str, Any] = {"type": name, **row.frame}
    if row.of is not None:
        frame[row.of] = ours[row.of]
    if key is not None and row.keyed:
        frame["api_key"] = key
    return frame


async def answer(
    house: House,
    name: str,
    *,
    header: str | None = None,
    in_frame: str | None = None,
    ours: Mapping[str, str] = NEVER,
) -> tuple[dict[str, Any], int | None]:
    """The first frame that answers the action, and the code that the socket was closed with."""
    headers = {"authorization": f"Bearer {header}"} if header else {}
    url = house.url.replace("http://", "ws://") + PATH
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        if name == "auth" and in_frame is None:
            in_frame = header
        await socket.send(json.dumps(frame_of(name, in_frame, ours)))
        told = json.loads(await socket.recv())
        if header is None and told["type"] == "error":
            await socket.wait_closed()
    return told, socket.close_code


# --- without a good credential ----------------------------------------------------------------


async def test_without_a_good_credential_there_is_nothing(unlimited: House) -> None:
    wrong = []
    for who, key in (await nobodies(unlimited)).items():
        for name in ROWS:
            told, code = await answer(unlimited, name, in_frame=key)
            if told["type"] != "error" or code != UNAUTHENTICATED:
                wrong.append(f"{name} with {who}: {told}, {code}")
        if key is not None:
            with pytest.raises(InvalidStatus) as refused:
                await answer(unlimited, "ping", header=key)
            assert refused.value.response.status_code == 401, who
    assert not wrong, "\n".join(wrong)


async def test_a_credential_that_ends_while_the_socket_is_open_ends_every_action(
    unlimited: House,
) -> None:
    url = unlimited.url.replace("http://", "ws://") + PATH
    for name in ROWS:
        made = await new_key(unlimited, {"*"})
        headers = {"authorization": f"Bearer {made['key']}"}
        async with connect(url, additional_headers=headers, proxy=None) as socket:
            await socket.send(json.dumps({"type": "ping"}))
            assert json.loads(await socket.recv()) == {"type": "pong"}
            await unlimited.client.delete(f"/api/admin/keys/{made['id']}")
            key = made["key"] if name == "auth" else None
            await socket.send(json.dumps(frame_of(name, key)))
            assert json.loads(await socket.recv())["code"] == "invalid_api_key", name
            await socket.wait_closed()
        assert socket.close_code == UNAUTHENTICATED, name


# --- with too few rights, and with enough -----------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_is_let_in_where_its_scopes_say(unlimited: House, role: str) -> None:
    scopes = ROLES[role]
    principal = Principal("key", "k", Owner("o", "p"), "k", scopes)
    key = (await new_key(unlimited, scopes))["key"]
    wrong = []
    for name, row in ROWS.items():
        told, _ = await answer(unlimited, name, header=key)
        refused = told.get("code") in {DENIED, *NOBODY}
        if refused == (row.scope == ANY or principal.may(row.scope)):
            wrong.append(f"{name}: {told}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("scope", sorted({row.scope for row in ROWS.values()} - {ANY}))
async def test_each_single_scope_opens_its_actions_and_no_others(
    unlimited: House, scope: str
) -> None:
    key = (await new_key(unlimited, {scope}))["key"]
    for name, row in ROWS.items():
        told, _ = await answer(unlimited, name, header=key)
        assert (told.get("code") == DENIED) == (row.scope not in {ANY, scope}), (name, told)


# --- another tenant ---------------------------------------------------------------------------


async def test_another_tenant_finds_nothing_of_ours(unlimited: House) -> None:
    task_id = await unlimited.submit()
    async with sdk(unlimited.url, ADMIN) as client:
        session = await managed.talk(client)
    here = {"task_id": task_id, "session_id": session.id}
    tenant = await unlimited.client.post("/api/admin/organizations", json={"name": "Two"})
    key = tenant.json()["key"]
    for name in (name for name, row in ROWS.items() if row.of is not None):
        ours, _ = await answer(unlimited, name, header=key, ours=here)
        never, _ = await answer(unlimited, name, header=key)
        assert ours == never, name
        assert ours["code"] == "not_found"
