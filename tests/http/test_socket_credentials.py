"""How a socket is told who opens it: sub-protocols, tickets, and from which pages."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from stationmaster.access.secret import generate
from stationmaster.access.tickets import PREFIX
from stationmaster.http.sockets.connection import PATH
from tests.http.conftest import ADMIN, USER, House, Open

PROTOCOL = Subprotocol("stationmaster")


@asynccontextmanager
async def opened(
    house: House,
    query: str = "",
    *,
    key: str | None = None,
    protocols: list[str] | None = None,
    origin: str | None = None,
) -> AsyncIterator[ClientConnection]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    url = house.url.replace("http://", "ws://") + PATH + query
    async with connect(
        url,
        additional_headers=headers,
        subprotocols=[Subprotocol(name) for name in protocols or ()] or None,
        origin=None if origin is None else Origin(origin),
        proxy=None,
    ) as socket:
        yield socket


async def ask(socket: ClientConnection, **frame: Any) -> Any:
    await socket.send(json.dumps(frame or {"type": "ping"}))
    return json.loads(await socket.recv())


async def ticket_of(house: House, key: str = USER, **body: Any) -> str:
    answer = await house.client.post("/v1/stream/tickets", json=body, headers=house.as_key(key))
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["expires_in"] == 60
    return str(answer.json()["ticket"])


async def refusal(house: House, query: str = "", **how: Any) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as refused:
        async with opened(house, query, **how):
            pass
    response = refused.value.response
    return response.status_code, json.loads(response.body or b"")["code"]


# --- sub-protocols ----------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["stationmaster", f"bearer.{USER}"], ids=["name", "key"])
async def test_a_key_among_the_sub_protocols_will_do(house: House, first: str) -> None:
    both = sorted(["stationmaster", f"bearer.{USER}"], key=lambda name: name != first)
    async with opened(house, protocols=both) as socket:
        assert await ask(socket) == {"type": "pong"}
        assert socket.subprotocol == PROTOCOL
        assert socket.response is not None
        assert USER not in str(socket.response.headers)


async def test_a_wrong_one_is_refused(house: House) -> None:
    wrong = ["stationmaster", "bearer.wrong-key-0123456789"]
    assert await refusal(house, protocols=wrong) == (401, "invalid_api_key")
    two = ["stationmaster", f"bearer.{USER}", f"bearer.{ADMIN}"]
    assert await refusal(house, protocols=two) == (401, "conflicting_credentials")
    assert (await refusal(house, protocols=[f"bearer.{USER}"]))[0] == 400
    many = ["stationmaster", *(f"other{number}" for number in range(8))]
    assert (await refusal(house, protocols=many))[0] == 400


async def test_the_protocol_alone_says_nobody(house: House) -> None:
    async with opened(house, protocols=["stationmaster"]) as socket:
        assert socket.subprotocol == PROTOCOL
        assert (await ask(socket, type="auth", api_key=USER))["type"] == "authenticated"


# --- tickets ----------------------------------------------------------------------------------


async def test_a_ticket_opens_one_socket(house: House) -> None:
    ticket = await ticket_of(house)
    async with opened(house, f"?ticket={ticket}") as socket:
        assert await ask(socket) == {"type": "pong"}
        assert await refusal(house, f"?ticket={ticket}") == (401, "invalid_ticket")
        assert await ask(socket) == {"type": "pong"}


async def test_it_is_the_credentials_own_rights(house: House) -> None:
    made = await house.client.post(
        "/api/admin/keys", json={"name": "reader", "permissions": ["read:tasks"]}
    )
    key, key_id = made.json()["key"], made.json()["id"]
    ticket, late = await ticket_of(house, key), await ticket_of(house, key)
    async with opened(house, f"?ticket={ticket}") as socket:
        told = await ask(socket, type="agentic_task", description="Do it.")
        assert told["code"] == "permission_denied"
        assert (await ask(socket, type="auth", api_key=USER))["code"] == "conflicting_credentials"
        (await house.client.delete(f"/api/admin/keys/{key_id}")).raise_for_status()
        assert (await ask(socket))["code"] == "invalid_api_key"
        await socket.wait_closed()
    assert socket.close_code == 4001
    assert await refusal(house, f"?ticket={late}") == (401, "invalid_api_key")


async def test_a_signed_in_users_ticket(house: House) -> None:
    made = await house.client.post(
        "/api/admin/users", json={"email": "ada@example.org", "name": "Ada"}
    )
    password = {"password": "a-long-password-1"}
    await house.client.put(f"/v1/auth/users/{made.json()['id']}/password", json=password)
    sign_in = {"email": "ada@example.org", **password}
    token = (await house.client.post("/v1/auth/login", json=sign_in)).json()["access_token"]
    ticket = await ticket_of(house, token)
    async with opened(house, f"?ticket={ticket}") as socket:
        assert await ask(socket) == {"type": "pong"}
        await house.client.post("/v1/auth/logout", headers=house.as_key(token))
        assert (await ask(socket))["type"] == "error"
        await socket.wait_closed()
    assert socket.close_code == 4001


async def test_one_bound_to_this_address_works_from_here(house: House) -> None:
    ticket = await ticket_of(house, bind_address=True)
    async with opened(house, f"?ticket={ticket}") as socket:
        assert await ask(socket) == {"type": "pong"}


async def test_one_bound_to_another_address_does_not(open_house: Open) -> None:
    async with open_house(TRUSTED_PROXIES="127.0.0.1") as house:
        answer = await house.client.post(
            "/v1/stream/tickets",
            json={"bind_address": True},
            headers={"x-forwarded-for": "203.0.113.9"},
        )
        ticket = answer.json()["ticket"]
        assert await refusal(house, f"?ticket={ticket}") == (401, "invalid_ticket")


async def test_what_is_no_ticket(house: House) -> None:
    never = generate(PREFIX)
    for wrong in ("x", PREFIX, never, "%00", "a" * 4000, "%ff"):
        assert await refusal(house, f"?ticket={wrong}") == (401, "invalid_ticket")
    two = f"?ticket={never}&ticket={never}"
    assert await refusal(house, two) == (401, "conflicting_credentials")


async def test_guessed_tickets_are_limited_by_address(open_house: Open) -> None:
    async with open_house(RATE_LIMIT_FAILURES="3") as house:
        told = [(await refusal(house, f"?ticket={generate(PREFIX)}"))[0] for _ in range(5)]
    assert told == [401, 401, 401, 429, 429]


async def test_two_credentials_are_one_too_many(house: House) -> None:
    ticket = await ticket_of(house)
    conflict = (401, "conflicting_credentials")
    assert await refusal(house, f"?ticket={ticket}", key=USER) == conflict
    protocols = ["stationmaster", f"bearer.{USER}"]
    assert await refusal(house, f"?ticket={ticket}", protocols=protocols) == conflict
    assert await refusal(house, key=USER, protocols=protocols) == conflict
    async with opened(house, f"?ticket={ticket}") as socket:  # it was not used up by that
        assert await ask(socket) == {"type": "pong"}


async def test_a_key_in_the_url_is_not_read(house: House) -> None:
    for query in (f"?api_key={USER}", f"?token={USER}", f"?key={USER}", f"?access_token={USER}"):
        async with opened(house, query) as socket:
            assert (await ask(socket))["code"] == "unauthenticated"
    assert await refusal(house, f"?ticket={USER}") == (401, "invalid_ticket")


@pytest.mark.parametrize("body", [{"bind_address": 1}, {"surprise": True}, []], ids=range(3))
async def test_a_wrong_wish_is_refused(house: House, body: Any) -> None:
    answer = await house.client.post("/v1/stream/tickets", json=body)
    assert answer.status_code == 422


# --- pages ------------------------------------------------------------------------------------


async def test_a_foreign_page_opens_none_whatever_it_has(house: House) -> None:
    ticket = await ticket_of(house)
    for how in ({"key": USER}, {"protocols": ["stationmaster", f"bearer.{USER}"]}, {}):
        told = await refusal(
            house,
            f"?ticket={ticket}",
            origin="https://evil.example",
            **how,
        )
        assert told == (403, "foreign_origin")
    async with opened(house, f"?ticket={ticket}", origin=house.url) as socket:
        assert await ask(socket) == {"type": "pong"}


async def test_a_listed_page_opens_one(open_house: Open) -> None:
    page = "https://app.example"
    async with open_house(BACKEND_CORS_ORIGINS=page) as house:
        ticket = await ticket_of(house)
        async with opened(house, f"?ticket={ticket}", origin=page) as socket:
            assert await ask(socket) == {"type": "pong"}
