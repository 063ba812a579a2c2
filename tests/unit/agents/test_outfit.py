import json
from dataclasses import replace
from pathlib import Path

import pytest

from stationmaster.agents.base import AgentUnavailable, CustomTool, LaunchSpec, McpServer, Skill
from stationmaster.agents.claude_code.outfit import write_manifest, write_outfit


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
    )


def _skill(top: Path) -> Skill:
    directory = top / "greeting"
    directory.mkdir()
    (directory / "SKILL.md").write_text("Say ahoy.")
    return Skill("greeting", directory)


def test_it_is_no_more_than_was_asked_for(spec: LaunchSpec) -> None:
    worn = write_outfit(spec, boxed=True)
    assert (worn.prompt, worn.tool_servers, worn.plugin) == (None, None, None)
    assert [path.name for path in spec.home.iterdir()] == ["tmp"]


def test_an_address_and_its_headers_are_not_the_agents(spec: LaunchSpec) -> None:
    servers = (
        McpServer("files", "/usr/bin/true", ("-x",), {"KEY": "own"}),
        McpServer("web", url="https://tools.example/mcp", headers={"X": "hidden"}),
    )
    tool = CustomTool("look_up", "Looks up.", {"type": "object"})
    worn = write_outfit(replace(spec, mcp_servers=servers, custom_tools=(tool,)), boxed=True)
    assert worn.tool_servers is not None
    text = worn.tool_servers.read_text()
    assert "hidden" not in text
    assert "tools.example" not in text
    written = json.loads(text)["mcpServers"]
    assert written["files"] == {
        "type": "stdio",
        "command": "/usr/bin/true",
        "args": ["-x"],
        "env": {"KEY": "own"},
    }
    assert {name for name, each in written.items() if each["type"] == "sdk"} == {"web", "custom"}
    assert worn.tool_servers.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["system-prompt.md", "tool-servers.json"])
def test_a_link_in_its_place_is_replaced(spec: LaunchSpec, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (spec.home / name).symlink_to(victim)
    write_outfit(
        replace(spec, system_prompt="Be kind.", mcp_servers=(McpServer("files", "/usr/bin/true"),)),
        boxed=True,
    )
    assert victim.read_text() == "untouched"
    assert not (spec.home / name).is_symlink()


def test_skills_are_linked_where_there_is_no_sandbox(spec: LaunchSpec, tmp_path: Path) -> None:
    skill = _skill(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (spec.home / "plugin").symlink_to(outside)
    write_outfit(replace(spec, skills=(skill,)), boxed=False)
    worn = write_outfit(replace(spec, skills=(skill,)), boxed=False)
    assert worn.plugin == spec.home / "plugin"
    assert (worn.plugin / "skills" / "greeting" / "SKILL.md").read_text() == "Say ahoy."
    assert json.loads((worn.plugin / ".claude-plugin" / "plugin.json").read_text())["name"]
    assert list(outside.iterdir()) == []
    assert skill.directory.is_dir()


def test_a_skill_that_is_not_there(spec: LaunchSpec, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for directory in (tmp_path / "nowhere", tmp_path / "empty", Path("relative")):
        with pytest.raises(AgentUnavailable) as caught:
            write_outfit(replace(spec, skills=(Skill("x", directory),)), boxed=True)
        assert caught.value.error_code == "agent_skill_missing"


def test_a_manifest_is_written_once(tmp_path: Path) -> None:
    path = write_manifest(tmp_path / "manifest") / "plugin.json"
    before = path.stat().st_mtime_ns
    write_manifest(tmp_path / "manifest")
    assert path.stat().st_mtime_ns == before
