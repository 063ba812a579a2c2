"""Self-hosted environments: their work, their keys, and the tools that are run elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types.beta.environments import BetaHeartbeatPreconditionFailedError

from stationmaster.agents.scripted import Say, UseTool, WaitFor
from tests.http.conftest import ADMIN, STRANGER, House, Open
from tests.http.hosting import Hosted, as_worker, hosted, new_key, token_of
from tests.http.managed import ASK, PATIENCE, TOOLSET, WEATHER, Talk, said, text, types
from tests.http.test_authorization_matrix import NEVER, OPEN, ROWS, Visitor
from tests.support.sdk import check, sdk

NO_BEAT = "NO_HEARTBEAT"
LS = {"command": "ls"}


@pytest.fixture
async def house(open_house: Open) -> AsyncIterator[House]:
    """With nothing launched ahead: the last agent launched is the one at work."""
    async with open_house(AGENT_POOL_SIZE="0") as opened:
        yield opened


@pytest.fixture
async def client(house: House) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk(house.url, ADMIN) as made:
        yield made


@pytest.fixture
async def there(client: anthropic.AsyncAnthropic) -> Hosted:
    return await hosted(client)


async def until(condition: Callable[[], Any]) -> Any:
    async with asyncio.timeout(PATIENCE):
        while not (found := await condition()):
            await asyncio.sleep(0.05)
    return found


async def taken(there: Hosted, **options: Any) -> Any:
    """Work as a worker takes it: polled, acknowledged, begun."""
    worker = there.worker().beta.environments.work
    item = await worker.poll(there.id, block_ms=999, **options)
    assert item is not None
    check(item)
    acked = check(await worker.ack(item.id, environment_id=there.id))
    assert acked.state == "starting"
    assert acked.secret is None
    return item


async def beat(there: Hosted, item: Any, expected: str | None, **more: Any) -> Any:
    work = there.worker().beta.environments.work
    if expected is not None:
        more["expected_last_heartbeat"] = expected
    return check(await work.heartbeat(item.id, environment_id=there.id, **more))


async def keep(there: Hosted, item: Any) -> None:
    """Send heartbeats, as a worker does beside its work."""
    last = NO_BEAT
    while True:
        last = (await beat(there, item, last)).last_heartbeat
        await asyncio.sleep(0.3)


@asynccontextmanager
async def background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def serving(there: Hosted, item: Any, session: Talk) -> Talk:
    """The session as the worker sees it, by the secret of its work."""
    return Talk(there.worker(token_of(item.secret)), session.id)


def result(use: str, words: str = "a.txt", **more: Any) -> Any:
    content = [{"type": "text", "text": words}]
    return {"type": "user.tool_result", "tool_use_id": use, "content": content, **more}


# --- the queue --------------------------------------------------------------------------------


async def test_work_from_the_queue_to_its_end(there: Hosted) -> None:
    work, operator = there.worker().beta.environments.work, there.client.beta.environments.work
    assert await work.poll(there.id) is None
    session = await there.talk(TOOLSET)
    stats = check(await operator.stats(there.id))
    assert (stats.depth, stats.pending, stats.workers_polling) == (1, 0, 0)
    assert stats.oldest_queued_at

    item = await work.poll(there.id, block_ms=999, anthropic_worker_id="w1")
    assert item is not None
    check(item)
    assert (item.state, item.data.id, item.environment_id) == ("queued", session.id, there.id)
    stats = check(await operator.stats(there.id))
    assert (stats.depth, stats.pending, stats.workers_polling) == (0, 1, 1)
    with pytest.raises(BetaHeartbeatPreconditionFailedError):
        await beat(there, item, NO_BEAT)  # nobody has acknowledged it
    for _ in range(2):  # the answer to the first may have been lost
        assert check(await work.ack(item.id, environment_id=there.id)).state == "starting"
    stats = check(await operator.stats(there.id))
    assert (stats.depth, stats.pending, stats.oldest_queued_at) == (0, 0, None)

    first = await beat(there, item, NO_BEAT)
    assert (first.state, first.lease_extended, first.ttl_seconds) == ("active", True, 60)
    second = await beat(there, item, first.last_heartbeat, desired_ttl_seconds=7)
    assert second.ttl_seconds == 7
    assert second.last_heartbeat > first.last_heartbeat
    for wrong in (first.last_heartbeat, NO_BEAT, "x"):
        with pytest.raises(BetaHeartbeatPreconditionFailedError) as caught:
            await beat(there, item, wrong)
        state = caught.value.details.current_state
        assert (state.state, state.last_heartbeat) == ("active", second.last_heartbeat)
        assert (state.lease_extended, state.ttl_seconds) == (False, 7)
    assert (await beat(there, item, None, desired_ttl_seconds=9999)).ttl_seconds == 60
    with pytest.raises(anthropic.ConflictError):
        await work.ack(item.id, environment_id=there.id)

    shown = check(await operator.retrieve(item.id, environment_id=there.id))
    assert shown.started_at
    assert shown.latest_heartbeat_at
    assert shown.secret is None
    changed = await operator.update(item.id, environment_id=there.id, metadata={"host": "h1"})
    assert check(changed).metadata == {"host": "h1"}
    listed = [check(each).id async for each in work.list(there.id, limit=1)]
    assert listed == [item.id]

    stopping = check(await operator.stop(item.id, environment_id=there.id))
    assert (stopping.state, stopping.stopped_at) == ("stopping", None)
    told = await beat(there, item, "whatever")
    assert (told.state, told.lease_extended) == ("stopping", False)
    mine = there.worker(token_of(item.secret)).beta.environments.work
    stopped = check(await mine.stop(item.id, environment_id=there.id, force=True))
    assert stopped.state == "stopped"
    assert stopped.stopped_at
    with pytest.raises(anthropic.ConflictError):
        await operator.stop(item.id, environment_id=there.id, force=True)
    with pytest.raises(anthropic.AuthenticationError):
        await mine.stop(item.id, environment_id=there.id, force=True)
    assert await work.poll(there.id) is None, "no turn is at work"


async def test_a_poll_waits_for_work(there: Hosted, house: House) -> None:
    house.agent.script = [Say("Done.")]
    session = await there.talk(TOOLSET)
    item = await taken(there)
    work = there.worker().beta.environments.work
    await work.stop(item.id, environment_id=there.id, force=True)
    polling = asyncio.create_task(work.poll(there.id, block_ms=999))
    await session.send(text("Again."))
    found = await polling
    assert found is not None
    assert found.id != item.id
    assert found.data.id == session.id


async def test_each_piece_of_work_is_given_out_once(there: Hosted) -> None:
    sessions = [await there.talk(TOOLSET) for _ in range(6)]
    work = there.worker().beta.environments.work
    found = await asyncio.gather(*(work.poll(there.id) for _ in range(8)))
    given = [item.data.id for item in found if item is not None]
    assert len(given) == len(set(given))
    while (item := await work.poll(there.id)) is not None:
        given.append(item.data.id)
    assert sorted(given) == sorted(session.id for session in sessions)


async def test_what_was_not_acknowledged_is_given_out_again(there: Hosted) -> None:
    session = await there.talk(TOOLSET)
    work = there.worker().beta.environments.work
    first = await work.poll(there.id)
    assert first is not None
    assert await work.poll(there.id) is None
    second = await work.poll(there.id, reclaim_older_than_ms=0)
    assert second is not None
    assert second.id == first.id
    with pytest.raises(anthropic.AuthenticationError):
        await serving(there, first, session).shown()
    await serving(there, second, session).shown()


async def test_a_session_that_is_over_has_no_work(there: Hosted) -> None:
    sessions = there.client.beta.sessions
    first, second = await there.talk(TOOLSET), await there.talk(TOOLSET)
    item = await taken(there)
    assert item.data.id == first.id
    await sessions.archive(first.id)
    assert (await beat(there, item, NO_BEAT)).state == "stopping"
    await sessions.delete(second.id)
    assert await there.worker().beta.environments.work.poll(there.id) is None


async def test_what_a_worker_cannot_be_given_is_refused(
    there: Hosted, client: anthropic.AsyncAnthropic
) -> None:
    session = await there.talk(TOOLSET)
    file = await client.beta.files.upload(file=("a.txt", b"x", "text/plain"))
    resource: Any = {"type": "file", "file_id": file.id}
    with pytest.raises(anthropic.BadRequestError):
        await there.talk(TOOLSET, resources=[resource])
    with pytest.raises(anthropic.BadRequestError):
        await client.beta.sessions.resources.add(session.id, **resource)
    for config in ({"type": "cloud"}, {"type": "self_hosted", "packages": {}}):
        with pytest.raises(anthropic.BadRequestError):
            await client.beta.environments.update(there.id, config=config)  # type: ignore[arg-type]
    here = await client.beta.environments.create(name="Here")
    with pytest.raises(anthropic.BadRequestError):
        await new_key(client, here.id)
    with pytest.raises(anthropic.BadRequestError):
        await client.beta.environments.work.stats(here.id)


# --- who may ----------------------------------------------------------------------------------


async def test_a_key_is_shown_once_and_ends_at_once(there: Hosted, house: House) -> None:
    path = f"/v1/environments/{there.id}/keys"
    made = await house.client.post(path, json={"name": "worker-1", "expires_in_seconds": 60})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    key = made.json()
    assert key["expires_at"]
    listed = (await house.client.get(path, params={"limit": 1})).json()
    assert [each["id"] for each in listed["data"]] == [key["id"]]
    assert listed["next_page"] == key["id"]
    assert key["key"] not in str(listed)

    session = await there.talk(TOOLSET)
    work = as_worker(there.client, key["key"]).beta.environments.work
    item = await work.poll(there.id)
    assert item is not None
    worker = serving(there, item, session)
    await worker.shown()
    assert (await house.client.delete(f"{path}/{key['id']}")).json()["status"] == "archived"
    for ask in (work.poll(there.id), work.ack(item.id, environment_id=there.id), worker.shown()):
        with pytest.raises(anthropic.AuthenticationError):
            await ask
    assert (await house.client.delete(f"{path}/{key['id']}")).status_code == 200
    other = await house.client.post("/api/admin/keys", json={"name": "other"})
    answer = await house.client.delete(f"{path}/{other.json()['id']}")
    assert answer.status_code == 404, "only keys of the environment"
    for wrong in ({"expires_in_seconds": 0}, {"name": "x"}, {"scopes": ["*"]}):
        assert (await house.client.post(path, json=wrong)).status_code == 400


async def test_a_key_that_has_expired(client: anthropic.AsyncAnthropic) -> None:
    there = await hosted(client, expires_in_seconds=1)

    async def is_over() -> bool:
        try:
            await there.worker().beta.environments.work.poll(there.id)
        except anthropic.AuthenticationError:
            return True
        return False

    assert await until(is_over)


async def test_workers_see_their_own_environment_alone(
    there: Hosted, client: anthropic.AsyncAnthropic, house: House, stranger: dict[str, str]
) -> None:
    other = await hosted(client)
    session, foreign = await there.talk(TOOLSET), await other.talk(TOOLSET)
    second = await there.talk(TOOLSET)
    item = await taken(there)
    theirs = await taken(other)
    for credential in (other.key, STRANGER):
        work = there.worker(credential).beta.environments.work
        for ask in (
            work.poll(there.id),
            work.ack(item.id, environment_id=there.id),
            work.heartbeat(item.id, environment_id=there.id),
            work.stop(item.id, environment_id=there.id),
            work.stats(there.id),
            work.list(there.id),
            Talk(there.worker(credential), session.id).shown(),
        ):
            with pytest.raises(anthropic.NotFoundError):
                await ask
    with pytest.raises(anthropic.AuthenticationError):
        await there.worker("wrong-key-0123456789").beta.environments.work.poll(there.id)

    secret = there.worker(token_of(item.secret))
    for ask in (
        secret.beta.environments.work.stop(theirs.id, environment_id=other.id),
        secret.beta.environments.work.heartbeat(theirs.id, environment_id=there.id),
        Talk(secret, foreign.id).shown(),
        Talk(secret, second.id).shown(),
        Talk(secret, second.id).send(result("sevt_x")),
    ):
        with pytest.raises(anthropic.NotFoundError):
            await ask
    for ask in (
        secret.beta.environments.work.poll(there.id),
        secret.beta.environments.work.list(there.id),
        secret.beta.environments.work.stats(there.id),
        secret.beta.environments.work.ack(item.id, environment_id=there.id),
        Talk(secret, session.id).send(text("I am the user.")),
        Talk(secret, session.id).send({"type": "user.interrupt"}),
        Talk(there.worker(), session.id).send(text("So am I.")),
        there.worker().beta.environments.work.retrieve(item.id, environment_id=there.id),
    ):
        with pytest.raises(anthropic.PermissionDeniedError):
            await ask
    assert (await Talk(secret, session.id).shown()).id == session.id
    assert (await Talk(there.worker(), second.id).shown()).id == second.id


@pytest.mark.parametrize("credential", ["environment key", "secret of work"])
async def test_a_worker_may_do_nothing_else(open_house: Open, credential: str) -> None:
    """Each route of the server, but those of its work."""
    async with open_house(RATE_LIMIT_ENABLED="false") as house, sdk(house.url, ADMIN) as client:
        there = await hosted(client)
        session = await there.talk(TOOLSET)
        item = await taken(there)
        key = there.key if credential == "environment key" else token_of(item.secret)
        ids = NEVER | {
            "environment_id": there.id,
            "session_id": session.id,
            "work_id": item.id,
            "key_id": there.key_id,
        }
        visitor = Visitor(house, key, ids)
        own = {name for name, row in ROWS.items() if row.scopes == OPEN}
        own |= {name for name in ROWS if "/work" in name}
        own |= {
            "GET /v1/sessions/{session_id}",
            "GET /v1/sessions/{session_id}/events",
            "GET /v1/sessions/{session_id}/events/stream",
        }
        asked = [name for name in ROWS if name not in own]
        assert len(asked) > 150
        for name in asked:
            answer = await visitor.ask(name)
            await visitor.expect(name, answer, answer.status_code in {401, 403}, "403")
        assert not visitor.wrong, "\n".join(visitor.wrong)


# --- tools ------------------------------------------------------------------------------------


async def asked_for(session: Talk, *events: Any) -> Any:
    """Send; return the tool call that the session then waits with."""
    found = await session.say(*events)
    assert found[-1].stop_reason.type == "requires_action"
    [use] = found[-1].stop_reason.event_ids
    return next(event for event in await session.events() if event.id == use)


async def test_a_tool_is_run_by_the_worker(there: Hosted, house: House) -> None:
    house.agent.script = [UseTool("bash", LS), Say("Thanks.")]
    session = await there.talk(TOOLSET, WEATHER)
    item = await taken(there)
    worker = serving(there, item, session)
    use = await asked_for(session, text("Look around."))
    assert (use.type, use.name, use.input) == ("agent.tool_use", "bash", LS)
    assert use.evaluated_permission == "allow"
    spec = house.agent.launched[-1]
    assert spec.tools == ()
    names = {"bash", "read", "write", "edit", "glob", "grep", "weather"}
    assert {tool.name for tool in spec.custom_tools} == names

    async with session.stream() as stream:
        sent = await worker.send(result(use.id, "a.txt b.txt"))
        events = await session.until_idle(stream)
    [told] = sent.data
    assert (told.type, told.tool_use_id) == ("user.tool_result", use.id)
    assert said(events) == "Thanks."
    kept = await worker.events()
    assert types(kept).count("user.tool_result") == 1
    assert "agent.tool_result" not in types(kept), "its result is the worker's"
    assert [check(each).data for each in (await worker.send(result(use.id, "again")),)] == [[]]
    assert types(await session.events()).count("user.tool_result") == 1
    with pytest.raises(anthropic.BadRequestError):
        await worker.send(result("sevt_01jd3k00000000000000000000"))


async def test_a_result_that_cannot_be_taken_is_told_as_an_error(
    there: Hosted, house: House
) -> None:
    house.agent.script = [UseTool("read", {"file_path": "a.png"}), Say("I see.")]
    session = await there.talk(TOOLSET)
    item = await taken(there)
    use = await asked_for(session, text("Look at it."))
    source = {"type": "base64", "media_type": "image/png", "data": "eA=="}
    broken: Any = {**result(use.id), "content": [{"type": "image", "source": source}]}
    async with session.stream() as stream:
        [told] = (await serving(there, item, session).send(broken)).data
        assert said(await session.until_idle(stream)) == "I see."
    assert told.is_error
    assert "could not be taken" in told.content[0].text


@pytest.mark.parametrize("word", ["allow", "deny"])
async def test_a_call_that_is_asked_about_waits_for_a_word_first(
    there: Hosted, house: House, word: str
) -> None:
    house.agent.script = [UseTool("bash", LS), Say("Well.")]
    session = await there.talk(ASK)
    item = await taken(there)
    worker = serving(there, item, session)
    use = await asked_for(session, text("Look around."))
    assert use.evaluated_permission == "ask"
    with pytest.raises(anthropic.BadRequestError, match="a confirmation"):
        await worker.send(result(use.id))
    said_so: Any = {"type": "user.tool_confirmation", "tool_use_id": use.id, "result": word}
    with pytest.raises(anthropic.PermissionDeniedError):
        await worker.send(said_so)
    async with session.stream() as stream:
        await session.send(said_so)
        if word == "allow":
            # At once: the worker may be faster than anybody here.
            await worker.send(result(use.id))
        async with asyncio.timeout(PATIENCE):
            while "Well." not in said(await session.until_idle(stream)):
                pass
    kept = types(await session.events())
    assert kept.count("user.tool_result") == (1 if word == "allow" else 0)
    assert kept.count("agent.tool_result") == (0 if word == "allow" else 1)


async def test_approvals_change_no_input_of_a_call_that_a_worker_runs(
    there: Hosted, house: House
) -> None:
    house.agent.script = [UseTool("bash", LS), Say("Well.")]
    session = await there.talk(ASK)
    item = await taken(there)
    use = await asked_for(session, text("Look around."))
    [waiting] = (await house.client.get("/v1/approvals")).json()["approvals"]
    path = f"/v1/approvals/{waiting['id']}"
    other = await house.client.post(path, json={"decision": "allow", "input": {"command": "id"}})
    assert other.status_code == 400
    allowed = (await house.client.post(path, json={"decision": "allow"})).json()
    assert (allowed["kind"], allowed["state"]) == ("tool", "pending")
    assert (await house.client.post(path, json={"decision": "deny"})).status_code == 400
    async with session.stream() as stream:
        await serving(there, item, session).send(result(use.id))
        assert said(await session.until_idle(stream)) == "Well."
    assert (await house.client.get(path)).json()["state"] == "answered"


async def test_a_rule_denies_before_a_worker_hears_of_it(there: Hosted, house: House) -> None:
    house.agent.script = [UseTool("bash", {"command": "rm -rf /"}), Say("Well.")]
    rules = [{"tool": "bash", "action": "deny", "pattern": "rm *"}]
    session = await there.talk(TOOLSET, extra_body={"rules": rules})
    events = await session.say(text("Tidy up."))
    assert said(events) == "Well."
    use = next(event for event in events if event.type == "agent.tool_use")
    assert use.evaluated_permission == "deny"
    assert "user.tool_result" not in types(await session.events())


@pytest.mark.parametrize("tools", [TOOLSET, ASK])
async def test_an_interrupt_leaves_nothing_for_a_worker_to_do(
    there: Hosted, house: House, tools: Any
) -> None:
    house.agent.script = [UseTool("bash", LS), WaitFor(asyncio.Event())]
    session = await there.talk(tools)
    item = await taken(there)
    use = await asked_for(session, text("Look around."))
    async with session.stream() as stream:
        await session.send({"type": "user.interrupt"})
        async with asyncio.timeout(PATIENCE):
            async for event in stream:
                if event.type == "session.status_idle" and event.stop_reason.type == "end_turn":
                    break
    answers = [
        event
        for event in await session.events()
        if event.type in {"user.tool_result", "user.tool_confirmation"}
    ]
    assert [event.tool_use_id for event in answers] == [use.id]
    if tools is TOOLSET:
        late = await serving(there, item, session).send(result(use.id))
        assert late.data == []


# --- workers that are lost --------------------------------------------------------------------


async def test_a_lost_worker_s_calls_are_told_as_unknown(open_house: Open) -> None:
    async with (
        open_house(WORK_LEASE_TIME="2s", AGENT_POOL_SIZE="0") as house,
        sdk(house.url, ADMIN) as client,
    ):
        house.agent.script = [UseTool("bash", LS), UseTool("bash", LS), Say("Well.")]
        there = await hosted(client)
        session = await there.talk(TOOLSET)
        item = await taken(there)
        async with background(keep(there, item)):
            use = await asked_for(session, text("Look around."))
        last = await beat(there, item, None)
        lost = serving(there, item, session)

        async def answered() -> Any:
            found = [e for e in await session.events() if e.type == "user.tool_result"]
            return found[0] if found else None

        told = await until(answered)
        assert told.tool_use_id == use.id
        assert told.is_error
        assert "not known" in told.content[0].text
        with pytest.raises(BetaHeartbeatPreconditionFailedError) as caught:
            await beat(there, item, last.last_heartbeat)
        assert caught.value.details.current_state.last_heartbeat is None
        with pytest.raises(anthropic.AuthenticationError):
            await lost.send(result(use.id))

        again = await taken(there)
        assert again.id == item.id
        async with background(keep(there, again)):

            async def second_call() -> Any:
                uses = [e.id for e in await session.events() if e.type == "agent.tool_use"]
                return uses[1] if len(uses) > 1 else None

            second = await until(second_call)
            async with session.stream() as stream:
                await serving(there, again, session).send(result(second))
                async with asyncio.timeout(PATIENCE):
                    while "Well." not in said(await session.until_idle(stream)):
                        pass
        results = [e for e in await session.events() if e.type == "user.tool_result"]
        assert [(e.tool_use_id, e.is_error) for e in results] == [(use.id, True), (second, False)]


async def test_work_that_stops_during_a_turn_is_there_again(there: Hosted, house: House) -> None:
    house.agent.script = [UseTool("bash", LS), UseTool("bash", LS), Say("Well.")]
    session = await there.talk(TOOLSET)
    item = await taken(there)
    use = await asked_for(session, text("Look around."))
    work = there.worker().beta.environments.work
    await work.stop(item.id, environment_id=there.id, force=True)
    found = [e for e in await session.events() if e.type == "user.tool_result"]
    assert [(e.tool_use_id, e.is_error) for e in found] == [(use.id, True)]
    again = await taken(there)
    assert again.id != item.id
    assert again.data.id == session.id


async def test_hostile_words_from_workers(there: Hosted, house: House) -> None:
    await there.talk(TOOLSET)
    item = await taken(there)
    path = f"/v1/environments/{there.id}/work"
    headers = house.as_key(there.key)

    async def ask(method: str, tail: str, **more: Any) -> httpx.Response:
        return await house.client.request(method, path + tail, headers=headers, **more)

    for tail in (
        *("/poll?block_ms=0", "/poll?block_ms=1000", "/poll?block_ms=x", "/poll?more=1"),
        *("/poll?reclaim_older_than_ms=-1", "?limit=0", "?page=x", "?page=work_x"),
    ):
        assert (await ask("GET", tail)).status_code == 400, tail
    beats = (
        *("desired_ttl_seconds=0", "desired_ttl_seconds=-5", "desired_ttl_seconds=1e9"),
        "expected_last_heartbeat=" + "x" * 65,
    )
    for query in beats:
        answer = await ask("POST", f"/{item.id}/heartbeat?{query}")
        assert answer.status_code == 400, query
    assert (await ask("POST", f"/{item.id}/stop", json={"force": "no"})).status_code == 400
    for other in ("work_x", "work_01jd3k00000000000000000000", there.id):
        assert (await ask("POST", f"/{other}/heartbeat")).status_code == 404
    long = {**headers, "anthropic-worker-id": "w" * 513}
    assert (await house.client.get(f"{path}/poll", headers=long)).status_code == 400
