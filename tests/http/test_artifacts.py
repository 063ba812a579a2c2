"""Taking out what a task made."""

import asyncio
import io
import os
import tarfile
from pathlib import Path
from urllib.parse import quote

import pytest

from stationmaster.agents.base import LaunchSpec
from stationmaster.agents.scripted import Call, Say, WaitFor, WriteFile
from stationmaster.http.downloads import attachment
from tests.http.conftest import House

BIG = 3 * 1024 * 1024


async def test_what_a_task_made_is_listed_and_downloaded(house: House) -> None:
    house.agent.script = [
        WriteFile("new/out.bin", bytes(range(256)) * 16),
        WriteFile("in.txt", "changed\n"),
    ]
    task = await house.perform(
        files=[{"path": "in.txt", "content": "given\n"}, {"path": "same.txt", "content": "same"}]
    )
    listed = (await house.client.get(task["links"]["artifacts"])).json()
    assert listed["artifacts"] == task["artifacts"]
    assert {item["path"]: item["change"] for item in listed["artifacts"]} == {
        "in.txt": "modified",
        "new/out.bin": "created",
    }
    assert listed["artifacts"][1]["size_bytes"] == 4096
    answer = await house.client.get(f"{task['links']['artifacts']}/new/out.bin")
    assert answer.content == bytes(range(256)) * 16
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == 'attachment; filename="out.bin"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-length"] == "4096"
    given = await house.client.get(f"{task['links']['artifacts']}/same.txt")
    assert given.content == b"same"


async def test_everything_comes_as_one_archive(house: House) -> None:
    house.agent.script = [WriteFile("a/b.txt", "hello"), WriteFile("big", os.urandom(BIG))]
    task = await house.perform()
    answer = await house.client.get(task["links"]["archive"])
    assert answer.headers["content-type"] == "application/gzip"
    with tarfile.open(fileobj=io.BytesIO(answer.content), mode="r:gz") as archive:
        assert {"a", "a/b.txt", "big"} <= set(archive.getnames())
        found = archive.extractfile("a/b.txt")
        assert found is not None
        assert found.read() == b"hello"
        assert archive.getmember("big").size == BIG


async def test_the_diff_is_known_when_the_task_has_ended(house: House) -> None:
    gate = asyncio.Event()
    house.agent.script = [WriteFile("in.txt", "two\n"), WaitFor(gate)]
    task_id = await house.submit(files=[{"path": "in.txt", "content": "one\n"}])
    early = await house.client.get(f"/v1/tasks/{task_id}/diff")
    assert (early.status_code, early.json()["code"]) == (409, "task_not_ended")
    assert early.headers["x-should-retry"] == "false"
    gate.set()
    await house.ended(task_id)
    diff = await house.client.get(f"/v1/tasks/{task_id}/diff")
    assert diff.headers["content-type"].startswith("text/x-diff")
    assert "-one\n+two\n" in diff.text


async def test_a_task_that_changed_nothing_has_an_empty_diff(house: House) -> None:
    task = await house.perform()
    answer = await house.client.get(task["links"]["diff"])
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("missing.txt", 404),
        ("..%2f..%2fetc%2fpasswd", 400),
        ("%2fetc%2fpasswd", 400),
        ("a%00b", 400),
        ("link", 400),
        ("pipe", 400),
        ("dir", 400),
        ("x" * 300, 400),
    ],
)
async def test_nothing_but_files_of_the_task_comes_out(
    house: House, path: str, status: int
) -> None:
    async def work(spec: LaunchSpec) -> None:
        await asyncio.to_thread(prepare, spec.workspace)

    def prepare(workspace: Path) -> None:
        (workspace / "link").symlink_to("/etc/passwd")
        os.mkfifo(workspace / "pipe")
        (workspace / "dir").mkdir()

    house.agent.script = [Call(work), Say("Done.")]
    task = await house.perform()
    answer = await house.client.get(f"{task['links']['artifacts']}/{path}")
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert b"root:" not in answer.content


@pytest.mark.parametrize("name", ['a"b.txt', "naïve.txt", "new\nline", "50%.txt", "日本"])
async def test_strange_names_survive(house: House, name: str) -> None:
    house.agent.script = [WriteFile(name, "x")]
    task = await house.perform()
    assert [item["path"] for item in task["artifacts"]] == [name]
    answer = await house.client.get(f"{task['links']['artifacts']}/{quote(name)}")
    assert answer.content == b"x"
    header = answer.headers["content-disposition"]
    assert header.isascii()
    assert "\n" not in header


def test_a_file_is_never_shown_only_saved() -> None:
    assert attachment("a b.txt") == 'attachment; filename="a b.txt"'
    assert attachment('a".txt') == "attachment; filename=\"a_.txt\"; filename*=UTF-8''a%22.txt"
    assert attachment("é") == "attachment; filename=\"_\"; filename*=UTF-8''%C3%A9"
    assert attachment("") == "attachment; filename=\"file\"; filename*=UTF-8''"
    assert "\r" not in attachment("a\r\nset-cookie: b")


async def test_a_client_that_leaves_a_download_frees_its_file(house: House) -> None:
    house.agent.script = [WriteFile("big", bytes(64 * 1024 * 1024))]
    task = await house.perform()

    def still_open() -> list[str]:
        return [
            target
            for entry in Path("/proc/self/fd").iterdir()
            if (target := os.path.realpath(entry)).startswith(str(house.settings.workspace_dir))
        ]

    for path in ("artifacts/big", "archive"):
        url = f"/v1/tasks/{task['task_id']}/{path}"
        async with house.client.stream("GET", url) as answer:
            await anext(answer.aiter_raw())
        while await asyncio.to_thread(still_open):
            await asyncio.sleep(0.01)
