"""Who asks: the same answer for every header, and none at all without a key."""

import asyncio
from typing import Any

import httpx
import pytest

from stationmaster.agents.base import LaunchSpec
from stationmaster.agents.scripted import Call, Say
from stationmaster.http.gatekeeper import credential
from stationmaster.kernel.errors import Unauthenticated
from tests.http.conftest import ADMIN, USER, House, Open

CALL = {
    "model": "sonnet",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Hello."}],
}


def ways(key: str) -> list[dict[str, str]]:
    return [
        {"authorization": f"Bearer {key}"},
        {"authorization": f"bearer  {key}"},
        {"x-api-key": key},
        {"api-key": key},
        {"authorization": f"Bearer {key}", "x-api-key": key, "api-key": key},
    ]


async def test_a_key_is_taken_from_each_header_on_each_kind_of_route(house: House) -> None:
    async with httpx.AsyncClient(base_url=house.url) as client:
        for headers in ways(USER):
            assert (await client.get("/v1/tasks", headers=headers)).status_code == 200
            answer = await client.post("/v1/messages", headers=headers, json=CALL)
            assert answer.status_code == 200, answer.text
        for headers in [*ways("wrong-key-0123456789"), {}]:
            assert (await client.get("/v1/tasks", headers=headers)).status_code == 401
            refused = await client.post("/v1/messages", headers=headers, json=CALL)
            assert refused.status_code == 401
            assert refused.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {ADMIN}", "x-api-key": USER},
        {"api-key": ADMIN, "x-api-key": USER},
        {"authorization": f"Basic {ADMIN}"},
        {"authorization": ADMIN},
        {"authorization": "Bearer"},
        {"authorization": "Bearer ' OR 1=1 --"},
        {"x-api-key": "sm_live_" + "0" * 46},
        {"x-api-key": "x" * 5000},
        {"x-api-key": "\xff\xfe\xfd"},
    ],
)
async def test_what_is_no_single_credential_is_refused(
    house: House, headers: dict[str, str]
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    async with httpx.AsyncClient(base_url=house.url) as client:
        for answer in (
            await client.get("/v1/tasks", headers=raw),
            await client.post("/v1/messages", headers=raw, json=CALL),
        ):
            assert answer.status_code == 401
            assert answer.headers["x-request-id"]


def test_the_same_credential_twice_is_one() -> None:
    headers = [(b"authorization", b"Bearer abc"), (b"x-api-key", b"abc"), (b"api-key", b"")]
    assert credential(headers) == "abc"
    assert credential([(b"accept", b"*/*")]) is None
    with pytest.raises(Unauthenticated):
        credential([(b"authorization", b"Bearer abc"), (b"authorization", b"Bearer abd")])


async def test_scopes_hold_over_every_header(house: House) -> None:
    made = await house.client.post(
        "/api/admin/keys", json={"name": "reader", "permissions": ["read:tasks"]}
    )
    key = made.json()["key"]
    async with httpx.AsyncClient(base_url=house.url) as client:
        for headers in ways(key):
            task = {"description": "x"}
            assert (await client.get("/v1/tasks", headers=headers)).status_code == 200
            denied = [
                await client.post("/v1/tasks", headers=headers, json=task),
                await client.post("/v1/task", headers=headers, json=task),
                await client.get("/v1/usage", headers=headers),
                await client.get("/api/admin/keys", headers=headers),
                await client.post("/v1/messages", headers=headers, json=CALL),
            ]
            assert [answer.status_code for answer in denied] == [403] * 5


async def test_a_user_key_manages_nothing(house: House) -> None:
    headers = house.as_key(USER)
    assert (await house.client.get("/api/admin/keys", headers=headers)).status_code == 403
    answer = await house.client.post("/api/admin/keys", headers=headers, json={"name": "more"})
    assert answer.status_code == 403


async def test_a_revoked_key_ends_at_once(house: House) -> None:
    made = (await house.client.post("/api/admin/keys", json={"name": "short"})).json()
    headers = house.as_key(made["key"])
    assert (await house.client.get("/v1/tasks", headers=headers)).status_code == 200
    assert (await house.client.delete(f"/api/admin/keys/{made['id']}")).status_code == 200
    assert (await house.client.get("/v1/tasks", headers=headers)).status_code == 401


# --- runs -------------------------------------------------------------------------------------


async def test_a_run_may_call_models_until_it_ends_and_nothing_else(house: House) -> None:
    seen: dict[str, int] = {}
    token: list[str] = []

    async def work(spec: LaunchSpec) -> None:
        token.append(spec.token)
        transport = httpx.AsyncHTTPTransport(uds=str(spec.gateway_socket))
        headers = {"authorization": f"Bearer {spec.token}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://gateway", headers=headers
        ) as client:
            seen["call"] = (await client.post("/v1/messages", json=CALL)).status_code
            count = await client.post("/v1/messages/count_tokens", json=CALL)
            seen["count"] = count.status_code
            seen["head"] = (await client.head("/")).status_code
            for path in ("/v1/tasks", "/health", "/metrics", "/docs", "/api/admin/keys"):
                answer = await client.get(path)
                assert answer.json()["type"] == "error"
                seen[path] = answer.status_code
            stranger = {"authorization": f"Bearer {ADMIN}"}
            admin = await client.post("/v1/messages", json=CALL, headers=stranger)
            seen["admin"] = admin.status_code
        seen["outside"] = (
            await house.client.get("/v1/tasks", headers=house.as_key(spec.token))
        ).status_code

    house.agent.script = [Call(work), Say("Done.")]
    task = await house.perform()
    assert task["status"] == "completed", task["error"]
    assert seen.pop("call") == seen.pop("count") == seen.pop("head") == 200
    assert seen.pop("admin") == 401
    assert seen.pop("outside") == 403
    assert set(seen.values()) == {404}
    assert task["usage"]["model_calls"] == 1
    assert task["usage"]["total_tokens"] > 0
    after = await house.client.post("/v1/messages", json=CALL, headers=house.as_key(token[0]))
    assert after.status_code == 401
    usage = (await house.client.get("/v1/usage")).json()
    assert usage["total_tokens"] == task["usage"]["total_tokens"]
    assert usage["total_cost"] == task["usage"]["total_cost"]


async def test_a_task_without_money_ends_as_cost_exceeded(house: House) -> None:
    async def work(spec: LaunchSpec) -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(spec.gateway_socket))
        headers = {"authorization": f"Bearer {spec.token}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://gateway", headers=headers
        ) as client:
            answer = await client.post("/v1/messages", json=CALL)
            assert answer.status_code == 402
            assert answer.headers["x-should-retry"] == "false"
        await asyncio.Event().wait()

    house.agent.script = [Call(work)]
    task = await house.perform(max_cost=0)
    assert (task["status"], task["error"]["code"]) == ("cost_exceeded", "budget_exceeded")


# --- without keys -----------------------------------------------------------------------------


@pytest.fixture
def keyless() -> dict[str, str]:
    return {"API_KEY_ENABLED": "false"}


async def test_without_keys_everybody_at_this_machine_is_the_admin(
    open_house: Open, keyless: dict[str, str]
) -> None:
    async with open_house(**keyless) as house, httpx.AsyncClient(base_url=house.url) as client:
        task = await client.post("/v1/task", json={"description": "x"})
        assert task.json()["status"] == "completed"
        keys = await client.get("/api/admin/keys", headers={"x-api-key": "whatever"})
        assert keys.status_code == 200
        call = await client.post("/v1/messages", json=CALL)
        assert call.status_code == 200
        page = {"origin": house.url, "sec-fetch-site": "same-origin"}
        assert (await client.get("/v1/tasks", headers=page)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "[::1"},
        {"host": "0.0.0.0"},
    ],
)
async def test_without_keys_a_foreign_page_gets_nothing(
    open_house: Open, keyless: dict[str, str], headers: dict[str, str]
) -> None:
    async with open_house(**keyless) as house, httpx.AsyncClient(base_url=house.url) as client:
        form: Any = {"task": (None, '{"description": "x"}')}
        answers = [
            await client.get("/v1/tasks", headers=headers),
            await client.post("/v1/tasks", headers=headers, files=form),
            await client.post("/v1/messages", headers=headers, json=CALL),
        ]
        # 400 where the name is none at all.
        assert {answer.status_code for answer in answers} <= {400, 403}
        assert (await client.get("/v1/tasks")).json()["tasks"] == []


async def test_without_keys_a_run_is_still_held_to_its_token(
    open_house: Open, keyless: dict[str, str]
) -> None:
    async with open_house(**keyless) as house:
        seen = {}

        async def work(spec: LaunchSpec) -> None:
            headers = {"x-api-key": spec.token}
            async with httpx.AsyncClient(base_url=house.url, headers=headers) as client:
                seen["tasks"] = (await client.get("/v1/tasks")).status_code
                seen["call"] = (await client.post("/v1/messages", json=CALL)).status_code

        house.agent.script = [Call(work)]
        async with httpx.AsyncClient(base_url=house.url) as client:
            task = (await client.post("/v1/task", json={"description": "x"})).json()
        assert task["status"] == "completed", task["error"]
        assert seen == {"tasks": 403, "call": 200}
