import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import project_key_for_directory
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.agents.base import AgentHistoryMissing, AgentUnavailable, LaunchSpec
from stationmaster.agents.claude_code import history
from stationmaster.agents.claude_code.mask import MASK, Mask
from stationmaster.agents.conformance.histories import Shelf
from stationmaster.kernel.errors import TooLarge

A = "11111111-1111-4111-8111-111111111111"
B = "22222222-2222-4222-8222-222222222222"


@pytest.fixture
def spec(tmp_path: Path) -> LaunchSpec:
    for name in ("workspace", "home"):
        (tmp_path / name).mkdir()
    return LaunchSpec(
        session_id="s",
        workspace=tmp_path / "workspace",
        home=tmp_path / "home",
        gateway_socket=tmp_path / "gateway.sock",
        gateway_url="http://127.0.0.1:1",
        token="token",
        model="m",
        resume=A,
    )


def _project(spec: LaunchSpec) -> Path:
    return spec.home / ".claude" / "projects" / project_key_for_directory(spec.workspace)


async def _shelf(**subpaths: list[dict[str, Any]]) -> Shelf:
    shelf = Shelf()
    await shelf.append(A, None, [{"type": "user", "uuid": "u1"}, {"type": "assistant"}])
    for path, entries in subpaths.items():
        await shelf.append(A, path, entries)
    return shelf


async def test_files_stand_where_the_cli_looks(spec: LaunchSpec) -> None:
    about: dict[str, Any] = {"type": "agent_metadata", "agentType": "helper"}
    entries = [{**about, "old": 1}, {"type": "user", "uuid": "u2"}, about]
    shelf = await _shelf(**{"subagents/agent-1": entries})
    await history.restore(replace(spec, transcripts=shelf))
    lines = (_project(spec) / f"{A}.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == shelf.kept[A, None]
    directory = _project(spec) / A / "subagents"
    assert json.loads((directory / "agent-1.jsonl").read_text()) == {"type": "user", "uuid": "u2"}
    assert json.loads((directory / "agent-1.meta.json").read_text()) == {"agentType": "helper"}
    assert (_project(spec) / f"{A}.jsonl").stat().st_mode & 0o777 == 0o600


async def test_what_is_kept_replaces_what_the_home_says(spec: LaunchSpec) -> None:
    _project(spec).mkdir(parents=True)
    (_project(spec) / f"{A}.jsonl").write_text('{"type": "user", "message": "forged"}\n')
    await history.restore(replace(spec, transcripts=await _shelf()))
    assert "forged" not in (_project(spec) / f"{A}.jsonl").read_text()


@pytest.mark.parametrize(
    "subpath",
    ["../../../escape", "/etc/passwd", "a/../b", "", "a//b", ".hidden", "a\0b", "/".join("a" * 9)],
)
async def test_no_subpath_leads_elsewhere(spec: LaunchSpec, tmp_path: Path, subpath: str) -> None:
    shelf = await _shelf(**{subpath: [{"type": "user", "uuid": "x"}]})
    await history.restore(replace(spec, transcripts=shelf))
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {_project(spec) / f"{A}.jsonl"}


@pytest.mark.parametrize("place", [".claude", ".claude/projects", ".claude/projects/{key}"])
async def test_no_link_in_the_home_is_followed(
    spec: LaunchSpec, tmp_path: Path, place: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = spec.home / place.format(key=project_key_for_directory(spec.workspace))
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    with pytest.raises(AgentUnavailable) as caught:
        await history.restore(replace(spec, transcripts=await _shelf()))
    assert caught.value.error_code == "agent_history_failed"
    assert list(outside.iterdir()) == []
    with pytest.raises(AgentHistoryMissing):
        await history.restore(spec)


async def test_a_link_in_a_files_place_is_replaced(spec: LaunchSpec, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    _project(spec).mkdir(parents=True)
    (_project(spec) / f"{A}.jsonl").symlink_to(victim)
    with pytest.raises(AgentHistoryMissing):
        await history.restore(spec)
    await history.restore(replace(spec, transcripts=await _shelf()))
    assert victim.read_text() == "untouched"


async def test_what_is_not_there_is_missing(spec: LaunchSpec) -> None:
    shelf = await _shelf()
    for changes in (
        {"transcripts": Shelf()},
        {"transcripts": shelf, "resume": B},
        {"transcripts": shelf, "resume_at": B},
        {},
    ):
        with pytest.raises(AgentHistoryMissing):
            await history.restore(replace(spec, **changes))
    assert not (spec.home / ".claude").exists()


async def test_a_position_in_the_home_is_looked_for(spec: LaunchSpec) -> None:
    _project(spec).mkdir(parents=True)
    (_project(spec) / f"{A}.jsonl").write_text('not json\n[]\n{"uuid": "u1"}\n')
    await history.restore(spec)
    await history.restore(replace(spec, resume_at="u1"))
    with pytest.raises(AgentHistoryMissing):
        await history.restore(replace(spec, resume_at="u2"))


async def test_an_id_that_has_a_history_is_refused(spec: LaunchSpec) -> None:
    shelf = await _shelf()
    with pytest.raises(AgentUnavailable) as caught:
        await history.restore(replace(spec, resume=None, agent_session_id=A, transcripts=shelf))
    assert caught.value.error_code == "agent_history_exists"


async def test_an_agent_writes_its_own_history_alone() -> None:
    """It can send frames of any content: another session's history must not grow by them."""
    shelf = Shelf()
    mirror = history.Mirror(shelf, A)
    entry: Any = {"type": "user", "uuid": "u"}
    for key in (
        {"session_id": B},
        {"session_id": A, "subpath": "../x"},
        {"session_id": f"../{A}"},
    ):
        await mirror.append({"project_key": "p", **key}, [entry])  # type: ignore[typeddict-item]
    assert shelf.kept == {}
    await mirror.append({"project_key": "p", "session_id": A}, [entry])
    await mirror.append(
        {"project_key": "p", "session_id": A, "subpath": "subagents/agent-1"}, [entry]
    )
    assert set(shelf.kept) == {(A, None), (A, "subagents/agent-1")}


async def test_the_sinks_own_code_says_why_a_history_is_lost() -> None:
    class Full(Shelf):
        async def append(self, *_: Any) -> None:
            raise TooLarge("The history is full.", code="transcript_full")

    mirror = history.Mirror(Full(), A)
    assert mirror.stop().error_code == "agent_history_lost"
    mirror = history.Mirror(Full(), A)
    entry: Any = {"type": "user", "uuid": "u"}
    with pytest.raises(TooLarge):
        await mirror.append({"project_key": "p", "session_id": A}, [entry])
    assert mirror.stop().error_code == "transcript_full"
    await mirror.append({"project_key": "p", "session_id": A}, [entry])  # dropped


async def test_a_login_is_not_kept() -> None:
    shelf = Shelf()
    entry: Any = {"type": "user", "message": {"content": [{"text": "it is the-token"}]}}
    await history.Mirror(shelf, A, mask=Mask(["the-token"])).append(
        {"project_key": "p", "session_id": A}, [entry]
    )
    assert "the-token" not in str(shelf.kept)
    assert MASK in str(shelf.kept)


@given(st.text(max_size=40))
def test_parts_are_plain_names(subpath: str) -> None:
    parts = history._parts(subpath)
    assert all(part not in {"", ".", ".."} and "/" not in part for part in parts)
