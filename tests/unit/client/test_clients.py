"""Both clients, against a real server on a socket: the same calls, the same answers."""

import inspect
import io
import json
import socket
import tarfile
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import stationmaster.client as library
from stationmaster.client import (
    ApiError,
    AsyncClient,
    AuthenticationFailed,
    BudgetExceeded,
    Client,
    ClientError,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    LimitReached,
    NotFound,
    PermissionDenied,
    ServerFailed,
    TaskOptions,
    UnexpectedAnswer,
)
from tests.support.scripted_http import Answer, Request, ScriptedServer, sse

KEY = "sm_live_test"
TASK = {"task_id": "run_1", "status": "running"}
Ask = Callable[..., Awaitable[Any]]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as found:
        yield found


@pytest.fixture(params=["plain", "asyncio"])
def ask(request: pytest.FixtureRequest, server: ScriptedServer) -> Ask:
    """Call a method of a client by name; what it streams comes as a list."""

    async def plain(name: str, *args: Any, **kwargs: Any) -> Any:
        with Client(server.url, KEY, timeout=5.0, max_retries=2) as client:
            found = getattr(client, name)(*args, **kwargs)
            return list(found) if inspect.isgenerator(found) else found

    async def asyncio(name: str, *args: Any, **kwargs: Any) -> Any:
        async with AsyncClient(server.url, KEY, timeout=5.0, max_retries=2) as client:
            found = getattr(client, name)(*args, **kwargs)
            if inspect.isasyncgen(found):
                return [event async for event in found]
            return await found

    return plain if request.param == "plain" else asyncio


async def test_a_task_is_submitted(server: ScriptedServer, ask: Ask) -> None:
    server.answers = [Answer.of(TASK, 202)]
    options = TaskOptions(allow_tools=[], max_cost=0.5, metadata={"a": "b"})
    task = await ask("submit", "Do it.", options)
    assert (task.id, task.status, task.ended) == ("run_1", "running", False)
    request = server.requests[0]
    assert (request.method, request.path) == ("POST", "/v1/tasks")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.json == {
        "description": "Do it.",
        "allow_tools": [],
        "max_cost": 0.5,
        "metadata": {"a": "b"},
    }


async def test_files_go_along_as_a_form_even_when_sent_twice(
    server: ScriptedServer, ask: Ask
) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"))
    content = archive.getvalue()
    archive.seek(0)
    server.answers = [
        Answer.problem(503, "queue_full", retry_after="0"),
        Answer.of(TASK, 202),
    ]
    await ask("submit", "Do it.", archive=archive)
    for request in server.requests:
        assert request.headers["content-type"].startswith("multipart/form-data")
        assert b'name="task"' in request.body
        assert b'name="archive"' in request.body
        assert content in request.body
    assert len(server.requests) == 2


async def test_a_submission_that_may_have_begun_is_not_repeated(
    server: ScriptedServer, ask: Ask
) -> None:
    server.answers = [Answer.problem(500, "internal_error", retry_after="0"), Answer.of(TASK)]
    with pytest.raises(ServerFailed):
        await ask("submit", "Do it.")
    assert len(server.requests) == 1


async def test_a_question_is_repeated(server: ScriptedServer, ask: Ask) -> None:
    server.answers = [
        Answer.problem(500, "internal_error", retry_after="0"),
        Answer.problem(429, "limit_reached", retry_after="0"),
        Answer.of(TASK),
    ]
    assert (await ask("get", "run_1")).id == "run_1"


async def test_a_cut_answer_is_asked_for_again(server: ScriptedServer, ask: Ask) -> None:
    server.answers = [Answer(200, b"{", cut=True), Answer.of(TASK)]
    assert (await ask("get", "run_1")).id == "run_1"


async def test_ids_cannot_leave_their_place_in_the_path(server: ScriptedServer, ask: Ask) -> None:
    with pytest.raises(NotFound):
        await ask("get", "../admin?x#y")
    assert server.requests[0].path == "/v1/tasks/..%2Fadmin%3Fx%23y"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_request", InvalidRequest),
        (413, "too_large", InvalidRequest),
        (422, "invalid_request", InvalidRequest),
        (401, "unauthenticated", AuthenticationFailed),
        (403, "permission_denied", PermissionDenied),
        (404, "not_found", NotFound),
        (409, "conflict", Conflict),
        (429, "limit_reached", LimitReached),
        (429, "budget_exceeded", BudgetExceeded),
        (402, "billing", BudgetExceeded),
        (502, "upstream_error", ServerFailed),
    ],
)
async def test_errors_have_types(
    server: ScriptedServer, ask: Ask, status: int, code: str, kind: type[ApiError]
) -> None:
    given = Answer.problem(status, code, "Because.", x_should_retry="false", x_request_id="req_1")
    server.answers = [given]
    with pytest.raises(ApiError) as caught:
        await ask("get", "run_1")
    assert type(caught.value) is kind
    assert str(caught.value) == "Because."
    found = (caught.value.status, caught.value.code, caught.value.request_id)
    assert found == (status, code, "req_1")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"type": "error", "error": {"type": "not_found_error", "message": "Gone."}}', "Gone."),
        (b"<h1>Not Found</h1>", "<h1>Not Found</h1>"),
        (b"[]", "The server answered 404."),
        (b"", "The server answered 404."),
    ],
)
async def test_foreign_errors_are_told_as_they_are(
    server: ScriptedServer, ask: Ask, body: bytes, message: str
) -> None:
    server.answers = [Answer(404, body)]
    with pytest.raises(NotFound) as caught:
        await ask("get", "run_1")
    assert str(caught.value) == message


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"task_id": 1}'])
async def test_another_program_is_not_taken_for_the_server(
    server: ScriptedServer, ask: Ask, body: bytes
) -> None:
    server.answers = [Answer(200, body)]
    with pytest.raises(UnexpectedAnswer):
        await ask("get", "run_1")


async def test_a_redirection_does_not_carry_the_key_off(server: ScriptedServer, ask: Ask) -> None:
    with ScriptedServer() as other:
        server.answers = [Answer(307, headers={"location": other.url})]
        with pytest.raises(UnexpectedAnswer):
            await ask("get", "run_1")
        assert other.requests == []


async def test_nobody_listens(ask: Ask, server: ScriptedServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with (
            Client(url, KEY, max_retries=0) as client,
            pytest.raises(ConnectionFailed, match=url),
        ):
            client.health()


@pytest.mark.parametrize("url", ["", "ftp://x", "127.0.0.1:8080", "http://"])
def test_a_wrong_url_is_said(url: str) -> None:
    with pytest.raises(ClientError, match="must begin with http"):
        Client(url)


def test_a_key_that_no_header_can_carry_is_said_and_not_shown() -> None:
    with pytest.raises(ClientError) as caught:
        Client("http://127.0.0.1:1", "sécret\n")
    assert "cret" not in str(caught.value)


# --- following --------------------------------------------------------------------------------

FRAMES = [sse(seq, "agent.message", {"text": f"{seq}\u2028"}) for seq in range(1, 8)]
FRAMES.append(sse(8, "run.ended", {"state": "completed"}))


def resuming(request: Request, cut_at: int, *, cut: bool) -> Answer:
    """The events behind the reader's cursor; the first stream ends before event `cut_at`."""
    if not request.path.endswith("/events"):
        return Answer.of(TASK)
    after = request.headers.get("last-event-id")
    if after is None:
        return Answer.events(*FRAMES[:cut_at], cut=cut)
    return Answer.events(*FRAMES[int(after) :])


@pytest.mark.parametrize("cut", [False, True], ids=["closed", "cut"])
@pytest.mark.parametrize("cut_at", range(1, len(FRAMES) + 1))
async def test_a_cut_stream_goes_on_where_it_was(
    server: ScriptedServer, ask: Ask, cut_at: int, cut: bool
) -> None:
    server.otherwise = lambda request: resuming(request, cut_at, cut=cut)
    events = await ask("follow", "run_1")
    assert [event.seq for event in events] == list(range(1, 9))
    assert events[0].data == {"text": "1\u2028"}


async def test_a_task_that_has_ended_is_followed_to_its_end(
    server: ScriptedServer, ask: Ask
) -> None:
    def respond(request: Request) -> Answer:
        if request.path.endswith("/events"):
            return Answer.events()
        return Answer.of(TASK | {"status": "completed"})

    server.otherwise = respond
    assert await ask("follow", "run_1", after=8) == []


async def test_a_stream_that_is_refused_is_an_error(server: ScriptedServer, ask: Ask) -> None:
    server.answers = [Answer.problem(404, "not_found", "There is no task with this id.")]
    with pytest.raises(NotFound, match="no task"):
        await ask("follow", "run_1")


async def test_a_busy_server_is_waited_for(server: ScriptedServer, ask: Ask) -> None:
    server.answers = [Answer.problem(503, "unavailable", retry_after="0"), Answer.events(*FRAMES)]
    assert len(await ask("follow", "run_1")) == 8


async def test_waiting_gives_the_task_as_it_ended(server: ScriptedServer, ask: Ask) -> None:
    server.answers = [Answer.events(*FRAMES), Answer.of(TASK | {"status": "failed"})]
    assert (await ask("wait", "run_1")).status == "failed"


# --- the rest of the API ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "args", "kwargs", "request_line", "answer"),
    [
        ("cancel", ["run_1"], {}, "POST /v1/tasks/run_1/cancel", TASK),
        ("usage", ["day"], {}, "GET /v1/usage?period=day", {"total_cost": 0}),
        ("health", [], {}, "GET /health", {"status": "ok"}),
        (
            "process",
            ["openai", "gpt-4"],
            {"user_message": "x"},
            "POST /v1/process",
            {"provider": "openai", "model_name": "gpt-4", "user_message": "x"},
        ),
        ("providers", [], {}, "GET /v1/providers", []),
        ("capabilities", [], {}, "GET /v1/capabilities", {}),
        ("provider_models", ["a/b"], {}, "GET /v1/providers/a%2Fb/models", {}),
        (
            "route",
            ["x"],
            {"context_size": 3},
            "POST /v1/route",
            {"prompt": "x", "context_size": 3},
        ),
        ("tasks", [], {"limit": 2, "after": "run_0"}, "GET /v1/tasks?limit=2&after=run_0", None),
        ("keys", [], {"limit": 2}, "GET /api/admin/keys?limit=2", None),
        ("events", ["run_1"], {"after": 3}, "GET /v1/tasks/run_1/events?after=3", None),
        ("log", ["run_1"], {}, "GET /v1/tasks/run_1/log", {"execution_log": [{"step": 1}]}),
        ("artifacts", ["run_1"], {}, "GET /v1/tasks/run_1/artifacts", None),
        ("diff", ["run_1"], {}, "GET /v1/tasks/run_1/diff", {}),
        ("revoke_key", ["key_1"], {}, "DELETE /api/admin/keys/key_1", {}),
        (
            "rotate_key",
            ["key_1"],
            {"overlap_days": 2},
            "POST /api/admin/keys/key_1/rotate",
            {"overlap_days": 2},
        ),
        ("collect_key", ["key_1"], {}, "POST /api/admin/keys/key_1/collect", {}),
    ],
)
async def test_each_call_has_its_request(
    server: ScriptedServer,
    ask: Ask,
    *,
    call: str,
    args: list[str],
    kwargs: dict[str, Any],
    request_line: str,
    answer: dict[str, Any] | None,
) -> None:
    listing = {
        "tasks": [TASK],
        "keys": [{"id": "key_1", "name": "bot"}],
        "events": [{"seq": 4, "type": "run.ended", "data": {}}],
        "artifacts": [
            {"path": "a", "type": "file", "change": "created", "size_bytes": 3, "created_at": ""}
        ],
        "next": 4 if call == "events" else "run_1",
        "ended": True,
    }
    server.answers = [Answer.of(listing if answer is None else answer)]
    found = await ask(call, *args, **kwargs)
    assert f"{server.requests[0].method} {server.requests[0].path}" == request_line
    if call in {"tasks", "keys"}:
        assert found.next_cursor == "run_1"
        assert len(found.items) == 1
    if call == "events":
        assert (found.next, found.ended, found.events[0].type) == (4, True, "run.ended")
    if call == "artifacts":
        assert (found[0].path, found[0].change, found[0].size) == ("a", "created", 3)


async def test_a_new_key_is_given_once(server: ScriptedServer, ask: Ask) -> None:
    server.answers = [Answer.of({"id": "key_1", "name": "bot", "key": "sm_live_x"}, 201)]
    key = await ask("create_key", "bot", permissions=["read:tasks"], expires_in_days=3)
    assert (key.id, key.secret) == ("key_1", "sm_live_x")
    assert server.requests[0].json == {
        "name": "bot",
        "permissions": ["read:tasks"],
        "expires_in_days": 3,
    }


async def test_files_come_as_they_are(server: ScriptedServer, ask: Ask) -> None:
    content = bytes(range(256)) * 1000
    server.answers = [Answer(200, content), Answer(200, content)]
    one, all_files = io.BytesIO(), io.BytesIO()
    assert await ask("download", "run_1", "a b/ü", one) == len(content)
    assert await ask("archive", "run_1", all_files) == len(content)
    assert one.getvalue() == all_files.getvalue() == content
    assert [request.path for request in server.requests] == [
        "/v1/tasks/run_1/artifacts/a%20b/%C3%BC",
        "/v1/tasks/run_1/archive",
    ]


async def test_a_download_cut_short_is_an_error(server: ScriptedServer, ask: Ask) -> None:
    server.answers = [Answer(200, b"half", cut=True)]
    with pytest.raises(ConnectionFailed):
        await ask("archive", "run_1", io.BytesIO())


def test_both_clients_offer_the_same() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in vars(kind).items()
            if inspect.isfunction(member) and not name.startswith("_")
        }

    assert methods(Client) == methods(AsyncClient)


def test_every_public_name_is_there() -> None:
    assert [name for name in library.__all__ if not hasattr(library, name)] == []
    assert json.dumps(TaskOptions().to_json()) == "{}"
