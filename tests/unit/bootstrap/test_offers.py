"""What the operator offers to agents, read from a directory and a file."""

from pathlib import Path

import pytest

from stationmaster.agents.base import AgentUnavailable
from stationmaster.agents.scripted import ScriptedAgent
from stationmaster.bootstrap.offers import catalogue
from stationmaster.sessions.catalogue import Catalogue
from stationmaster.settings import Settings


def read(directory: Path, **env: str) -> Catalogue:
    return catalogue(Settings.load(env, cwd=directory), ScriptedAgent())


def servers(directory: Path, text: str) -> Catalogue:
    (directory / "mcp.json").write_text(text)
    return read(directory, MCP_SERVERS_FILE="mcp.json")


def test_nothing_is_offered_but_the_agents_tools(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert (found.skills, found.mcp_servers) == ({}, {})
    assert "Bash" in found.tools


def test_a_skill_is_a_directory_with_its_file(tmp_path: Path) -> None:
    for name in ("pdf", "notes", "empty"):
        (tmp_path / "skills" / name).mkdir(parents=True)
    for name in ("pdf", "notes"):
        (tmp_path / "skills" / name / "SKILL.md").write_text("---\nname: x\n---\n")
    found = read(tmp_path, SKILLS_DIR="skills").skills
    assert set(found) == {"pdf", "notes"}
    assert found["pdf"].directory == tmp_path / "skills" / "pdf"


def test_servers_are_commands_or_urls(tmp_path: Path) -> None:
    found = servers(
        tmp_path,
        '{"mcpServers": {"docs": {"command": "serve", "args": ["-v"], "env": {"A": "b"}},'
        ' "web": {"type": "http", "url": "https://a.example/mcp", "headers": {"X": "y"}}}}',
    ).mcp_servers
    assert (found["docs"].command, found["docs"].args, found["docs"].env) == (
        "serve",
        ("-v",),
        {"A": "b"},
    )
    assert (found["web"].url, found["web"].headers) == ("https://a.example/mcp", {"X": "y"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"mcpServers": []}',
        '{"mcpServers": {"a b": {"command": "x"}}}',
        '{"mcpServers": {"a": {}}}',
        '{"mcpServers": {"a": {"command": "x", "url": "http://y"}}}',
        '{"mcpServers": {"a": {"command": "x", "shell": true}}}',
        '{"mcpServers": {"a": {"command": "x", "args": "y"}}}',
        '{"mcpServers": {"a": {"command": "x", "env": {"A": 1}}}}',
        '{"mcpServers": {"a": {"url": "http://x", "headers": []}}}',
        '{"mcpServers": {"a": 1}}',
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(AgentUnavailable) as caught:
        servers(tmp_path, text)
    assert caught.value.error_code == "offers_invalid"
    assert "MCP_SERVERS_FILE" in caught.value.message


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    for name in ("SKILLS_DIR", "MCP_SERVERS_FILE"):
        with pytest.raises(AgentUnavailable) as caught:
            read(tmp_path, **{name: "missing"})
        assert name in caught.value.message


def test_a_skill_with_a_strange_name_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "skills" / "a b"
    place.mkdir(parents=True)
    (place / "SKILL.md").write_text("x")
    with pytest.raises(AgentUnavailable):
        read(tmp_path, SKILLS_DIR="skills")
