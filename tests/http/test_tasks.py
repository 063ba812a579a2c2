"""Tasks over HTTP: made, waited for, shown, listed, cancelled."""

import asyncio
import io
import json
import tarfile
from typing import Any

import pytest

from stationmaster.agents.base import AgentExited
from stationmaster.agents.scripted import Fail, Finish, Say, Think, UseTool, WaitFor, WriteFile
from stationmaster.http.guard import Guarded
from stationmaster.http.routes import tasks as routes
from tests.http.conftest import House, Open


def tar_of(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


async def test_a_performed_task_is_answered_as_the_guide_says(house: House) -> None:
    house.agent.script = [Think("Hm."), UseTool("Bash", {"command": "ls"}), Say("All done.")]
    task = await house.perform("List the files.", metadata={"ticket": "7"})
    assert task["status"] == "completed"
    assert task["description"] == "List the files."
    assert task["result"] == {
        "summary": "All done.",
        "full_output": "All done.",
        "workspace_directory": "/workspace",
    }
    actions = [entry["action"] for entry in task["execution_log"]]
    assert actions == [
        *("queued", "started", "agent_ready", "thinking", "tool_call", "tool_result"),
        *("message", "ended"),
    ]
    assert [entry["step"] for entry in task["execution_log"]] == list(range(1, len(actions) + 1))
    assert set(task["execution_log"][0]) == {"step", "timestamp", "action", "details"}
    usage = {"input_tokens", "output_tokens", "total_tokens", "total_cost", "model_used"}
    assert usage | {"duration_seconds"} <= set(task["usage"])
    assert task["metadata"] == {"ticket": "7"}
    assert task["error"] is None
    assert task["sandbox"] == "none"
    assert task["created_at"] <= task["started_at"] <= task["completed_at"]


async def test_the_same_task_is_found_under_both_paths(house: House) -> None:
    done = await house.perform()
    for path in ("/v1/tasks/", "/v1/task/"):
        found = await house.client.get(path + done["task_id"])
        assert found.status_code == 200
        assert found.json() == done


async def test_options_reach_the_agent(house: House) -> None:
    await house.perform(
        system_prompt="Be brief.",
        context={"colour": "blau", "n": [1, 2.5]},
        model="opus",
        allow_tools=["Read", "Read", "Bash"],
        max_turns=3,
        permission_mode="plan",
        project_id="default",
        working_directory="/project/src",
        files=[{"path": "src/a.txt", "content": "hello"}],
    )
    spec = house.agent.launched[0]
    assert spec.system_prompt is not None
    assert spec.system_prompt.startswith("Be brief.\n\n")
    assert json.loads(spec.system_prompt.rpartition("\n")[2]) == {"colour": "blau", "n": [1, 2.5]}
    assert (spec.model, spec.tools, spec.max_turns) == ("opus", ("Read", "Bash"), 3)
    assert spec.permission_mode == "plan"
    assert spec.directory == spec.workspace / "src"
    assert (spec.workspace / "src/a.txt").read_text() == "hello"


async def test_tools_left_out_are_the_default_and_an_empty_list_is_none(house: House) -> None:
    await house.perform()
    await house.perform(allow_tools=[])
    assert [spec.tools for spec in house.agent.launched] == [house.agent.default_tools, ()]


async def test_files_may_be_binary_and_executable(house: House) -> None:
    await house.perform(
        files=[
            {"path": "run.sh", "content": "#!/bin/sh\n", "executable": True},
            {"path": "data.bin", "content": "AP8=", "encoding": "base64"},
        ]
    )
    workspace = house.agent.launched[0].workspace
    assert (workspace / "data.bin").read_bytes() == b"\x00\xff"
    assert (workspace / "run.sh").stat().st_mode & 0o100
    assert not (workspace / "data.bin").stat().st_mode & 0o100


async def test_a_shared_workspace_has_a_directory_for_each_task(house: House) -> None:
    house.agent.script = [WriteFile("seen.txt", "x")]
    first = await house.perform(workspace="team")
    second = await house.perform(workspace="team")
    one, two = house.agent.launched
    assert one.workspace == two.workspace
    assert one.directory != two.directory
    for task in (first, second):
        assert task["result"]["workspace_directory"] == f"/workspace/{task['task_id']}"


@pytest.mark.parametrize(
    ("step", "status", "code"),
    [
        (Finish("error", error="It broke."), "failed", "agent_error"),
        (Finish("max_turns", text="So far."), "failed", "max_turns"),
        (Fail(AgentExited("Gone.", stderr_tail="Segfault")), "failed", "agent_exited"),
    ],
)
async def test_a_task_that_fails_is_still_answered(
    house: House, step: Any, status: str, code: str
) -> None:
    house.agent.script = [step]
    task = await house.perform()
    assert (task["status"], task["error"]["code"]) == (status, code)
    assert task["error"]["stderr_tail"] == ("Segfault" if code == "agent_exited" else None)
    assert task["result"]["summary"]


async def test_a_task_that_takes_too_long_times_out(house: House) -> None:
    house.agent.script = [WaitFor()]
    task = await house.perform(timeout=1)
    assert (task["status"], task["error"]["code"]) == ("timeout", "timeout")


async def test_a_submitted_task_is_followed_by_its_links(house: House) -> None:
    go = asyncio.Event()
    house.agent.script = [WaitFor(go), Say("Done.")]
    answer = await house.client.post("/v1/tasks", json={"description": "Wait."})
    assert answer.status_code == 202
    made = answer.json()
    assert made["status"] == "pending"
    assert answer.headers["location"] == made["links"]["self"] == f"/v1/tasks/{made['task_id']}"
    shown = (await house.client.get(made["links"]["self"])).json()
    assert shown["status"] in {"pending", "running"}
    assert shown["result"] is None
    assert shown["usage"]["duration_seconds"] is None
    go.set()
    assert (await house.ended(made["task_id"]))["status"] == "completed"


async def test_a_form_brings_an_archive_and_files(house: House) -> None:
    answer = await house.client.post(
        "/v1/tasks",
        files=[
            ("task", (None, json.dumps({"description": "Look."}), "application/json")),
            ("archive", ("src.tar.gz", tar_of({"a.txt": b"old", "dir/b.txt": b"b"}))),
            ("files", ("a.txt", b"new")),
            ("files", ("deep/er/c.bin", bytes(200_000))),
        ],
    )
    assert answer.status_code == 202, answer.text
    await house.ended(answer.json()["task_id"])
    workspace = house.agent.launched[0].workspace
    assert (workspace / "a.txt").read_text() == "new"
    assert (workspace / "dir/b.txt").read_text() == "b"
    assert (workspace / "deep/er/c.bin").stat().st_size == 200_000


async def test_a_form_may_carry_the_task_as_a_file(house: House) -> None:
    answer = await house.client.post(
        "/v1/tasks", files={"task": ("task.json", b'{"description": "x"}', "application/json")}
    )
    assert answer.status_code == 202, answer.text


@pytest.mark.parametrize(
    ("parts", "status", "param"),
    [
        ([("archive", ("a.tar", b"x"))], 400, "task"),
        ([("task", (None, "{"))], 400, None),
        ([("task", (None, '{"description": 3}'))], 422, "description"),
        ([("task", (None, '{"description": "x"}')), ("extra", ("a", b""))], 400, "extra"),
        ([("task", (None, '{"description": "x"}')), ("archive", (None, "x"))], 400, "archive"),
        ([("task", (None, '{"description": "x"}')), ("archive", ("a", b"no"))], 400, None),
        ([("task", (None, '{"description": "x"}')), ("files", ("../a", b"x"))], 400, "path"),
        ([("task", (None, '{"description": "x"}')), ("files", ("/etc/a", b"x"))], 400, "path"),
        ([("task", (None, '{"description": "x"}'))] * 2, 400, "task"),
    ],
)
async def test_a_bad_form_changes_nothing(
    house: House, parts: list[Any], status: int, param: str | None
) -> None:
    answer = await house.client.post("/v1/tasks", files=parts)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json().get("param") == param
    assert (await house.client.get("/v1/tasks")).json()["tasks"] == []
    root = house.settings.workspace_dir / "sessions"
    assert not root.exists() or list(root.iterdir()) == []


async def test_a_form_without_boundary_or_with_a_strange_charset_is_refused(house: House) -> None:
    for media_type in ("multipart/form-data", "multipart/form-data; boundary=x; charset=hex"):
        answer = await house.client.post(
            "/v1/tasks", content=b"--x--\r\n", headers={"content-type": media_type}
        )
        assert answer.status_code == 400
        assert answer.json()["code"] == "invalid_form"


async def test_an_upload_over_the_limit_is_refused(open_house: Open) -> None:
    async with open_house(MAX_UPLOAD_SIZE="100KB") as house:
        task = ("task", (None, '{"description": "x"}'))
        for size, status in ((50_000, 202), (200_000, 413), (2_000_000, 413)):
            answer = await house.client.post(
                "/v1/tasks", files=[task, ("files", ("a", bytes(size)))]
            )
            assert answer.status_code == status, answer.text


async def test_tasks_are_listed_in_pages(house: House) -> None:
    made = [await house.submit(f"Task {number}.") for number in range(5)]
    for task_id in made:
        await house.ended(task_id)
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        answer = await house.client.get("/v1/tasks", params={"limit": 2, **after})
        page = answer.json()
        seen += [task["task_id"] for task in page["tasks"]]
        assert page["has_more"] == (page["next"] is not None)
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == made[::-1]
    by_status = await house.client.get("/v1/tasks", params={"status": "completed"})
    assert len(by_status.json()["tasks"]) == 5
    none = await house.client.get("/v1/tasks", params={"status": "timeout"})
    assert none.json()["tasks"] == []


async def test_cancelling_ends_a_task_once(house: House) -> None:
    house.agent.script = [Say("Before."), WaitFor()]
    task_id = await house.submit()
    for _ in range(3):
        answer = await house.client.post(f"/v1/tasks/{task_id}/cancel", json={})
        assert answer.status_code == 200
    assert (await house.ended(task_id))["status"] == "cancelled"
    again = await house.client.post(f"/v1/tasks/{task_id}/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")
    assert (
        await house.client.post(f"/v1/tasks/{task_id}/cancel", json={"a": 1})
    ).status_code == 400


async def test_a_waiting_client_that_goes_away_cancels_its_task(house: House) -> None:
    house.agent.script = [WaitFor()]
    waiting = asyncio.create_task(house.client.post("/v1/task", json={"description": "x"}))
    while not house.agent.launched:
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    listed = (await house.client.get("/v1/tasks")).json()["tasks"]
    assert (await house.ended(listed[0]["task_id"]))["status"] == "cancelled"


async def test_or_it_goes_on_by_choice(house: House) -> None:
    wait = WaitFor()
    house.agent.script = [wait, Say("Done.")]
    body = {"description": "x", "on_disconnect": "continue"}
    waiting = asyncio.create_task(house.client.post("/v1/task", json=body))
    while not house.agent.launched:
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(30):  # until the server has noticed, and let the request go
        while 'endpoint="/v1/task"' not in (await house.client.get("/metrics")).text:
            await asyncio.sleep(0)
    listed = (await house.client.get("/v1/tasks")).json()["tasks"]
    wait.event.set()
    ended = await house.ended(listed[0]["task_id"])
    assert (ended["status"], ended["result"]["full_output"]) == ("completed", "Done.")


async def test_the_queue_is_bounded(open_house: Open) -> None:
    async with open_house(MAX_WORKERS="1", MAX_QUEUE="1") as house:
        house.agent.script = [WaitFor()]
        await house.submit()
        while not house.agent.launched:
            await asyncio.sleep(0)
        await house.submit()
        refused = await house.client.post("/v1/tasks", json={"description": "x"})
        assert refused.status_code == 503
        assert refused.json()["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) > 0
        pool = (await house.client.get("/health")).json()["services"]["worker_pool"]
        assert (pool["status"], pool["queued_tasks"], pool["active_workers"]) == (
            "overloaded",
            1,
            1,
        )


async def test_a_server_that_stops_answers_a_waiting_client(open_house: Open) -> None:
    async with open_house(MAX_WORKERS="1") as house:
        house.agent.script = [WaitFor()]
        first = asyncio.create_task(house.client.post("/v1/task", json={"description": "first"}))
        while not house.agent.launched:
            await asyncio.sleep(0)
        second = asyncio.create_task(house.client.post("/v1/task", json={"description": "second"}))
        while (await house.services.runs.depth()).queued == 0:
            await asyncio.sleep(0)
        await house.application.drain(0)
        interrupted, later = await asyncio.gather(first, second)
        assert interrupted.status_code == 200
        assert interrupted.json()["status"] == "interrupted"
        assert later.status_code == 202
        assert later.json()["status"] == "pending"
        refused = await house.client.post("/v1/tasks", json={"description": "third"})
        assert refused.status_code == 503
        assert refused.json()["code"] == "shutting_down"
        ready = await house.client.get("/ready")
        assert ready.status_code == 503
        assert ready.json() == {"ready": False, "reason": "shutting_down"}


async def test_the_log_comes_as_json_and_as_text(house: House) -> None:
    house.agent.script = [Say("A \x1b[31mred\x1b[0m word\nand more."), Say("x" * 5000)]
    task = await house.perform()
    log = (await house.client.get(task["links"]["log"])).json()
    assert log["execution_log"] == task["execution_log"]
    assert len(log["execution_log"][4]["details"]["text"]) == 2000
    text = await house.client.get(task["links"]["log"], headers={"accept": "text/plain"})
    assert text.headers["content-type"].startswith("text/plain")
    lines = text.text.splitlines()
    assert len(lines) == len(log["execution_log"])
    assert "\x1b" not in text.text


async def test_the_log_in_an_answer_is_bounded(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "EVENTS_READ", 6)
    house.agent.script = [Say(str(number)) for number in range(20)]
    task = await house.perform()
    assert task["execution_log_truncated"] is True
    assert len(task["execution_log"]) == 4


async def test_a_key_that_may_only_write_cannot_wait_for_a_task(house: House) -> None:
    made = await house.client.post(
        "/api/admin/keys", json={"name": "writer", "permissions": ["write:tasks"]}
    )
    headers = house.as_key(made.json()["key"])
    body = {"description": "x"}
    assert (await house.client.post("/v1/task", json=body, headers=headers)).status_code == 403
    assert (await house.client.get("/v1/tasks")).json()["tasks"] == []
    assert (await house.client.post("/v1/tasks", json=body, headers=headers)).status_code == 202


async def test_a_form_that_breaks_off_leaves_nothing(house: House) -> None:
    async def broken() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await house.client.post(
            "/v1/tasks",
            content=broken(),
            headers={"content-type": "multipart/form-data; boundary=x"},
        )
    assert (await house.client.get("/v1/tasks")).json()["tasks"] == []


def test_every_route_of_the_api_is_guarded() -> None:
    from stationmaster.http import open_route
    from stationmaster.http.once import OPEN_PATHS
    from stationmaster.http.routes.app import ROUTES, stationmaster_api

    open_paths = {"/", "/health", "/ready", "/live", "/metrics", "/docs", "/redoc"}
    open_paths |= {"/broker-check", "/db-check", "/redis-check"}
    open_paths |= {"/docs/style.css", "/openapi.json"}
    # Where a credential is what is asked for, or a secret of its own kind is shown.
    open_paths |= {"/.well-known/jwks.json", "/api/invites/accept", "/v1/auth/login"}
    open_paths |= {"/v1/auth/refresh", "/v1/auth/oidc/login", "/v1/auth/oidc/callback"}
    assert ROUTES
    routes_of_api = [route for route in stationmaster_api().routes if hasattr(route, "methods")]
    unguarded = {
        getattr(route, "path", "") for route in routes_of_api if not isinstance(route, Guarded)
    }
    assert unguarded == open_paths
    open_routes = {
        getattr(route, "path", "") for route in routes_of_api if isinstance(route, open_route.Open)
    }
    assert open_routes == OPEN_PATHS
