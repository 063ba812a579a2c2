"""What a key is held to, it is held to on every way to a model: limits, budget, models, rights.

A way is a row of `WAYS`; each is gone with a key that is free, and then with one of each `BOUND`.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from stationmaster.agents.scripted.script import Call, Say
from stationmaster.http.routes.app import openapi_document
from tests.http.conftest import House, Open
from tests.http.test_stream_socket import talking
from tests.support.vendor_upstream import MODEL, VendorUpstream

HELLO = [{"role": "user", "content": "Hello."}]
CHAT = {"model": "haiku", "messages": HELLO, "max_tokens": 50}
KEPT = {**CHAT, "temperature": 0}
RIGHTS = ("write:*", "read:*")
PATIENCE_S = 30.0

MANAGED = {"anthropic-beta": "managed-agents-2026-04-01", "anthropic-version": "2023-06-01"}


@dataclass(frozen=True)
class Told:
    """What a caller is told in the end. A `status` of 0 is an error in a frame."""

    status: int
    text: str

    @property
    def done(self) -> bool:
        return self.status == 200


@dataclass
class Caller:
    """Somebody with a key. `inner` is what a model call of his agent was answered."""

    house: House
    key: str
    inner: list[Told] = field(default_factory=list)

    async def post(self, path: str, body: Any, **more: str) -> Told:
        headers = {**self.house.as_key(self.key), **more}
        answer = await self.house.client.post(path, json=body, headers=headers)
        return Told(200 if answer.is_success else answer.status_code, answer.text)

    async def get(self, path: str) -> Any:
        """As the administrator: a key that is held to no request could not look."""
        return (await self.house.client.get(path)).raise_for_status().json()

    async def agent_told(self, asked: Told, events: str | None = None) -> Told:
        """What the agent was told; or, by the `events` of its session, why there was none."""
        if not asked.done:
            return asked
        async with asyncio.timeout(PATIENCE_S):
            while not self.inner:
                for event in (await self.get(events))["data"] if events else ():
                    if event["type"] == "session.error":
                        return Told(0, json.dumps(event))
                await asyncio.sleep(0.02)
        return self.inner[-1]


Go = Callable[[Caller], Awaitable[Told]]


@dataclass(frozen=True)
class Way:
    """`before` is how many requests come before the one that spends. Free is what costs nothing.

    `path` is where it begins, as the OpenAPI document has it.
    """

    path: str
    go: Go
    before: int = 0
    free: bool = False


# --- the ways ---------------------------------------------------------------------------------


def call(path: str, body: Mapping[str, Any], **more: Any) -> Way:
    async def go(caller: Caller) -> Told:
        return await caller.post(path, body)

    return Way(path, go, **more)


def work(path: str, body: Mapping[str, Any]) -> Way:
    """An agent's, which calls a model with its run's token."""

    async def go(caller: Caller) -> Told:
        return await caller.agent_told(await caller.post(path, body))

    return Way(path, go, before=1)


async def prompts(caller: Caller) -> Told:
    told = await caller.post("/v1/batch", {"prompts": [{"prompt": "Hello."}], "model": "haiku"})
    error = json.loads(told.text)["results"][0]["error"] if told.done else None
    return told if error is None else Told(0, json.dumps(error))


async def ended(caller: Caller, path: str, over: Callable[[Any], bool], before: float) -> bool:
    """Whether a batch has ended; not where more was refused than `before`, and it waits."""
    async with asyncio.timeout(PATIENCE_S):
        while not over(await caller.get(path)):
            if await refusals(caller.house) > before:
                return False
            await asyncio.sleep(0.05)
    return True


async def refusals(house: House) -> float:
    """How often a key's limits have refused."""
    shown = (await house.client.get("/metrics")).text
    found = re.findall(r'rate_limited_total\{level="key",unit="\w+"\} (\S+)', shown)
    return sum(map(float, found))


WAITING = Told(429, "The rate limit: it waits.")


async def messages_batch(caller: Caller) -> Told:
    before = await refusals(caller.house)
    requests = [{"custom_id": "one", "params": CHAT}]
    made = await caller.post("/v1/messages/batches", {"requests": requests})
    if not made.done:
        return made
    path = f"/v1/messages/batches/{json.loads(made.text)['id']}"
    if not await ended(caller, path, lambda batch: batch["processing_status"] == "ended", before):
        return WAITING
    result = (await caller.get(f"{path}/results"))["result"]
    return Told(200 if result["type"] == "succeeded" else 0, json.dumps(result))


async def openai_batch(caller: Caller) -> Told:
    before = await refusals(caller.house)
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": CHAT}
    file = await caller.house.client.post(
        "/v1/files",
        files={"file": ("a.jsonl", json.dumps(line).encode())},
        data={"purpose": "batch"},
    )
    asked = {
        "input_file_id": file.raise_for_status().json()["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    made = await caller.post("/v1/batches", asked)
    if not made.done:
        return made
    path = f"/v1/batches/{json.loads(made.text)['id']}"
    if not await ended(caller, path, lambda batch: batch["status"] == "completed", before):
        return WAITING
    batch = await caller.get(path)
    output = await caller.get(
        f"/v1/files/{batch['output_file_id'] or batch['error_file_id']}/content"
    )
    return Told(200 if batch["output_file_id"] else 0, json.dumps(output))


def frame(**asked: Any) -> Way:
    """On the WebSocket."""

    async def go(caller: Caller) -> Told:
        try:
            async with talking(caller.house, caller.key) as talk:
                last = (await talk.answer(**asked))[-1]
        except InvalidStatus as refused:
            return Told(refused.response.status_code, (refused.response.body or b"").decode())
        told = Told(0 if last["type"] == "error" else 200, json.dumps(last))
        return await caller.agent_told(told) if asked["type"] == "agentic_task" else told

    return Way("/v1/stream", go, before=1 + (asked["type"] == "agentic_task"))


async def session(caller: Caller) -> Told:
    """A message into a session that somebody with every right has made."""
    agent = await caller.house.client.post(
        "/v1/agents", json={"name": "one", "model": "haiku"}, headers=MANAGED
    )
    place = await caller.house.client.post(
        "/v1/environments", json={"name": "place"}, headers=MANAGED
    )
    body = {"agent": agent.json()["id"], "environment_id": place.json()["id"]}
    made = await caller.house.client.post("/v1/sessions", json=body, headers=MANAGED)
    message = {"type": "user.message", "content": [{"type": "text", "text": "Hello."}]}
    path = f"/v1/sessions/{made.raise_for_status().json()['id']}/events"
    return await caller.agent_told(await caller.post(path, {"events": [message]}, **MANAGED), path)


EMBEDDED = {"model": "words", "input": ["a"]}
ANSWERED = {"model": "haiku", "input": "Hello."}
STREAM = {"stream": True}

WAYS: Mapping[str, Way] = {
    "a message": call("/v1/messages", CHAT),
    "a message, streamed": call("/v1/messages", CHAT | STREAM),
    "a kept answer": call("/v1/messages", KEPT),
    "a chat": call("/v1/chat/completions", CHAT),
    "a chat, streamed": call("/v1/chat/completions", CHAT | STREAM),
    "a response": call("/v1/responses", ANSWERED),
    "a response, streamed": call("/v1/responses", ANSWERED | STREAM),
    "embeddings": call("/v1/embeddings", EMBEDDED),
    "a process": call(
        "/v1/process", {"provider": "offline", "model_name": "haiku", "user_message": "Hello."}
    ),
    "prompts": Way("/v1/batch", prompts),
    "a batch of messages": Way("/v1/messages/batches", messages_batch, before=1),
    "a batch of OpenAI's": Way("/v1/batches", openai_batch, before=1),
    "a chat on the socket": frame(type="chat", model="haiku", messages=HELLO),
    "a task on the socket": frame(type="agentic_task", description="Hello.", model="haiku"),
    "a task": work("/v1/tasks", {"description": "Hello.", "model": "haiku"}),
    "a task that is waited for": work("/v1/task", {"description": "Hello.", "model": "haiku"}),
    "a job": work("/api/execute", {"prompt": "Hello."}),
    "a session": Way("/v1/sessions/{session_id}/events", session, before=1),
    "an agent as a model": work("/v1/chat/completions", CHAT | {"model": "agent:helper"}),
    "an agent as a model, in Anthropic's": work("/v1/messages", CHAT | {"model": "agent:helper"}),
    "a count": call("/v1/messages/count_tokens", {"model": "haiku", "messages": HELLO}, free=True),
    "a count of OpenAI's": call("/v1/responses/input_tokens", ANSWERED, free=True),
    "an advice": call("/v1/route", {"prompt": "Hello."}, free=True),
}

ELSEWHERE = {
    "/api/stream/{session_id}": "the same turn as /api/execute, with the session in the path",
    "/v1/tasks/{task_id}/cancel": "spends nothing",
}


def test_there_is_no_other_way() -> None:
    """Of what the document calls models, batches, tasks and jobs, each is a row above."""
    kinds = {"models", "tasks", "jobs"}
    paths = {
        path
        for path, ways in openapi_document()["paths"].items()
        if kinds & set(ways.get("post", {}).get("tags", ()))
    }
    known = {way.path for way in WAYS.values()} | set(ELSEWHERE)
    assert paths - known - {"/api/sessions"} == set()  # which makes one, and asks nothing


# --- what holds a key -------------------------------------------------------------------------


@dataclass(frozen=True)
class Bound:
    """`fields` are the key's; with `after` something is done to it. `words`: one must be told."""

    statuses: frozenset[int]
    words: re.Pattern[str]
    fields: Callable[[Way], Mapping[str, Any]] = lambda _: {}
    after: Callable[[House, str], Awaitable[None]] | None = None
    holds: Callable[[Way], bool] = lambda _: True


async def spent(house: House, key_id: str) -> None:
    budget = {"subject": {"type": "key", "id": key_id}, "limit_usd": "0"}
    (await house.client.post("/v1/budgets", json=budget)).raise_for_status()


async def revoked(house: House, key_id: str) -> None:
    (await house.client.delete(f"/api/admin/keys/{key_id}")).raise_for_status()


def limited(**limits: int) -> Callable[[Way], Mapping[str, Any]]:
    return lambda _: {"limits": limits}


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


def costs(way: Way) -> bool:
    return not way.free


BOUNDS: Mapping[str, Bound] = {
    "requests": Bound(
        frozenset({0, 429}),
        _words("rate limit"),
        lambda way: {"limits": {"requests_per_minute": way.before}},
    ),
    "input tokens": Bound(
        frozenset({0, 429}),
        _words("rate limit"),
        limited(input_tokens_per_minute=0),
        holds=costs,
    ),
    "output tokens": Bound(
        frozenset({0, 429}), _words("rate limit"), limited(output_tokens_per_minute=0), holds=costs
    ),
    "calls at once": Bound(
        frozenset({0, 429}), _words("rate limit"), limited(concurrent_calls=0), holds=costs
    ),
    "a spent budget": Bound(
        frozenset({0, 402, 403, 429}), _words("budget|quota"), after=spent, holds=costs
    ),
    "models": Bound(
        frozenset({0, 403}),
        _words("model"),
        lambda _: {"models": ["nothing-*"]},
        holds=lambda way: way.path != "/v1/route",  # which says so in its advice
    ),
    "rights": Bound(
        frozenset({0, 403}), _words("lacks the scope"), lambda _: {"permissions": ["read:usage"]}
    ),
    "a revoked key": Bound(frozenset({401}), _words(""), after=revoked),
}


@pytest.fixture
async def station(open_house: Open, tmp_path: Path) -> AsyncIterator[House]:
    """With a provider that embeds, an agent that calls a model, and a kept answer."""
    async with VendorUpstream() as vendor:
        provider = {"type": "openai", "base_url": f"{vendor.url}/v1", "api_key": "k"}
        words = {
            "targets": [{"provider": "vendor", "model": MODEL}],
            "price": {"input": 1, "output": 1},
        }
        config = {"providers": {"vendor": provider}, "models": {"words": words}}
        (tmp_path / "config.yaml").write_text(json.dumps(config))
        async with open_house() as house:
            helper = {"name": "helper", "model": "haiku"}
            made = await house.client.post("/v1/agents", json=helper, headers=MANAGED)
            made.raise_for_status()
            (await house.client.post("/v1/messages", json=KEPT)).raise_for_status()
            yield house


async def caller_of(house: House, way: Way, bound: Bound | None) -> Caller:
    fields = {} if bound is None else bound.fields(way)
    body = {"name": "held", "permissions": list(RIGHTS), **fields}
    made = await house.client.post("/api/admin/keys", json=body)
    assert made.status_code == 201, made.text
    if bound is not None and bound.after is not None:
        await bound.after(house, made.json()["id"])
    caller = Caller(house, made.json()["key"])

    async def calls_a_model(spec: Any) -> None:
        headers = {"authorization": f"Bearer {spec.token}"}
        answer = await house.client.post("/v1/messages", json=CHAT, headers=headers)
        caller.inner.append(Told(answer.status_code, answer.text))

    house.agent.script = (Call(calls_a_model), Say("Done."))
    return caller


async def spending(house: House) -> Mapping[str, Any]:
    used = (await house.client.get("/v1/usage")).raise_for_status().json()
    return {name: used[name] for name in ("total_calls", "total_cost")}


async def test_every_way_leads_to_a_model(station: House) -> None:
    for name, way in WAYS.items():
        before = await spending(station)
        told = await way.go(await caller_of(station, way, None))
        assert told.done, (name, told)
        cost = (await spending(station))["total_cost"] > before["total_cost"]
        assert cost == (costs(way) and name != "a kept answer"), name


@pytest.mark.parametrize("name", BOUNDS)
async def test_what_holds_a_key_holds_it_on_every_way(station: House, name: str) -> None:
    bound, wrong = BOUNDS[name], []
    before = await spending(station)
    for called, way in WAYS.items():
        if not bound.holds(way):
            continue
        told = await way.go(await caller_of(station, way, bound))
        if told.status not in bound.statuses or not bound.words.search(told.text):
            wrong.append(f"{called}: {told}")
    assert not wrong, "\n".join(wrong)
    assert await spending(station) == before
