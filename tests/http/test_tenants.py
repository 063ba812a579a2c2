"""Two tenants: what belongs to one does not exist for the other."""

from stationmaster.agents.scripted import WaitFor, WriteFile
from tests.http.conftest import JSON, House


async def test_no_route_tells_of_anothers_task(house: House, stranger: dict[str, str]) -> None:
    house.agent.script = [WriteFile("a.txt", "secret")]
    task = await house.perform()
    house.agent.script = [WaitFor()]
    running = await house.submit()
    for task_id in (task["task_id"], running):
        here = f"/v1/tasks/{task_id}"
        for path in (
            here,
            f"/v1/task/{task_id}",
            f"{here}/events",
            f"{here}/events?after=1",
            f"{here}/log",
            f"{here}/artifacts",
            f"{here}/artifacts/a.txt",
            f"{here}/archive",
            f"{here}/diff",
        ):
            for accept in ({}, JSON):
                answer = await house.client.get(path, headers={**stranger, **accept})
                assert answer.status_code == 404, path
                missing = path.replace(task_id, "run_01jd3k00000000000000000000")
                never = await house.client.get(missing, headers={**stranger, **accept})
                told, known = answer.json(), never.json()
                del told["request_id"], known["request_id"]
                assert told == known  # it cannot be told from one that never was
        cancelled = await house.client.post(f"{here}/cancel", headers=stranger)
        assert cancelled.status_code == 404
    assert (await house.task(running))["status"] in {"pending", "running"}


async def test_lists_and_usage_are_each_tenants_own(house: House, stranger: dict[str, str]) -> None:
    mine = await house.perform()
    answer = await house.client.post("/v1/task", json={"description": "x"}, headers=stranger)
    theirs = answer.json()
    for headers, expected in ((None, mine), (stranger, theirs)):
        listed = (await house.client.get("/v1/tasks", headers=headers)).json()["tasks"]
        assert [task["task_id"] for task in listed] == [expected["task_id"]]
    # A cursor of another's shows nothing of it.
    params = {"after": mine["task_id"]}
    page = await house.client.get("/v1/tasks", params=params, headers=stranger)
    assert page.json()["tasks"] == []
    usage = (await house.client.get("/v1/usage", headers=stranger)).json()
    assert (usage["project_id"], usage["total_calls"]) == ("proj_2", 0)


async def test_keys_are_each_tenants_own(house: House, stranger: dict[str, str]) -> None:
    mine = (await house.client.get("/api/admin/keys")).json()["keys"]
    theirs = (await house.client.get("/api/admin/keys", headers=stranger)).json()["keys"]
    assert [key["name"] for key in theirs] == ["stranger"]
    for key in mine:
        answer = await house.client.delete(f"/api/admin/keys/{key['id']}", headers=stranger)
        assert answer.status_code == 404
    assert (await house.client.get("/api/admin/keys")).json()["keys"] == mine


async def test_the_same_name_of_a_shared_workspace_is_another_one(
    house: House, stranger: dict[str, str]
) -> None:
    await house.perform(workspace="team")
    body = {"description": "x", "workspace": "team"}
    await house.client.post("/v1/task", json=body, headers=stranger)
    mine, theirs = house.agent.launched
    assert mine.workspace != theirs.workspace


async def test_a_task_is_billed_to_its_key_not_to_the_project_it_names(
    house: House, stranger: dict[str, str]
) -> None:
    for project, status in (("proj_default", 403), ("proj_2", 200), ("default", 200)):
        body = {"description": "x", "project_id": project}
        answer = await house.client.post("/v1/task", json=body, headers=stranger)
        assert answer.status_code == status
