"""What bad input gets: an answer in the route's own form, nothing changed, never a 500."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from stationmaster.agents.scripted import WaitFor
from stationmaster.kernel.errors import Unavailable
from stationmaster.storage import Database
from tests.http.conftest import House, Open

JSON_TYPE = {"content-type": "application/json"}
ID = "run_01jd3k00000000000000000000"


def check_problem(answer: httpx.Response, status: int, code: str) -> Any:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == code
    assert problem["type"] == f"urn:stationmaster:error:{code}"
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["request_id"] == answer.headers["request-id"]
    assert problem["title"]
    assert problem["detail"]
    return problem


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b'{"description": "\\ud800"}', "invalid_json"),
        (b'{"description": "a", "description": "b"}', "invalid_json"),
        (b'{"description": "a", "timeout": NaN}', "invalid_json"),
        (b'{"description": "a", "timeout": 1e999}', "invalid_json"),
        (b'{"description": "a", "timeout": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b"[" * 4_000, "invalid_json"),
        (
            b'{"context":' + b'{"a":' * 80 + b"1" + b"}" * 80 + b', "description":"x"}',
            "invalid_json",
        ),
        (b"\xef\xbb\xbf{}", "invalid_json"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/task", "/v1/tasks"])
async def test_what_is_no_json_is_refused(house: House, path: str, body: bytes, code: str) -> None:
    answer = await house.client.post(path, content=body, headers=JSON_TYPE)
    check_problem(answer, 400, code)


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"description": None}, 422, "description"),
        ({"description": 3}, 422, "description"),
        ({"description": ""}, 422, "description"),
        ({"description": "  \n"}, 400, "description"),
        ({"description": "a\0b"}, 400, "description"),
        ({"description": "x" * 1_000_001}, 413, "description"),
        ({"descripton": "x"}, 422, "descripton"),
        ({"timeout": "30"}, 422, "timeout"),
        ({"timeout": True}, 422, "timeout"),
        ({"timeout": 0}, 422, "timeout"),
        ({"timeout": -1}, 422, "timeout"),
        ({"timeout": 601}, 400, "timeout"),
        ({"max_cost": -0.01}, 422, "max_cost"),
        ({"max_cost": 10.01}, 400, "max_cost"),
        ({"max_cost": 1e300}, 400, "max_cost"),
        ({"max_turns": 0}, 422, "max_turns"),
        ({"max_turns": 10**30}, 422, "max_turns"),
        ({"max_turns": 1.5}, 422, "max_turns"),
        ({"allow_tools": "Bash"}, 422, "allow_tools"),
        ({"allow_tools": ["Rocket"]}, 403, "allow_tools"),
        ({"allow_tools": ["Bash(rm *)"]}, 403, "allow_tools"),
        ({"allow_tools": ["--dangerously"]}, 403, "allow_tools"),
        ({"allow_agents": ["reviewer"]}, 404, "allow_agents"),
        ({"allow_agents": [""]}, 422, "allow_agents.0"),
        ({"allow_skills": ["pdf"]}, 404, "allow_skills"),
        ({"allow_skills": ["../pdf"]}, 404, "allow_skills"),
        ({"mcp_servers": ["docs"]}, 404, "mcp_servers"),
        ({"mcp_servers": [{"command": "sh"}]}, 422, "mcp_servers.0"),
        ({"mcp_servers": ["x"] * 21}, 422, "mcp_servers"),
        ({"tags": ["a", "b", "c", "d", "e"]}, 422, "tags"),
        ({"tags": ["two words"]}, 400, "tags"),
        ({"on_disconnect": "explode"}, 422, "on_disconnect"),
        ({"model": "gpt-none"}, 400, "model"),
        ({"model": "--help"}, 422, "model"),
        ({"model": ""}, 422, "model"),
        ({"project_id": "other"}, 403, "project_id"),
        ({"permission_mode": "root"}, 422, "permission_mode"),
        ({"working_directory": "/etc"}, 400, "working_directory"),
        ({"working_directory": "../.."}, 400, "working_directory"),
        ({"working_directory": "missing"}, 400, "working_directory"),
        ({"workspace": "../other"}, 400, "workspace"),
        ({"workspace": "-rf"}, 400, "workspace"),
        ({"metadata": {"a": 1}}, 422, "metadata.a"),
        ({"metadata": {str(n): "" for n in range(17)}}, 422, "metadata"),
        ({"context": []}, 422, "context"),
        ({"context": {"a": "x" * 70_000}}, 413, "context"),
        ({"system_prompt": "x" * 100_001}, 413, "system_prompt"),
        ({"files": [{"path": "a"}]}, 422, "files.0.content"),
        ({"files": [{"path": "a", "content": "!", "encoding": "base64"}]}, 400, "files.0.content"),
        ({"files": [{"path": "a", "content": "", "mode": 7}]}, 422, "files.0.mode"),
        ({"files": [{"path": "../a", "content": ""}]}, 400, "path"),
        ({"files": [{"path": "/a", "content": ""}]}, 400, "path"),
        ({"files": [{"path": "a\0", "content": ""}]}, 400, "path"),
        ({"files": [{"path": "a", "content": ""}] * 2}, 400, None),
    ],
)
async def test_a_wrong_field_is_named(
    house: House, fields: dict[str, Any], status: int, param: str | None
) -> None:
    for path in ("/v1/task", "/v1/tasks"):
        answer = await house.client.post(path, json={"description": "x", **fields})
        assert answer.status_code == status, answer.text
        problem = check_problem(answer, status, answer.json()["code"])
        assert problem.get("param") == param
        if status == 422:
            assert problem["errors"][0]["param"] == param
    assert (await house.client.get("/v1/tasks")).json()["tasks"] == []
    assert house.agent.launched == []


async def test_every_wrong_field_is_listed_but_no_value_shown(house: House) -> None:
    body = {"timeout": "secret-one", "max_turns": "secret-two", "bogus": "secret-three"}
    answer = await house.client.post("/v1/task", json=body)
    problem = check_problem(answer, 422, "validation_failed")
    named = {wrong["param"] for wrong in problem["errors"]}
    assert named == {"description", "timeout", "max_turns", "bogus"}
    assert "secret" not in answer.text


@pytest.mark.parametrize("value", [[], "x", 3, None, True])
async def test_a_body_that_is_no_object_is_refused(house: House, value: Any) -> None:
    for path in ("/v1/task", "/v1/tasks", "/api/admin/keys"):
        answer = await house.client.post(path, content=json.dumps(value), headers=JSON_TYPE)
        check_problem(answer, 422, "validation_failed")


@pytest.mark.parametrize("media_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_a_body_of_another_type_is_refused(house: House, media_type: str | None) -> None:
    headers = {} if media_type is None else {"content-type": media_type}
    for path in ("/v1/task", "/v1/tasks"):
        answer = await house.client.post(path, content=b'{"description":"x"}', headers=headers)
        check_problem(answer, 400, "unsupported_media_type")


async def test_a_body_over_the_limit_is_refused_however_it_comes(open_house: Open) -> None:
    async with open_house(MAX_REQUEST_SIZE="2KB") as house:
        body = json.dumps({"description": "x" * 3000}).encode()

        async def pieces() -> Any:
            for start in range(0, len(body), 100):
                yield body[start : start + 100]

        for content in (body, pieces()):
            answer = await house.client.post("/v1/tasks", content=content, headers=JSON_TYPE)
            check_problem(answer, 413, "too_large")
        answer = await house.client.post(f"/v1/tasks/{ID}/cancel", content=body)
        check_problem(answer, 413, "too_large")
        # A call to a model has a limit of its own.
        call = {"model": "sonnet", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
        padded = {**call, "system": "x" * 5000}
        assert (await house.client.post("/v1/messages", json=padded)).status_code == 200


@pytest.mark.parametrize(
    "task_id",
    [
        ID,
        "run_..",
        "run_%2e%2e%2f%2e%2e",
        "-rf",
        "run_%00",
        "..%2f..%2fetc%2fpasswd",
        "run_" + "0" * 4_000,
        "key_01jd3k00000000000000000000",
        "%ff%fe",
        "run_01JD3K00000000000000000000",
        "' OR 1=1 --",
    ],
)
async def test_an_id_that_is_none_is_not_found(house: House, task_id: str) -> None:
    for path in ("", "/events", "/log", "/artifacts", "/artifacts/a", "/archive", "/diff"):
        answer = await house.client.get(f"/v1/tasks/{task_id}{path}")
        check_problem(answer, 404, "not_found")
    check_problem(await house.client.get(f"/v1/task/{task_id}"), 404, "not_found")
    check_problem(await house.client.post(f"/v1/tasks/{task_id}/cancel"), 404, "not_found")
    check_problem(await house.client.delete(f"/api/admin/keys/{task_id}"), 404, "not_found")


async def test_what_does_not_exist_has_the_form_of_its_route(house: House) -> None:
    check_problem(await house.client.get("/v1/nothing"), 404, "not_found")
    check_problem(await house.client.get("/v1/tasks/"), 404, "not_found")
    answer = await house.client.put("/v1/tasks")
    check_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, POST"
    for path, status in (("/v1/messages/nothing", 404), ("/v1/messages", 405)):
        refused = await house.client.get(path)
        assert refused.status_code == status
        assert refused.json()["type"] == "error"
        assert refused.json()["request_id"] == refused.headers["request-id"]
        assert refused.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    ("path", "status", "param"),
    [
        ("/v1/tasks?limit=0", 422, "limit"),
        ("/v1/tasks?limit=101", 422, "limit"),
        ("/v1/tasks?limit=x", 422, "limit"),
        ("/v1/tasks?limit=5&limit=6", 400, "limit"),
        ("/v1/tasks?status=finished", 400, "status"),
        ("/v1/tasks?state=running", 400, "state"),
        ("/v1/tasks?after=nonsense", 404, None),
        ("/v1/tasks?after=run_%00", 404, None),
        ("/v1/usage?period=year", 400, "period"),
        ("/v1/usage?from=yesterday", 400, "from"),
        ("/api/admin/keys?page=2", 400, "page"),
        (f"/v1/tasks/{ID}?verbose=1", 400, "verbose"),
    ],
)
async def test_a_wrong_query_parameter_is_named(
    house: House, path: str, status: int, param: str | None
) -> None:
    answer = await house.client.get(path)
    problem = check_problem(answer, status, answer.json()["code"])
    assert problem.get("param") == param


async def test_who_has_no_key_learns_nothing_of_the_request(house: House) -> None:
    nobody = house.as_key(None)
    for answer in (
        await house.client.post("/v1/task", content=b"{", headers={**nobody, **JSON_TYPE}),
        await house.client.get("/v1/tasks?bogus=1", headers=nobody),
        await house.client.get(f"/v1/tasks/{ID}", headers=nobody),
    ):
        check_problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_database_that_is_away_is_503_and_never_500(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.agent.script = [WaitFor()]
    task_id = await house.submit()

    async def away(*_: Any) -> Any:
        raise Unavailable("The database does not answer.", code="database_unavailable")

    real: Database = house.services.runs._database
    monkeypatch.setattr(real, "read", away)
    monkeypatch.setattr(real, "write", away)
    client = house.client
    asked = [
        await client.get(f"/v1/tasks/{task_id}"),
        await client.get("/v1/tasks"),
        await client.get("/v1/usage"),
        await client.get(f"/v1/tasks/{task_id}/events"),
        await client.post("/v1/tasks", json={"description": "x"}),
        await client.post(f"/v1/tasks/{task_id}/cancel"),
    ]
    for answer in asked:
        check_problem(answer, 503, "database_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    health = await client.get("/health")
    assert health.status_code == 200
    assert health.json()["status"] == "degraded"
    assert health.json()["services"]["database"]["status"] == "down"
    ready = await client.get("/ready")
    assert (ready.status_code, ready.json()["reason"]) == (503, "database_not_ready")
    assert (await client.get("/live")).status_code == 200
    monkeypatch.undo()
    assert (await client.get(f"/v1/tasks/{task_id}")).status_code == 200


async def test_a_fault_of_ours_tells_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(type(house.services.reports), "usage", broken)
    answer = await house.client.get("/v1/usage")
    check_problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert answer.headers["x-frame-options"] == "DENY"


async def test_a_client_that_leaves_in_the_middle_of_its_body_does_no_harm(house: House) -> None:
    url = httpx.URL(house.url)
    _, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        b"POST /v1/task HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
        + house.client.headers["authorization"].removeprefix("Bearer ").encode()
        + b"\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    await writer.drain()
    writer.transport.abort()
    assert (await house.client.get("/v1/tasks")).json()["tasks"] == []


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/v1/agents", "page"),
        ("/v1/environments", "page"),
        ("/v1/sessions", "page"),
        ("/v1/files", "page"),
        ("/v1/organizations/service_accounts", "page"),
        ("/v1/messages/batches", "after_id"),
        ("/v1/messages/batches", "before_id"),
        ("/v1/files", "after"),
        ("/v1/batches", "after"),
    ],
)
@pytest.mark.parametrize("given", ["nonsense", "run_01jd3k00000000000000000000", "sesn_'--"])
async def test_a_cursor_that_never_was_one_is_named(
    house: House, path: str, param: str, given: str
) -> None:
    # The two shapes of files differ by the header alone.
    beta = {"anthropic-beta": "managed-agents-2026-04-01"} if param != "after" else {}
    answer = await house.client.get(path, params={param: given}, headers=beta)
    assert answer.status_code == 400, answer.text
    said = answer.json()
    if "error" in said:  # in a vendor's shape
        said = said["error"]
        assert said.get("param", param) == param
    assert f"{param} is not a cursor of this list" in (said.get("message") or said["detail"])
