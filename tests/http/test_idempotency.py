"""`Idempotency-Key` over real sockets: done once, whatever is sent again."""

import asyncio
from typing import Any

import httpx
import pytest

from stationmaster.agents.scripted.script import Finish, Say, WaitFor
from stationmaster.kernel.errors import Unavailable, Upstream
from stationmaster.providers.base import ProviderReply, ProviderRequest
from tests.http.conftest import USER, House, Open

KEY = {"idempotency-key": "one"}
TASK = {"description": "Do it."}
CALL = {"model": "haiku", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}


async def tasks(house: House) -> list[Any]:
    found: list[Any] = (await house.client.get("/v1/tasks")).raise_for_status().json()["tasks"]
    return found


async def calls(house: House) -> int:
    usage = (await house.client.get("/v1/usage")).raise_for_status().json()
    return int(usage["total_calls"])


def replayed(answer: httpx.Response) -> bool:
    return bool(answer.headers.get("idempotent-replayed") == "true")


async def test_a_task_is_made_once(house: House) -> None:
    first = await house.client.post("/v1/tasks", json=TASK, headers=KEY)
    again = await house.client.post("/v1/tasks", json=TASK, headers=KEY)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert (replayed(first), replayed(again)) == (False, True)
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(await tasks(house)) == 1


async def test_without_the_header_each_is_its_own(house: House) -> None:
    for _ in range(2):
        await house.client.post("/v1/tasks", json=TASK)
    assert len(await tasks(house)) == 2


async def test_another_body_is_refused_in_the_shape_of_the_route(house: House) -> None:
    await house.client.post("/v1/tasks", json=TASK, headers=KEY)
    other = await house.client.post("/v1/tasks", json={"description": "Else."}, headers=KEY)
    assert other.status_code == other.json()["status"] == 422
    assert other.json()["code"] == "idempotency_key_reused"
    await house.client.post("/v1/messages", json=CALL, headers=KEY)
    call = await house.client.post("/v1/messages", json={**CALL, "max_tokens": 51}, headers=KEY)
    assert call.status_code == 422
    assert call.json()["error"]["type"] == "invalid_request_error"
    query = await house.client.post("/v1/messages?beta=true", json=CALL, headers=KEY)
    assert query.status_code == 422
    assert len(await tasks(house)) == 1


async def test_while_the_first_runs_others_are_told_when_to_come_back(house: House) -> None:
    go = asyncio.Event()
    house.agent.script = [WaitFor(go), Say("Done."), Finish()]
    first = asyncio.create_task(house.client.post("/v1/task", json=TASK, headers=KEY))
    while not await tasks(house):
        await asyncio.sleep(0)
    meanwhile = await house.client.post("/v1/task", json=TASK, headers=KEY)
    assert meanwhile.status_code == 409
    assert meanwhile.headers["x-should-retry"] == "true"
    assert int(meanwhile.headers["retry-after"]) > 0
    go.set()
    assert (await first).status_code == 200
    assert (
        await house.client.post("/v1/task", json=TASK, headers=KEY)
    ).content == first.result().content
    assert len(await tasks(house)) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_model_call_is_answered_again_byte_for_byte_and_billed_once(
    house: House, stream: bool
) -> None:
    body = {**CALL, "stream": stream}
    first = await house.client.post("/v1/messages", json=body, headers=KEY)
    again = await house.client.post("/v1/messages", json=body, headers=KEY)
    assert first.status_code == again.status_code == 200
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert replayed(again)
    assert await calls(house) == 1


async def test_a_client_that_went_finds_its_answer_when_it_comes_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, began = asyncio.Event(), asyncio.Event()
    real = house.application.provider.send

    async def slow(request: ProviderRequest) -> ProviderReply:
        began.set()
        await go.wait()
        return await real(request)

    monkeypatch.setattr(house.application.provider, "send", slow)
    first = asyncio.create_task(house.client.post("/v1/messages", json=CALL, headers=KEY))
    await began.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    go.set()
    async with asyncio.timeout(20):
        while (answer := await house.client.post("/v1/messages", json=CALL, headers=KEY)).is_error:
            assert answer.status_code == 409
    assert replayed(answer)
    assert await calls(house) == 1


async def test_a_failed_call_is_made_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = house.application.provider
    real = provider.send

    async def fails(request: ProviderRequest) -> ProviderReply:
        raise Upstream("It is down.")

    monkeypatch.setattr(provider, "send", fails)
    assert (await house.client.post("/v1/messages", json=CALL, headers=KEY)).status_code == 502
    monkeypatch.setattr(provider, "send", real)
    answer = await house.client.post("/v1/messages", json=CALL, headers=KEY)
    assert (answer.status_code, replayed(answer)) == (200, False)


async def test_a_refusal_leaves_the_key_free(house: House) -> None:
    refused = await house.client.post("/v1/tasks", json={"description": ""}, headers=KEY)
    assert refused.status_code == 422
    assert (await house.client.post("/v1/tasks", json=TASK, headers=KEY)).status_code == 202


async def test_what_failed_after_it_was_done_is_not_done_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = house.services.runs
    real = type(runs).start

    async def dies(*args: Any, **more: Any) -> Any:
        await real(*args, **more)
        raise Unavailable("It went away.")

    monkeypatch.setattr(type(runs), "start", dies)
    assert (await house.client.post("/v1/tasks", json=TASK, headers=KEY)).status_code == 503
    monkeypatch.setattr(type(runs), "start", real)
    again = await house.client.post("/v1/tasks", json=TASK, headers=KEY)
    assert again.status_code == 409
    assert again.json()["code"] == "idempotency_outcome_unknown"
    assert again.headers["x-should-retry"] == "false"
    assert len(await tasks(house)) == 1


async def test_a_new_key_is_shown_again_to_who_made_it(house: House) -> None:
    body = {"name": "made", "permissions": ["read:tasks"]}
    first = await house.client.post("/api/admin/keys", json=body, headers=KEY)
    again = await house.client.post("/api/admin/keys", json=body, headers=KEY)
    assert first.status_code < 300
    assert first.json()["key"] == again.json()["key"]
    stored = (house.settings.data_dir / "stationmaster.db").read_bytes()
    stored += (house.settings.data_dir / "stationmaster.db-wal").read_bytes()
    assert first.json()["key"].encode() not in stored


async def test_anothers_key_is_another(house: House, stranger: dict[str, str]) -> None:
    first = await house.client.post("/v1/tasks", json=TASK, headers=KEY)
    for credential in (stranger, house.as_key(USER)):
        answer = await house.client.post("/v1/tasks", json=TASK, headers={**KEY, **credential})
        assert answer.status_code == 202
        assert answer.json()["task_id"] != first.json()["task_id"]


async def test_without_a_credential_nothing_is_told(house: House) -> None:
    await house.client.post("/v1/tasks", json=TASK, headers=KEY)
    answer = await house.client.post("/v1/tasks", json=TASK, headers={**KEY, **house.as_key(None)})
    assert answer.status_code == 401


async def test_an_upload_is_the_same_whatever_its_boundary(house: House) -> None:
    content = b"--not-the-boundary" * 10_000
    ids = set()
    for boundary in ("first-boundary", "another"):
        answer = await house.client.post(
            "/v1/files",
            files={"file": ("a.txt", content)},
            headers={
                **KEY,
                "anthropic-beta": "files-api-2025-04-14",
                "content-type": f"multipart/form-data; boundary={boundary}",
            },
        )
        assert answer.status_code == 200, answer.text
        ids.add(answer.json()["id"])
    assert len(ids) == 1


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("idempotency-key", "x" * 256)], id="too long"),
        pytest.param([("idempotency-key", "")], id="empty"),
        pytest.param([("idempotency-key", "a"), ("idempotency-key", "b")], id="twice"),
    ],
)
async def test_a_key_that_is_none_is_refused(house: House, headers: list[tuple[str, str]]) -> None:
    answer = await house.client.post("/v1/tasks", json=TASK, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_idempotency_key"
    assert await tasks(house) == []


async def test_where_nobody_has_keys_the_header_means_nothing(house: House) -> None:
    body = {"email": "a@example.org", "password": "wrong-password"}
    for _ in range(2):
        answer = await house.client.post(
            "/v1/auth/login", json=body, headers={**KEY, **house.as_key(None)}
        )
        assert (answer.status_code, replayed(answer)) == (401, False)


async def test_replays_count_against_the_limits(open_house: Open) -> None:
    async with open_house(DEFAULT_RATE_LIMIT="5/minute") as house:
        await house.client.post("/v1/tasks", json=TASK, headers=KEY)
        statuses = [
            (await house.client.post("/v1/tasks", json=TASK, headers=KEY)).status_code
            for _ in range(10)
        ]
        assert statuses[0] == 202
        assert statuses[-1] == 429
