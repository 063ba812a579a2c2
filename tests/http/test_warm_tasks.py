"""Tasks that start warm: in the directories of a process that was there already."""

from pathlib import Path

import pytest

from stationmaster.agents.scripted import Say, WriteFile
from stationmaster.kernel.errors import Unavailable
from stationmaster.sessions.runs.files import RunFiles
from tests.http.conftest import House, Open
from tests.http.test_pool import until

FILES = [
    {"path": "src/a.txt", "content": "old\n"},
    {"path": "run.sh", "content": "#!/bin/sh\n", "executable": True},
]


async def test_the_third_task_of_a_kind_starts_warm_with_its_files(house: House) -> None:
    house.agent.script = (WriteFile("src/a.txt", "new\n"), Say("Done."))
    for _ in range(2):
        await house.perform(files=FILES)
    before = await until(house, warm=1, busy=0)
    task = await house.perform(files=FILES, working_directory="/workspace")
    assert (await until(house, warm=1, busy=0))["took_warm"] == before.get("took_warm", 0) + 1
    assert [(each["path"], each["change"]) for each in task["artifacts"]] == [
        ("src/a.txt", "modified")
    ]
    diff = (await house.client.get(task["links"]["diff"])).text
    assert "-old" in diff
    assert "+new" in diff
    one = await house.client.get(f"{task['links']['artifacts']}/src/a.txt")
    assert one.text == "new\n"
    assert task["result"]["workspace_directory"] == "/workspace"
    sessions = house.settings.workspace_dir / "sessions"
    assert {path.name.split("_")[0] for path in sessions.iterdir()} == {"slot"}
    assert len(list(sessions.iterdir())) == 4  # of three tasks, and of the one that waits
    launched = {spec.workspace.name for spec in house.agent.launched}
    assert len(launched) == 4


async def test_a_process_serves_one_task(house: House) -> None:
    house.agent.script = (WriteFile("seen.txt", "x"),)
    for _ in range(4):
        task = await house.perform()
        assert [each["change"] for each in task["artifacts"]] == ["created"]
    await until(house, busy=0, idle=0, warm=1)
    assert house.agent.alive() == 1


async def test_a_directory_or_a_shared_workspace_starts_cold_in_its_own_place(
    house: House,
) -> None:
    first = await house.perform(files=FILES, working_directory="src")
    second = await house.perform(workspace="team")
    one, two = house.agent.launched
    assert one.workspace.name == first["session_id"]
    assert one.directory == one.workspace / "src"
    assert two.owned == two.directory == two.workspace / second["task_id"]
    assert (await until(house, busy=0))["took_cold"] == 2


async def test_nothing_is_kept_warm_where_the_pool_is_off(open_house: Open) -> None:
    async with open_house(AGENT_POOL_SIZE="0") as house:
        for _ in range(3):
            await house.perform(files=FILES)
        await until(house, took_cold=3, warm=0, busy=0)
        assert house.agent.alive() == 0


async def test_files_that_cannot_be_moved_fail_the_task_and_not_the_server(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Unavailable("No room.", code="disk_full")

    with monkeypatch.context() as patch:
        patch.setattr(RunFiles, "move", full)
        task = await house.perform(files=FILES)
    assert (task["status"], task["error"]["code"]) == ("failed", "disk_full")
    assert task["artifacts"] == []
    await until(house, busy=0)
    assert (await house.perform(files=FILES))["status"] == "completed"


async def test_what_waits_for_a_worker_shows_its_files(open_house: Open, tmp_path: Path) -> None:
    async with open_house(MAX_WORKERS="1") as house:
        house.application.worker._draining = True  # nobody takes it up
        task_id = await house.submit(files=FILES)
        archive = await house.client.get(f"/v1/tasks/{task_id}/artifacts/src/a.txt")
        assert archive.text == "old\n"
