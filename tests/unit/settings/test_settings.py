import json
from pathlib import Path

import pytest

from stationmaster.settings import Settings, SettingsError
from stationmaster.settings.field import settings_of

KEY = "k" * 20
OTHER_KEY = "o" * 20


def load(cwd: Path, **environ: str) -> Settings:
    return Settings.load(environ, cwd=cwd)


def problems(cwd: Path, **environ: str) -> str:
    with pytest.raises(SettingsError) as refused:
        load(cwd, **environ)
    return str(refused.value)


def test_nothing_configured_is_a_working_server(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.data_dir == tmp_path / "data"
    assert settings.workspace_dir == tmp_path / "data" / "workspaces"
    database = f"sqlite:///{tmp_path}/data/stationmaster.db"
    assert settings.database_url.get_secret_value() == database
    assert settings.max_queue == 50
    assert settings.provider == "offline"
    assert settings.task_max_cost == 1_000_000
    assert settings.agent_memory == 2 * 1024**3


def test_every_default_is_written_in_its_own_form() -> None:
    for setting in settings_of(Settings):
        if setting.default is not None:
            setting.form.parse(setting.default)  # raises ValueError otherwise


def test_the_environment_wins_over_dotenv_and_that_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("port: 1\nmax_workers: 2\nlog_level: debug\n")
    (tmp_path / ".env").write_text("PORT=3\nMAX_WORKERS=4\n")
    settings = load(tmp_path, PORT="5")
    assert (settings.port, settings.max_workers, settings.log_level) == (5, 4, "debug")


def test_precedence_is_by_place_before_it_is_by_name(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=1\n")
    assert load(tmp_path, SERVER_PORT="2").port == 2
    (tmp_path / "key").write_text(KEY)
    (tmp_path / ".env").write_text(f"API_KEY={OTHER_KEY}\n")
    found = load(tmp_path, API_KEY_FILE="key").api_key
    assert found is not None
    assert found.get_secret_value() == KEY


@pytest.mark.parametrize("name", ["PORT", "SERVER_PORT", "API_PORT"])
def test_a_setting_has_the_names_that_guides_give_it(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, **{name: "9000"}).port == 9000


def test_two_names_that_disagree_are_refused(tmp_path: Path) -> None:
    assert load(tmp_path, PORT="1", API_PORT="1").port == 1
    message = problems(tmp_path, PORT="1", API_PORT="2")
    assert "PORT and API_PORT mean the same but differ" in message


def test_an_empty_value_is_not_set(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=7\n")
    assert load(tmp_path, PORT="", API_KEY=" ").port == 7


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45", 45.0),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1m30s", 90.0),
        ("1500ms", 1.5),
        ("0.5h", 1800.0),
    ],
)
def test_durations(tmp_path: Path, text: str, seconds: float) -> None:
    assert load(tmp_path, API_TIMEOUT=text).api_timeout == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2048", 2048),
        ("256MB", 256 * 1024**2),
        ("1 gb", 1024**3),
        ("1.5KiB", 1536),
        ("2G", 2 * 1024**3),
    ],
)
def test_sizes(tmp_path: Path, text: str, size: int) -> None:
    settings = load(tmp_path, MAX_UPLOAD_SIZE=text)
    assert settings.max_upload_size == size


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "8080.0"),
        ("PORT", "٣"),
        ("API_TIMEOUT", "0"),
        ("API_TIMEOUT", "5 minutes"),
        ("API_TIMEOUT", "-5s"),
        ("API_TIMEOUT", "nan"),
        ("API_TIMEOUT", "inf"),
        ("API_TIMEOUT", "1e3"),
        ("MAX_REQUEST_SIZE", "10 megabytes"),
        ("MAX_REQUEST_SIZE", "0"),
        ("MAX_WORKERS", "0"),
        ("API_KEY_ENABLED", "maybe"),
        ("LOG_LEVEL", "loud"),
        ("TASK_MAX_COST", "-1"),
        ("TASK_MAX_COST", "NaN"),
        ("TASK_MAX_COST", "much"),
        ("HOST", "http://localhost"),
        ("HOST", "-oProxy"),
        ("DEFAULT_MODEL", "--model"),
        ("ANTHROPIC_BASE_URL", "api.anthropic.com"),
        ("ANTHROPIC_BASE_URL", "https://user:password@host"),
        ("ANTHROPIC_BASE_URL", "https://host:port"),
        ("SANDBOX_READONLY", "opt/toolchain"),
        ("KEEPALIVE_INTERVAL", "16s"),
    ],
)
def test_a_wrong_value_names_variable_form_value_and_place(
    tmp_path: Path, name: str, text: str
) -> None:
    message = problems(tmp_path, **{name: text})
    form = next(item.form for item in settings_of(Settings) if item.name == name)
    expected = f"{name} must be {form.must_be}, not {json.dumps(text)} (from the environment)"
    assert expected in message


def test_all_problems_are_told_at_once_each_with_its_place(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# a comment\n\nMAX_WORKERS=none\n")
    (tmp_path / "config.yaml").write_text("task:\n  timeout: soon\n")
    message = problems(tmp_path, API_PORT="x")
    assert "3 settings are wrong" in message
    assert f"(from {tmp_path}/.env line 3)" in message
    assert f"(from {tmp_path}/config.yaml line 2)" in message
    assert "API_PORT must be a port number from 0 to 65535" in message


def test_a_wrong_value_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    message = problems(tmp_path, PORT="\x1b]0;owned\x07" + "x" * 1000)
    assert "\x1b" not in message
    assert len(message) < 400


class TestDotenv:
    def test_values_are_literal(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("export DEFAULT_MODEL='opus'\nDATA_DIR=$HOME/x # note\n")
        settings = load(tmp_path)
        assert settings.default_model == "opus"
        assert settings.data_dir == tmp_path / "$HOME/x"

    def test_a_line_that_is_none_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("PORT=1\n\nwhat is this!\n")
        assert f"NAME=value (from {tmp_path}/.env line 3)" in problems(tmp_path)

    def test_names_of_others_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("COMPOSE_PROJECT_NAME=x\n")
        load(tmp_path, SOMETHING_ELSE="y")


class TestConfigFile:
    def test_keys_may_be_nested_and_take_lists(self, tmp_path: Path) -> None:
        (tmp_path / "config.yaml").write_text(
            "server: {host: localhost, port: 81}\nsandbox-readonly:\n  - /opt/a\n  - /opt/b\n"
        )
        settings = load(tmp_path)
        assert (settings.host, settings.port) == ("localhost", 81)
        assert settings.sandbox_readonly == (Path("/opt/a"), Path("/opt/b"))

    def test_null_is_not_set(self, tmp_path: Path) -> None:
        (tmp_path / "config.yaml").write_text("port: null\nhost: ~\n")
        assert load(tmp_path).port == 8080

    def test_an_unknown_key_is_refused_with_the_nearest_name(self, tmp_path: Path) -> None:
        (tmp_path / "config.yaml").write_text("port: 1\nmax_worker: 3\n")
        message = problems(tmp_path)
        assert "there is no setting max_worker; did you mean max_workers?" in message
        assert f"(from {tmp_path}/config.yaml line 2)" in message

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("port: 1\nport: 2\n", "port is there twice"),
            ("port: [{a: 1}]\n", "port must be one value or a list"),
            ("- port\n", "the file must be a mapping"),
            ("port: [\n", "the file is not YAML"),
            ("config_file: other.yaml\n", "there is no setting config_file"),
            ("server: &a\n  port: *a\n", "there is no setting server.port"),
            ("port: !!python/object/apply:os.system ['true']\n", "PORT must be"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, tmp_path: Path, text: str, expected: str) -> None:
        (tmp_path / "config.yaml").write_text(text)
        assert expected in problems(tmp_path)

    def test_another_file_can_be_named_and_must_then_be_there(self, tmp_path: Path) -> None:
        (tmp_path / "other.yaml").write_text("port: 82\n")
        assert load(tmp_path, CONFIG_FILE="other.yaml").port == 82
        assert "cannot be read" in problems(tmp_path, CONFIG_FILE="absent.yaml")

    def test_bytes_that_are_no_text_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "config.yaml").write_bytes(b"port: \xff\xfe")
        assert "is not UTF-8 text" in problems(tmp_path)


class TestSecrets:
    def test_a_secret_may_come_from_a_file(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text(f"{KEY}\n")
        found = load(tmp_path, ADMIN_API_KEY_FILE=str(secret)).admin_api_key
        assert found is not None
        assert found.get_secret_value() == KEY

    def test_its_value_is_in_no_message_and_no_repr(self, tmp_path: Path) -> None:
        environ = {
            "API_KEY": "canary with spaces",
            "API_KEYS": "canary",
            "DATABASE_URL": "mysql://user:canary@host/name",
            "CLAUDE_CODE_CREDENTIALS_JSON": '{"apiKey": 1, "x": "canary"}',
        }
        message = problems(tmp_path, **environ)
        assert "4 settings are wrong" in message
        assert "canary" not in message
        settings = load(
            tmp_path, API_KEY=f"canary{KEY}", DATABASE_URL="postgresql://user:canary@host/name"
        )
        assert "canary" not in repr(settings)

    @pytest.mark.parametrize("content", [None, "", "short"])
    def test_a_bad_file_is_named_and_not_shown(self, tmp_path: Path, content: str | None) -> None:
        file = tmp_path / "secret"
        if content is not None:
            file.write_text(content)
        message = problems(tmp_path, API_KEY_FILE=str(file))
        assert str(file) in message
        assert "short" not in message

    def test_value_and_file_together_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text(KEY)
        message = problems(tmp_path, API_KEY=KEY, API_KEY_FILE="secret")
        assert "API_KEY and API_KEY_FILE are both set" in message

    def test_what_the_log_must_mask_includes_the_parts(self, tmp_path: Path) -> None:
        settings = load(
            tmp_path,
            API_KEYS=f"{KEY},{OTHER_KEY}",
            DATABASE_URL="postgresql://user:p%40ssword@host/name",
            CLAUDE_CODE_CREDENTIALS_JSON=json.dumps(
                {"claudeAiOauth": {"accessToken": "access-token", "refreshToken": "refresh-token"}}
            ),
        )
        expected = {KEY, OTHER_KEY, "p%40ssword", "p@ssword", "access-token", "refresh-token"}
        assert expected <= set(settings.secrets())

    def test_a_key_may_look_like_something_else(self, tmp_path: Path) -> None:
        keys = ("http://[not-a-url:", "{not-json-either:")
        settings = load(tmp_path, ADMIN_API_KEY=keys[0], API_KEY=keys[1])
        assert set(keys) <= set(settings.secrets())

    def test_keys_are_collected_once_each(self, tmp_path: Path) -> None:
        settings = load(tmp_path, API_KEY=KEY, API_KEYS=f"{OTHER_KEY}, {KEY},")
        assert [key.get_secret_value() for key in settings.user_keys] == [KEY, OTHER_KEY]


class TestCredentials:
    API_KEY = '{"apiKey": "sk-ant-0123456789abcdef"}'
    LOGIN = '{"claudeAiOauth": {"accessToken": "sk-ant-oat-0123456789"}}'

    def test_an_api_key_in_them_is_the_providers_key(self, tmp_path: Path) -> None:
        settings = load(tmp_path, CLAUDE_CODE_CREDENTIALS_JSON=self.API_KEY)
        assert settings.anthropic_api_key is not None
        assert settings.anthropic_api_key.get_secret_value() == "sk-ant-0123456789abcdef"
        assert settings.provider == "anthropic"
        assert settings.subscription_login is None

    def test_the_key_of_its_own_setting_wins(self, tmp_path: Path) -> None:
        settings = load(tmp_path, ANTHROPIC_API_KEY=KEY, CLAUDE_CODE_CREDENTIALS_JSON=self.API_KEY)
        assert settings.anthropic_api_key is not None
        assert settings.anthropic_api_key.get_secret_value() == KEY

    def test_a_login_is_not_a_key(self, tmp_path: Path) -> None:
        settings = load(tmp_path, CLAUDE_CODE_CREDENTIALS_JSON=self.LOGIN)
        assert settings.anthropic_api_key is None
        assert settings.provider == "offline"
        assert settings.subscription_login is not None

    def test_the_secret_file_wins(self, tmp_path: Path) -> None:
        (tmp_path / "credentials.json").write_text(self.API_KEY)
        settings = load(
            tmp_path,
            CLAUDE_CODE_CREDENTIALS_JSON=self.LOGIN,
            CLAUDE_CODE_CREDENTIALS_SECRET="credentials.json",
        )
        assert settings.subscription_login is None
        assert settings.anthropic_api_key is not None

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"apiKey": ""}', '{"claudeAiOauth": 1}'])
    def test_what_cannot_be_read_refuses_to_start(self, tmp_path: Path, text: str) -> None:
        assert "CLAUDE_CODE_CREDENTIALS_JSON must be JSON" in problems(
            tmp_path, CLAUDE_CODE_CREDENTIALS_JSON=text
        )
        (tmp_path / "file").write_text(text)
        assert "must hold JSON" in problems(tmp_path, CLAUDE_CODE_CREDENTIALS_SECRET="file")


class TestDatabase:
    @pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
    def test_postgresql_by_any_of_its_names(self, tmp_path: Path, scheme: str) -> None:
        settings = load(tmp_path, DATABASE_URL=f"{scheme}://user@host:5432/name")
        assert settings.database_url.get_secret_value() == "postgresql://user@host:5432/name"

    def test_a_relative_sqlite_path_is_below_the_working_directory(self, tmp_path: Path) -> None:
        settings = load(tmp_path, DATABASE_URL="sqlite:///some/file.db")
        assert settings.database_url.get_secret_value() == f"sqlite:///{tmp_path}/some/file.db"
        assert settings.database_path == tmp_path / "some" / "file.db"

    def test_a_path_alone_is_sqlite(self, tmp_path: Path) -> None:
        settings = load(tmp_path, DATABASE_PATH="/srv/budgets.db")
        assert settings.database_url.get_secret_value() == "sqlite:////srv/budgets.db"

    @pytest.mark.parametrize(
        "url", ["cockroach://u@h/n", "sqlite://", "sqlite:///:memory:", "postgres://h"]
    )
    def test_others_are_refused(self, tmp_path: Path, url: str) -> None:
        assert "DATABASE_URL must be" in problems(tmp_path, DATABASE_URL=url)

    @pytest.mark.parametrize("scheme", ["mysql", "mysql+aiomysql", "mariadb"])
    def test_mysql_is_refused_with_what_to_use_instead(self, tmp_path: Path, scheme: str) -> None:
        told = problems(tmp_path, DATABASE_URL=f"{scheme}://user:hidden-word@host/name")
        assert "which is not supported: use PostgreSQL" in told
        assert "hidden-word" not in told

    def test_a_replica_is_postgresqls(self, tmp_path: Path) -> None:
        replica = "postgresql://user@standby/name"
        settings = load(
            tmp_path, DATABASE_URL="postgresql://user@host/name", DATABASE_REPLICA_URL=replica
        )
        assert settings.database_replica_url is not None
        assert settings.database_replica_url.get_secret_value() == replica
        assert "needs a DATABASE_URL of PostgreSQL" in problems(
            tmp_path, DATABASE_REPLICA_URL=replica
        )
        assert "DATABASE_REPLICA_URL must be" in problems(
            tmp_path, DATABASE_REPLICA_URL="sqlite:///x.db"
        )


class TestTogether:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org"])
    def test_without_keys_only_loopback(self, tmp_path: Path, host: str) -> None:
        message = problems(tmp_path, HOST=host, API_KEY_ENABLED="false")
        assert "HOST must be a loopback address where API_KEY_ENABLED is false" in message
        load(tmp_path, HOST=host)

    def test_without_keys_anywhere_must_be_said_twice(self, tmp_path: Path) -> None:
        said = {"HOST": "0.0.0.0", "API_KEY_ENABLED": "false", "API_KEY_DISABLED_ANYWHERE": "yes"}
        assert load(tmp_path, **said).api_key_enabled is False

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
    def test_loopback_may_do_without(self, tmp_path: Path, host: str) -> None:
        assert load(tmp_path, HOST=host, API_KEY_ENABLED="no").api_key_enabled is False

    def test_a_default_must_not_pass_its_ceiling(self, tmp_path: Path) -> None:
        message = problems(tmp_path, TASK_TIMEOUT="11m", TASK_MAX_COST="10.01")
        assert "TASK_TIMEOUT must not be longer than TASK_MAX_TIMEOUT" in message
        assert "TASK_MAX_COST must not be higher than TASK_COST_LIMIT" in message

    def test_a_provider_needs_its_key(self, tmp_path: Path) -> None:
        assert "needs ANTHROPIC_API_KEY" in problems(tmp_path, PROVIDER="anthropic")
        assert load(tmp_path, PROVIDER="offline", ANTHROPIC_API_KEY=KEY).provider == "offline"
