"""Rate limits on the real server: what is refused, with which answer, and what is told."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import anthropic
import httpx
import pytest

from stationmaster.settings import Settings
from stationmaster.settings.field import settings_of
from tests.http.conftest import ADMIN, USER, House, Open
from tests.support.rates import GENEROUS

# As an operator has them who sets nothing.
DEFAULTS = {
    item.name: item.default
    for item in settings_of(Settings)
    if item.name in GENEROUS and item.default
}
CALL: dict[str, Any] = {
    "model": "sonnet",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hi"}],
}
RETRY = re.compile(r"[1-9]\d*")


@pytest.fixture
async def limited(open_house: Open) -> AsyncIterator[House]:
    """A server with the limits that it has by default."""
    async with open_house(**DEFAULTS) as house:
        yield house


def check_refusal(answer: httpx.Response) -> None:
    assert answer.status_code == 429
    assert RETRY.fullmatch(answer.headers["retry-after"])
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert "x-should-retry" not in answer.headers
    assert answer.headers["x-ratelimit-remaining"] == "0"


def check_problem(answer: httpx.Response) -> None:
    check_refusal(answer)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "rate_limit_exceeded"
    assert problem["status"] == 429
    assert problem["request_id"] == answer.headers["x-request-id"]


async def messages(house: House, **more: Any) -> httpx.Response:
    return await house.client.post("/v1/messages", json=CALL, **more)


async def test_the_101st_call_of_a_minute_is_refused_in_anthropics_shape(limited: House) -> None:
    for number in range(100):
        answer = await messages(limited)
        assert answer.status_code == 200, number
        assert answer.headers["x-ratelimit-remaining"] == str(99 - number)
    refused = await messages(limited)
    check_refusal(refused)
    body = refused.json()
    assert body["type"] == "error"
    assert body["error"]["type"] == "rate_limit_error"
    assert "100 requests in a minute" in body["error"]["message"]
    assert body["request_id"] == refused.headers["request-id"]


async def test_the_11th_task_of_a_minute_is_refused(limited: House) -> None:
    for number in range(10):
        answer = await limited.client.post("/v1/tasks", json={"description": f"Task {number}."})
        assert answer.status_code == 202
    check_problem(await limited.client.post("/v1/tasks", json={"description": "One more."}))
    check_problem(await limited.client.post("/v1/task", json={"description": "One more."}))
    listed = await limited.client.get("/v1/tasks", params={"limit": 100})
    assert listed.status_code == 200, "other kinds of requests are not affected"
    assert len(listed.json()["tasks"]) == 10, "what was refused has changed nothing"


async def test_a_burst_of_150_and_not_one_more(limited: House) -> None:
    for _ in range(150):
        assert (await limited.client.get("/v1/tasks")).status_code == 200
    check_problem(await limited.client.get("/v1/tasks"))


async def test_keys_do_not_pay_for_each_other(open_house: Open) -> None:
    async with open_house(RATE_LIMIT_READ="2") as house:
        for _ in range(2):
            await house.client.get("/v1/tasks")
        check_problem(await house.client.get("/v1/tasks"))
        other = await house.client.get("/v1/tasks", headers=house.as_key(USER))
        assert other.status_code == 200


async def test_every_vendor_finds_its_headers(limited: House) -> None:
    answer = await messages(limited)
    assert answer.headers["x-ratelimit-limit"] == "100"
    assert answer.headers["x-ratelimit-limit-requests"] == "100"
    assert re.fullmatch(r"(\d+m)?\d+(s|ms)", answer.headers["x-ratelimit-reset-requests"])
    assert answer.headers["anthropic-ratelimit-requests-limit"] == "100"
    assert answer.headers["anthropic-ratelimit-requests-remaining"] == "99"
    reset = answer.headers["anthropic-ratelimit-requests-reset"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", reset)
    listed = await limited.client.get("/v1/usage")
    assert listed.headers["x-ratelimit-limit"] == "45"
    streamed = await limited.client.post("/v1/messages", json={**CALL, "stream": True})
    assert streamed.headers["x-ratelimit-remaining"] == "98"


async def test_tokens_are_limited_and_told(open_house: Open) -> None:
    async with open_house(
        RATE_LIMIT_INPUT_TOKENS="1000", RATE_LIMIT_OUTPUT_TOKENS="100000"
    ) as house:
        answer = await messages(house)
        assert answer.headers["anthropic-ratelimit-input-tokens-limit"] == "1000"
        assert answer.headers["anthropic-ratelimit-output-tokens-remaining"] == "99900"
        assert answer.headers["anthropic-ratelimit-tokens-limit"] == "1000"
        assert answer.headers["x-ratelimit-limit-tokens"] == "1000"
        long = {**CALL, "messages": [{"role": "user", "content": "word " * 2_000}]}
        assert (await house.client.post("/v1/messages", json=long)).status_code == 429
        again = await messages(house)
        assert again.status_code == 200, "what was refused took nothing"
        counted = await house.client.post("/v1/messages/count_tokens", json=CALL)
        assert counted.status_code == 200
        assert counted.headers["x-ratelimit-remaining"]


async def test_the_official_client_understands(open_house: Open) -> None:
    async with open_house(RATE_LIMIT_CHAT="1") as house:
        sdk = anthropic.AsyncAnthropic(base_url=house.url, auth_token=ADMIN, max_retries=0)
        async with sdk:
            await sdk.messages.create(**CALL)
            with pytest.raises(anthropic.RateLimitError) as refusal:
                await sdk.messages.create(**CALL)
        assert int(refusal.value.response.headers["retry-after"]) >= 1


async def test_where_waiting_cannot_help_no_client_is_told_to(open_house: Open) -> None:
    async with open_house(RATE_LIMIT_CHAT="0", RATE_LIMIT_READ="0") as house:
        for answer in (await messages(house), await house.client.get("/v1/tasks")):
            assert answer.status_code == 429
            assert answer.headers["x-should-retry"] == "false"
            assert "retry-after" not in answer.headers


async def test_calls_at_once_are_limited_and_the_place_comes_back(open_house: Open) -> None:
    async with open_house(RATE_LIMIT_CONCURRENT_CALLS="1") as house:
        for _ in range(3):
            assert (await messages(house)).status_code == 200
        async with house.client.stream("POST", "/v1/messages", json={**CALL, "stream": True}):
            pass  # and away, before the end
        for _ in range(3):
            while (answer := await messages(house)).status_code != 200:
                assert answer.status_code == 429


async def test_bad_credentials_of_an_address_are_looked_at_so_often_only(
    open_house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(RATE_LIMIT_FAILURES="5") as house:
        looked_at = 0
        resolver = house.services.resolver
        really = resolver._look_up

        async def look_up(*args: Any) -> Any:
            nonlocal looked_at
            looked_at += 1
            return await really(*args)

        monkeypatch.setattr(resolver, "_look_up", look_up)
        answers = []
        for number in range(12):
            path = "/v1/tasks" if number % 2 else "/v1/messages"
            method = "GET" if number % 2 else "POST"
            wrong = house.as_key(f"a-wrong-key-number-{number}")
            answers.append(await house.client.request(method, path, headers=wrong))
        assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 7
        assert looked_at == 5
        assert int(answers[-1].headers["retry-after"]) >= 1
        stranger = await house.client.get("/v1/tasks", headers=house.as_key(USER))
        assert stranger.status_code == 429, "a key that nobody has seen yet could be a guess"
        monkeypatch.undo()


async def test_who_is_known_does_not_pay_for_the_neighbours(open_house: Open) -> None:
    async with open_house(RATE_LIMIT_FAILURES="2") as house:
        assert (await house.client.get("/v1/tasks")).status_code == 200
        for number in range(5):
            await house.client.get("/v1/tasks", headers=house.as_key(f"a-wrong-key-{number}-of-5"))
        assert (await house.client.get("/v1/tasks")).status_code == 200


async def test_no_key_at_all_is_no_guess(open_house: Open) -> None:
    async with open_house(RATE_LIMIT_FAILURES="2") as house:
        for _ in range(5):
            answer = await house.client.get("/v1/tasks", headers=house.as_key(None))
            assert answer.status_code == 401


async def test_signing_in_is_limited_by_address(open_house: Open) -> None:
    async with open_house(RATE_LIMIT_AUTH="3/hour") as house:
        credentials = {"email": "nobody@example.org", "password": "not-the-password"}
        for _ in range(3):
            answer = await house.client.post("/v1/auth/login", json=credentials)
            assert answer.status_code == 401
        refused = await house.client.post("/v1/auth/login", json=credentials)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 3_000
        assert (await house.client.get("/v1/tasks")).status_code == 200


async def test_a_keys_own_limit_holds_from_its_making(open_house: Open) -> None:
    async with open_house() as house:
        wanted = {"name": "slow-one", "permissions": ["read:tasks"], "rate_limit": 2}
        made = await house.client.post("/api/admin/keys", json=wanted)
        assert made.status_code == 201, made.text
        slow = house.as_key(made.json()["key"])
        statuses = [
            (await house.client.get("/v1/tasks", headers=slow)).status_code for _ in range(3)
        ]
        assert statuses == [200, 200, 429]
        assert (await house.client.get("/v1/tasks")).status_code == 200


async def test_probes_and_metrics_are_exempt(open_house: Open) -> None:
    async with open_house(
        RATE_LIMIT_FAILURES="1", RATE_LIMIT_READ="1", DEFAULT_RATE_LIMIT="1"
    ) as house:
        for path in ("/live", "/ready", "/health", "/metrics"):
            for key in (ADMIN, None, "a-wrong-key-0123456789"):
                for _ in range(3):
                    answer = await house.client.get(path, headers=house.as_key(key))
                    assert answer.status_code == 200, path
                    assert "x-ratelimit-limit" not in answer.headers


async def test_the_switch_turns_everything_off(open_house: Open) -> None:
    off = dict.fromkeys(GENEROUS, "1")
    async with open_house(RATE_LIMIT_ENABLED="false", **off) as house:
        for _ in range(5):
            answer = await messages(house)
            assert answer.status_code == 200
            assert "x-ratelimit-limit" not in answer.headers
            wrong = await house.client.get("/v1/tasks", headers=house.as_key("a-wrong-key-123456"))
            assert wrong.status_code == 401


async def test_refusals_are_counted_by_level(open_house: Open) -> None:
    async with open_house(RATE_LIMIT_READ="1", RATE_LIMIT_GLOBAL="3") as house:
        for _ in range(2):
            await house.client.get("/v1/tasks")
        for _ in range(3):
            await messages(house)
        metrics = (await house.client.get("/metrics")).text
    assert 'rate_limited_total{level="class",unit="requests"} 1.0' in metrics
    assert 'rate_limited_total{level="global",unit="requests"} 1.0' in metrics


async def test_replicas_share_limits_through_redis(open_house: Open, redis_url: str) -> None:
    async with AsyncExitStack() as stack:
        houses = [
            await stack.enter_async_context(
                open_house(
                    REDIS_URL=redis_url, RATE_LIMIT_READ="10", RATE_LIMIT_CONCURRENT_CALLS="5"
                )
            )
            for _ in range(2)
        ]
        statuses = [
            (await houses[number % 2].client.get("/v1/tasks")).status_code for number in range(14)
        ]
        assert statuses == [200] * 10 + [429] * 4
        for number in range(12):
            assert (await messages(houses[number % 2])).status_code == 200
        health = (await houses[0].client.get("/health")).json()
        assert health["services"]["rate_limits"]["store"] == "redis"


async def test_without_its_redis_the_server_goes_on_alone_and_says_so(
    open_house: Open,
) -> None:
    async with open_house(REDIS_URL="redis://127.0.0.1:1/0", RATE_LIMIT_READ="3") as house:
        statuses = [(await house.client.get("/v1/tasks")).status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        assert (await messages(house)).status_code == 200
        health = (await house.client.get("/health")).json()
        assert health["status"] == "degraded"
        assert (await house.client.get("/ready")).status_code == 200
        metrics = (await house.client.get("/metrics")).text
    assert "rate_limits_shared 0.0" in metrics
