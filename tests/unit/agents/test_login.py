import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from stationmaster.agents.base import (
    AgentUnavailable,
    Finished,
    Message,
    Started,
    ToolResult,
    ToolUse,
)
from stationmaster.agents.claude_code.login import SubscriptionLogin, remove
from stationmaster.agents.claude_code.mask import Mask

LOGIN: dict[str, Any] = {
    "accessToken": "access-one",
    "refreshToken": "refresh-one",
    "expiresAt": 1000,
    "subscriptionType": "max",
}
GIVEN = json.dumps({"claudeAiOauth": LOGIN})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def learned() -> list[str]:
    return []


@pytest.fixture
def kept(tmp_path: Path, learned: list[str]) -> SubscriptionLogin:
    return SubscriptionLogin(GIVEN, tmp_path / "subscription", learned=learned.append)


def file_of(home: Path) -> Path:
    return home / ".claude" / ".credentials.json"


def refreshed(number: int, **changes: Any) -> str:
    login = {
        **LOGIN,
        "accessToken": f"access-{number}",
        "refreshToken": f"refresh-{number}",
        "expiresAt": number,
    }
    return json.dumps({"claudeAiOauth": login | changes})


def test_an_agent_gets_it_in_a_private_file_and_loses_it_again(
    kept: SubscriptionLogin, home: Path
) -> None:
    given = kept.give(home)
    assert json.loads(file_of(home).read_text()) == {"claudeAiOauth": LOGIN}
    assert stat.S_IMODE(file_of(home).stat().st_mode) == 0o600
    kept.take_back(home, given)
    assert not file_of(home).exists()
    assert kept.give(home) == LOGIN


def test_a_refreshed_one_is_kept_over_a_restart(
    kept: SubscriptionLogin, home: Path, tmp_path: Path, learned: list[str]
) -> None:
    given = kept.give(home)
    file_of(home).write_text(refreshed(2000, subscriptionType="free", evil="x"))
    kept.take_back(home, given)
    file = tmp_path / "subscription" / "credentials.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {"access-2000", "refresh-2000"} <= set(learned)

    again = SubscriptionLogin(GIVEN, tmp_path / "subscription", learned=learned.append)
    for each in (kept, again):
        login = each.give(home)
        assert login["accessToken"] == "access-2000"
        assert login["subscriptionType"] == "max"
        assert "evil" not in login
    assert [path.name for path in file.parent.iterdir()] == ["credentials.json"]


def test_of_two_agents_the_newest_login_wins(
    kept: SubscriptionLogin, home: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    first, second = kept.give(home), kept.give(other)
    file_of(home).write_text(refreshed(3000))
    file_of(other).write_text(refreshed(2000))
    kept.take_back(home, first)
    kept.take_back(other, second)
    assert kept.give(home)["accessToken"] == "access-3000"


def test_the_operators_new_setting_wins(
    kept: SubscriptionLogin, home: Path, tmp_path: Path
) -> None:
    given = kept.give(home)
    file_of(home).write_text(refreshed(9000))
    kept.take_back(home, given)
    new = json.dumps({"claudeAiOauth": {**LOGIN, "accessToken": "access-new"}})
    later = SubscriptionLogin(new, tmp_path / "subscription", learned=lambda _: None)
    assert later.give(home)["accessToken"] == "access-new"


@pytest.mark.parametrize(
    "left",
    [
        "",
        "[]",
        "null",
        "[" * 100_000,
        '{"claudeAiOauth": null}',
        refreshed(2000, accessToken=7),
        refreshed(2000, refreshToken=""),
        refreshed(2000, refreshToken="short"),
        refreshed(2000, accessToken="access-\ud800-one"),
        refreshed(2000, accessToken="access one two"),
        refreshed(2000, expiresAt="soon"),
        refreshed(2000, expiresAt=True),
        refreshed(2000, accessToken="x" * 100_000),
        refreshed(500),
    ],
    ids=lambda value: value[:30],
)
def test_what_is_not_a_newer_login_is_ignored(
    kept: SubscriptionLogin, home: Path, left: str
) -> None:
    given = kept.give(home)
    file_of(home).write_text(left)
    kept.take_back(home, given)
    assert kept.give(home) == LOGIN


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "missing"])
def test_what_is_not_a_file_is_ignored(
    kept: SubscriptionLogin, home: Path, tmp_path: Path, kind: str
) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text(refreshed(2000))
    given = kept.give(home)
    file_of(home).unlink()
    if kind == "link":
        file_of(home).symlink_to(elsewhere)
    elif kind == "pipe":
        os.mkfifo(file_of(home))
    elif kind == "directory":
        file_of(home).mkdir()
    kept.take_back(home, given)
    assert elsewhere.exists()
    if kind != "directory":
        assert kept.give(home) == LOGIN


def test_a_planted_link_does_not_lead_it_out(
    kept: SubscriptionLogin, home: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (home / ".claude").symlink_to(outside)
    with pytest.raises(AgentUnavailable) as caught:
        kept.give(home)
    assert caught.value.error_code == "agent_login_failed"
    (outside / ".credentials.json").write_text("somebody's")
    remove(home)
    assert (outside / ".credentials.json").read_text() == "somebody's"

    (home / ".claude").unlink()
    (home / ".claude").mkdir()
    target = tmp_path / "target"
    target.write_text("as it was")
    file_of(home).symlink_to(target)
    kept.give(home)
    assert target.read_text() == "as it was"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"source": 1}', "\udcff"])
def test_a_broken_file_of_the_servers_own_is_ignored(tmp_path: Path, home: Path, text: str) -> None:
    directory = tmp_path / "subscription"
    directory.mkdir()
    (directory / "credentials.json").write_text(text, errors="surrogateescape")
    kept = SubscriptionLogin(GIVEN, directory, learned=lambda _: None)
    assert kept.give(home) == LOGIN


def test_a_full_disk_costs_the_refresh_and_says_so(
    kept: SubscriptionLogin, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "subscription").write_text("in the way")
    given = kept.give(home)
    file_of(home).write_text(refreshed(2000))
    with capture_logs() as lines:
        kept.take_back(home, given)
    assert any(line["log_level"] == "error" for line in lines)
    assert "access-2000" not in str(lines)
    assert kept.give(home)["accessToken"] == "access-2000"


def test_a_mask_hides_tokens_wherever_an_agent_says_them() -> None:
    mask = Mask(["access-one", "access-one-longer"])
    said = "I read access-one-longer and sk-ant-oat01-Fresh_one-x."
    assert mask.text(said) == "I read [redacted] and [redacted]."
    result = ToolResult("toolu_1", [{"type": "text", "text": said}], is_error=False)
    assert mask.event(result) == ToolResult(
        "toolu_1", [{"type": "text", "text": "I read [redacted] and [redacted]."}], is_error=False
    )
    use = ToolUse("toolu_1", "Bash", {"command": {"access-one": 1}})
    assert mask.event(use) == ToolUse("toolu_1", "Bash", {"command": {"[redacted]": 1}})
    end = Finished("error", said, 1, error=said)
    assert "access-one" not in str(mask.event(end))
    for plain in (Started("s", "m", ("Bash",), "2"), Message("nothing to hide")):
        assert mask.event(plain) is plain
