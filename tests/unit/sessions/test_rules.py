"""Rules, schemas and content: pure decisions."""

import base64
import struct
import zlib
from typing import Any

import pytest

from stationmaster.kernel.errors import Invalid, TooLarge
from stationmaster.kernel.profile import Profile
from stationmaster.sessions.content import MAX_IMAGE_BYTES, check_content
from stationmaster.sessions.images import dimensions
from stationmaster.sessions.rules import Rules, session_rules
from stationmaster.sessions.schema import check_schema

ALLOWED = {"enabled": True, "permission_policy": {"type": "always_allow"}}
ASKED = {"enabled": True, "permission_policy": {"type": "always_ask"}}


def toolset(default: Any = ALLOWED, **configs: Any) -> dict[str, Any]:
    return {
        "type": "agent_toolset_20260401",
        "default_config": default,
        "configs": [{"name": name, "type": name, **each} for name, each in configs.items()],
    }


def decide(name: str, input_: dict[str, Any], *rules: Any, tools: Any = None) -> str:
    agent = {"tools": [tools or toolset()]}
    return Rules(agent, session_rules(rules, None, frozenset()), ()).decide(name, input_)


def bash(command: str) -> dict[str, Any]:
    return {"command": command}


def rule(tool: str, action: str, pattern: str | None = None) -> dict[str, Any]:
    return {"tool": tool, "action": action} | ({"pattern": pattern} if pattern else {})


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("git status", "allow"),
        ("git status; rm -rf /", "ask"),
        ("git status && rm -rf /", "ask"),
        ("git log `rm x`", "ask"),
        ("git log $(rm x)", "ask"),
        ("git log > /etc/passwd", "ask"),
        ("git log\nrm x", "ask"),
        ("rm x", "ask"),
    ],
)
def test_a_pattern_that_allows_matches_no_compound_command(command: str, expected: str) -> None:
    allow = rule("bash", "allow", "git *")
    assert decide("bash", bash(command), allow, tools=toolset(ASKED)) == expected


@pytest.mark.parametrize("command", ["rm -rf /", "ls; rm -rf /", "ls && rm x", "(rm x)"])
def test_a_pattern_that_denies_finds_each_part(command: str) -> None:
    assert decide("bash", bash(command), rule("Bash", "deny", "rm *")) == "deny"
    assert decide("bash", bash("ls"), rule("Bash", "deny", "rm *")) == "allow"


def test_the_strictest_wins() -> None:
    everything = [rule("bash", "allow"), rule("bash", "ask", "make *"), rule("bash", "deny", "dd*")]
    assert decide("bash", bash("dd if=x"), *everything) == "deny"
    assert decide("bash", bash("make all"), *everything) == "ask"
    assert decide("bash", bash("ls"), *everything, tools=toolset(ASKED)) == "allow"


def test_paths_are_compared_as_they_are_meant() -> None:
    inside = rule("write", "allow", "/workspace/*")
    tools = toolset(ASKED)
    for path, expected in (
        ("/workspace/a", "allow"),
        ("/workspace/../etc/passwd", "ask"),
        ("/workspace/./a/../b", "allow"),
    ):
        assert decide("write", {"file_path": path}, inside, tools=tools) == expected


def test_the_definitions_policies() -> None:
    off = {**ALLOWED, "enabled": False}
    tools = toolset(ASKED, read=ALLOWED, write=off)
    assert decide("bash", bash("ls"), tools=tools) == "ask"
    assert decide("read", {"file_path": "x"}, tools=tools) == "allow"
    assert decide("write", {"file_path": "x"}, tools=tools) == "deny"
    agent: dict[str, Any] = {"tools": [tools]}
    always = Rules(agent, (), ("bash",))
    assert always.decide("bash", bash("ls")) == "allow"
    denied = Rules(agent, (rule("bash", "deny"),), ("bash",))
    assert denied.decide("bash", bash("ls")) == "deny", "no word of a user undoes a denial"
    assert Rules({"tools": [toolset()]}, (), ()).gated is False
    assert Rules(agent, (), ()).gated
    assert Rules({"tools": [toolset()]}, (rule("bash", "deny"),), ()).gated


def test_tools_of_servers() -> None:
    served = {
        "type": "mcp_toolset",
        "mcp_server_name": "docs",
        "default_config": ASKED,
        "configs": [{"name": "search", **ALLOWED}],
    }
    agent = {"tools": [toolset(), served]}
    rules = Rules(agent, (rule("mcp__docs__delete*", "deny"),), ())
    assert rules.decide("search", {}, server="docs") == "allow"
    assert rules.decide("write_page", {}, server="docs") == "ask"
    assert rules.decide("delete_page", {}, server="docs") == "deny"
    assert rules.decide("search", {}, server="other") == "deny"


def test_what_a_profile_forbids_is_denied() -> None:
    profile = Profile("free", blocked_tools=("WebFetch", "mcp__*"))
    made = session_rules((), profile, frozenset({"Bash", "Write", "Read"}))
    rules = Rules({"tools": [toolset()]}, made, ())
    assert rules.decide("bash", bash("ls")) == "allow"
    assert rules.decide("write", {"file_path": "x"}) == "deny", "it may only read files"
    assert rules.decide("web_fetch", {"url": "x"}) == "deny"
    assert rules.decide("search", {}, server="docs") == "deny"


@pytest.mark.parametrize(
    "wrong",
    [
        "rules",
        [5],
        [{"tool": "bash"}],
        [{"tool": "bash", "action": "maybe"}],
        [{"tool": "", "action": "deny"}],
        [{"tool": "bash", "action": "deny", "why": "x"}],
        [{"tool": "bash", "action": "deny", "pattern": ""}],
        [{"tool": "bash", "action": "deny"}] * 101,
    ],
)
def test_rules_that_are_none(wrong: Any) -> None:
    with pytest.raises(Invalid):
        session_rules(wrong, None, frozenset())


# --- schemas ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {},
        {"type": "string"},
        {"type": "object", "properties": []},
        {"type": "object", "properties": {"a": {"type": "text"}}},
        {"type": "object", "properties": {"a": {"type": 5}}},
        {"type": "object", "required": "a"},
        {"type": "object", "properties": {"a": {"enum": "x"}}},
        {"type": "object", "properties": {"a": {"anyOf": {}}}},
        {"type": "object", "properties": {"a": {"items": 7}}},
        {"type": "object", "title": "\ud800"},
    ],
)
def test_a_schema_that_is_not_one(wrong: Any) -> None:
    with pytest.raises(Invalid):
        check_schema(wrong, "schema")


def test_schemas_are_bounded() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(40):
        deep = {"type": "object", "properties": {"a": deep}}
    with pytest.raises(Invalid):
        check_schema(deep, "schema")
    with pytest.raises(TooLarge):
        check_schema({"type": "object", "description": "x" * 200_000}, "schema")
    good = {
        "type": "object",
        "properties": {"a": {"type": ["integer", "null"]}, "b": {"$ref": "#/$defs/b"}},
        "$defs": {"b": {"type": "array", "items": {"type": "string"}}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert check_schema(good, "schema") == good


# --- content ----------------------------------------------------------------------------------


def png(width: int = 3, height: int = 2) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def image(data: bytes, media_type: str = "image/png") -> dict[str, Any]:
    source = {"type": "base64", "media_type": media_type, "data": base64.b64encode(data).decode()}
    return {"type": "image", "source": source}


def test_what_may_be_said() -> None:
    pdf = base64.b64encode(b"%PDF-1.7 ...").decode()
    content: list[dict[str, Any]] = [
        {"type": "text", "text": "Look:"},
        image(png()),
        {
            "type": "document",
            "title": "A",
            "source": {"type": "text", "media_type": "text/plain", "data": "words"},
        },
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": pdf},
        },
    ]
    assert check_content(content, "content") == content


@pytest.mark.parametrize(
    ("block", "error"),
    [
        ("text", Invalid),
        ({"type": "text"}, Invalid),
        ({"type": "text", "text": ""}, Invalid),
        ({"type": "text", "text": "a", "cache_control": {}}, Invalid),
        ({"type": "text", "text": "x" * 1_000_001}, TooLarge),
        ({"type": "tool_result"}, Invalid),
        ({"type": "image", "source": {"type": "url", "url": "http://x.example"}}, Invalid),
        (image(b"no image at all"), Invalid),
        (image(png(), "image/jpeg"), Invalid),
        (image(png(), "image/tiff"), Invalid),
        (image(png()[:20]), Invalid),
        (image(png(9000, 1)), TooLarge),
        (image(png(0, 1)), TooLarge),
        (image(png() + bytes(MAX_IMAGE_BYTES)), TooLarge),
        (
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "%%%"},
            },
            Invalid,
        ),
        ({"type": "document", "source": {"type": "url", "url": "http://x.example"}}, Invalid),
        (
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "aGVsbG8="},
            },
            Invalid,
        ),
    ],
)
def test_what_may_not_be_said(block: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        check_content([{"type": "text", "text": "a"}, block], "content")
    assert str(getattr(caught.value, "param", "")).startswith("content.1")


def test_messages_are_bounded() -> None:
    wrong: list[Any] = [[], {}, None, [{"type": "text", "text": "a"}] * 101]
    for content in wrong:
        with pytest.raises(Invalid):
            check_content(content, "content")
    big = image(png() + bytes(MAX_IMAGE_BYTES - 100))
    with pytest.raises(TooLarge):
        check_content([big] * 4, "content")


@pytest.mark.parametrize(
    ("media_type", "data", "size"),
    [
        ("image/gif", b"GIF89a" + struct.pack("<HH", 5, 7) + bytes(3), (5, 7)),
        (
            "image/jpeg",
            b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xc0\x00\x11\x08\x00\x07\x00\x05\x03",
            (5, 7),
        ),
        (
            "image/webp",
            b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + b"\x04\0\0\x06\0\0",
            (5, 7),
        ),
        (
            "image/webp",
            b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + struct.pack("<I", 4 | 6 << 14),
            (5, 7),
        ),
        (
            "image/webp",
            b"RIFF\0\0\0\0WEBPVP8 " + bytes(7) + b"\x9d\x01\x2a" + struct.pack("<HH", 5, 7),
            (5, 7),
        ),
        ("image/jpeg", b"\xff\xd8\xff\xe0\x00\x00", None),
        ("image/jpeg", b"\xff\xd8\xff", None),
        ("image/webp", b"RIFF\0\0\0\0WEBPVP8?" + bytes(20), None),
        ("image/gif", b"GIF89a", None),
    ],
)
def test_the_size_of_an_image(media_type: str, data: bytes, size: tuple[int, int] | None) -> None:
    assert dimensions(data, media_type) == size
