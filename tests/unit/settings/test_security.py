"""What production refuses, and the forms of the settings of security."""

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from stationmaster.settings import Settings, SettingsError

GOOD = "Zt5gkq8WmR2vXcYp0aHd7LsNfJ3uEiB9"
FIT = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": GOOD,
    "HOST": "127.0.0.1",
}


def problems(tmp_path: Path, **env: str) -> dict[str, str]:
    try:
        Settings.load(env, cwd=tmp_path)
    except SettingsError as error:
        return {problem.setting: problem.message for problem in error.problems}
    return {}


def test_production_takes_what_is_fit(tmp_path: Path) -> None:
    assert problems(tmp_path, **FIT) == {}
    open_ = {**FIT, "HOST": "0.0.0.0"}
    assert problems(tmp_path, **open_, TRUSTED_PROXIES="10.0.0.0/8") == {}
    tls = {"SSL_CERTFILE": "/c.pem", "SSL_KEYFILE": "/k.pem"}
    assert problems(tmp_path, **open_, **tls) == {}
    more = {"ADMIN_API_KEY": GOOD, "API_KEYS": GOOD[::-1], "ENCRYPTION_KEYS": GOOD.swapcase()}
    assert problems(tmp_path, **FIT, **more) == {}
    url = {"DATABASE_URL": "postgresql://station:kV9xQ2mT@db/station"}
    assert problems(tmp_path, **FIT, **url) == {}


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"SECRET_KEY": None}, "SECRET_KEY"),
        ({"SECRET_KEY": GOOD[:31]}, "SECRET_KEY"),
        ({"SECRET_KEY": "your-super-secret-key-here-please-x"}, "SECRET_KEY"),
        ({"SECRET_KEY": "changethis-changethis-changethis-1x"}, "SECRET_KEY"),
        ({"SECRET_KEY": "a" * 40}, "SECRET_KEY"),
        ({"SECRET_KEY": "abababababababababababababababababab"}, "SECRET_KEY"),
        ({"ENCRYPTION_KEYS": GOOD + "," + GOOD[:20]}, "ENCRYPTION_KEYS"),
        ({"ADMIN_API_KEY": GOOD[:23]}, "ADMIN_API_KEY"),
        ({"API_KEY": "my-test-key-0987zyxwvuts"}, "API_KEY"),
        ({"API_KEYS": GOOD + ",password-and-more-than-24"}, "API_KEYS"),
        ({"DATABASE_URL": "postgresql://postgres:postgres@db/station"}, "DATABASE_URL"),
        ({"HOST": "0.0.0.0"}, "HOST"),
        ({"HOST": "192.0.2.1"}, "HOST"),
        ({"TRUSTED_PROXIES": "0.0.0.0/0"}, "TRUSTED_PROXIES"),
        ({"DEBUG": "true"}, "DEBUG"),
        ({"API_KEY_ENABLED": "false"}, "API_KEY_ENABLED"),
    ],
    ids=str,
)
def test_production_refuses_what_is_not(
    tmp_path: Path, changes: dict[str, str | None], setting: str
) -> None:
    env = {name: value for name, value in {**FIT, **changes}.items() if value is not None}
    found = problems(tmp_path, **env)
    assert list(found) == [setting]
    for value in changes.values():
        if value is not None and "KEY" in setting and len(value) > 10:
            assert value not in found[setting]
    assert problems(tmp_path, **{**env, "ENVIRONMENT": "staging"}) == {}


def test_every_problem_is_told_at_once_with_what_to_do(tmp_path: Path) -> None:
    found = problems(tmp_path, ENVIRONMENT="prod", HOST="0.0.0.0", DEBUG="true")
    assert set(found) == {"SECRET_KEY", "HOST", "DEBUG"}
    assert "openssl rand -hex 32" in found["SECRET_KEY"]
    for way in ("SSL_CERTFILE", "TRUSTED_PROXIES", "127.0.0.1"):
        assert way in found["HOST"]


def test_a_secret_may_come_from_a_file_or_under_the_guides_name(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(GOOD + "\n")
    env = {"ENVIRONMENT": "production", "JWT_SECRET_FILE": str(tmp_path / "secret")}
    settings = Settings.load(env, cwd=tmp_path)
    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() == GOOD


def test_debug_makes_the_log_talk_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    assert Settings.load({"DEBUG": "true"}, cwd=tmp_path).log_level == "debug"
    env = {"DEBUG": "true", "LOG_LEVEL": "error"}
    assert Settings.load(env, cwd=tmp_path).log_level == "error"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("backend_cors_origins", '["https://a.example/","http://B.example:8080"]',
         ("https://a.example", "http://b.example:8080")),
        ("backend_cors_origins", "https://a.example:443, http://b.example:80",
         ("https://a.example", "http://b.example")),
        ("backend_cors_origins", "", ()),
        ("backend_cors_origins", "http://[::1]:3000", ("http://[::1]:3000",)),
        ("allowed_hosts", "A.example,*.b.example", ("a.example", "*.b.example")),
        ("allowed_hosts", '["*"]', ("*",)),
        ("trusted_proxies", "10.0.0.0/8, ::1",
         (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))),
        ("environment", "Prod", "production"),
        ("oidc_scopes", "openid, email", ("openid", "email")),
        ("audit_retention", "90d", 90 * 86400.0),
    ],
)  # fmt: skip
def test_forms(tmp_path: Path, name: str, text: str, value: Any) -> None:
    env = {name.upper(): text, "SECRET_KEY": GOOD}
    assert getattr(Settings.load(env, cwd=tmp_path), name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("BACKEND_CORS_ORIGINS", "*"),
        ("BACKEND_CORS_ORIGINS", "https://*.example.com"),
        ("BACKEND_CORS_ORIGINS", "null"),
        ("BACKEND_CORS_ORIGINS", "https://a.example/path"),
        ("BACKEND_CORS_ORIGINS", "ftp://a.example"),
        ("BACKEND_CORS_ORIGINS", '["https://a.example"'),
        ("BACKEND_CORS_ORIGINS", "[1]"),
        ("BACKEND_CORS_ORIGINS", "https://user@a.example"),
        ("ALLOWED_HOSTS", "a.example:80"),
        ("ALLOWED_HOSTS", "https://a.example"),
        ("TRUSTED_PROXIES", "proxy.example"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("ENVIRONMENT", "prodution"),
        ("OIDC_NEW_USERS", "admin"),
        ("ACCESS_TOKEN_EXPIRE_MINUTES", "0"),
        ("AUDIT_RETENTION", "1h"),
        ("OIDC_CLIENT_SECRET", "short"),
    ],
)
def test_wrong_forms(tmp_path: Path, name: str, text: str) -> None:
    assert list(problems(tmp_path, **{name: text})) == [name]


@pytest.mark.parametrize(
    ("env", "setting"),
    [
        ({"SSL_CERTFILE": "/c.pem"}, "SSL_KEYFILE"),
        ({"SSL_KEYFILE": "/k.pem"}, "SSL_KEYFILE"),
        ({"HTTP_REDIRECT_PORT": "80"}, "HTTP_REDIRECT_PORT"),
        ({"OIDC_ISSUER": "https://a.example", "OIDC_CLIENT_ID": "x"}, "OIDC_ISSUER"),
        ({"OIDC_ISSUER": "https://a.example", "PUBLIC_URL": "https://b.example"}, "OIDC_ISSUER"),
    ],
)
def test_what_must_be_together(tmp_path: Path, env: dict[str, str], setting: str) -> None:
    assert list(problems(tmp_path, **env)) == [setting]


def test_keys_for_encryption_are_masked_in_the_log(tmp_path: Path) -> None:
    settings = Settings.load({"ENCRYPTION_KEYS": f"{GOOD},{GOOD[::-1]}"}, cwd=tmp_path)
    assert {GOOD, GOOD[::-1]} <= set(settings.secrets())
