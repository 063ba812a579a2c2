"""What the commands around the server do with its settings."""

import stat
from pathlib import Path

import pytest

from stationmaster.bootstrap.configuration import SettingsError, configure
from stationmaster.cli.application import run
from stationmaster.cli.serve import KEY_FILE, show_key


def test_an_option_wins_over_every_name_of_its_setting(tmp_path: Path) -> None:
    environ = {"SERVER_PORT": "1", "API_PORT": "1", "ADMIN_API_KEY_FILE": "/nowhere"}
    overrides = {"PORT": "2", "ADMIN_API_KEY": "k" * 20}
    settings = configure(environ, overrides=overrides, cwd=tmp_path)
    assert settings.port == 2
    assert settings.admin_api_key is not None
    assert settings.admin_api_key.get_secret_value() == "k" * 20


def test_an_option_wins_over_the_files(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=3\nMAX_WORKERS=7\n")
    settings = configure({}, overrides={"PORT": "2"}, cwd=tmp_path)
    assert (settings.port, settings.max_workers) == (2, 7)


def test_a_wrong_option_is_told_like_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="PORT must be"):
        configure({}, overrides={"PORT": "x"}, cwd=tmp_path)


def test_serve_refuses_wrong_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["serve", "--host", "0.0.0.0", "--log-level", "loud"]) == 78
    assert "LOG_LEVEL must be" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_a_terminal_the_admin_key_goes_to_a_file_for_its_owner_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_key("sm_live_secret", tmp_path)
    said = capsys.readouterr()
    assert "sm_live_secret" not in said.out + said.err
    path = tmp_path / KEY_FILE
    assert path.read_text() == "sm_live_secret\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_file_that_is_there_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / KEY_FILE).write_text("mine")
    show_key("sm_live_secret", tmp_path)
    said = capsys.readouterr()
    assert "cannot be written" in said.err
    assert "sm_live_secret" not in said.out + said.err
    assert (tmp_path / KEY_FILE).read_text() == "mine"
