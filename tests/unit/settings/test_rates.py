from pathlib import Path

import pytest

from stationmaster.limits import Rate
from tests.unit.settings.test_settings import load, problems


def test_the_limits_that_the_guides_promise(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.rate_limit_enabled
    assert settings.default_rate_limit == Rate(100, burst=150)
    assert settings.rate_limit_chat == Rate(100)
    assert settings.rate_limit_tasks == Rate(10)
    assert settings.rate_limit_read == Rate(100, burst=150)
    assert settings.rate_limit_write == Rate(50, burst=75)
    assert settings.rate_limit_admin == Rate(20, burst=30)
    assert settings.rate_limit_analytics == Rate(30, burst=45)
    assert settings.rate_limit_auth == Rate(100, 3_600_000)
    assert settings.rate_limit_global is None
    assert settings.redis_url is None


@pytest.mark.parametrize("name", ["DEFAULT_RATE_LIMIT", "API_RATE_LIMIT"])
def test_a_limit_without_a_burst_has_none(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, **{name: "20"}).default_rate_limit == Rate(20)


def test_a_file_of_limits_is_understood(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "security:\n  rate_limiting:\n    enabled: true\n"
        "    default_limit: 80\n    burst_limit: 90\n"
    )
    assert load(tmp_path).default_rate_limit == Rate(80, burst=90)


def test_a_burst_is_not_lower_than_its_rate(tmp_path: Path) -> None:
    assert load(tmp_path, RATE_LIMIT_BURST="300").default_rate_limit == Rate(100, burst=300)
    without = load(tmp_path, DEFAULT_RATE_LIMIT="none", RATE_LIMIT_BURST="5")
    assert without.default_rate_limit is None
    nothing = load(tmp_path, DEFAULT_RATE_LIMIT="0", RATE_LIMIT_BURST="5")
    assert nothing.default_rate_limit == Rate(0)
    assert "RATE_LIMIT_BURST" in problems(tmp_path, RATE_LIMIT_BURST="99")


def test_switched_off_away_from_loopback_must_be_said_twice(tmp_path: Path) -> None:
    assert not load(tmp_path, RATE_LIMIT_ENABLED="false").rate_limit_enabled
    said = problems(tmp_path, RATE_LIMIT_ENABLED="false", HOST="0.0.0.0")
    assert "RATE_LIMIT_DISABLED_ANYWHERE" in said
    twice = {"RATE_LIMIT_ENABLED": "false", "RATE_LIMIT_DISABLED_ANYWHERE": "true"}
    assert not load(tmp_path, HOST="0.0.0.0", **twice).rate_limit_enabled


@pytest.mark.parametrize("text", ["fast", "-1", "10/fortnight", "10 burst 5", "1e9"])
def test_a_rate_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    assert "RATE_LIMIT_CHAT must be a rate" in problems(tmp_path, RATE_LIMIT_CHAT=text)


@pytest.mark.parametrize(
    "url", ["redis://h:6379/0", "rediss://:secret-password@h", "unix:///run/redis.sock"]
)
def test_a_redis(tmp_path: Path, url: str) -> None:
    settings = load(tmp_path, REDIS_URL=url)
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == url
    assert url in settings.secrets()
    assert ("secret-password" in settings.secrets()) == ("secret-password" in url)


@pytest.mark.parametrize(
    ("url", "with_password"),
    [
        ("redis://h:6379/0", "redis://:a%2Fb%40c@h:6379/0"),
        ("rediss://name@h", "rediss://name:a%2Fb%40c@h"),
        ("unix:///run/redis.sock", "unix://:a%2Fb%40c@/run/redis.sock"),
        ("redis://:other@h", "redis://:other@h"),
    ],
)
def test_its_password_may_come_apart(tmp_path: Path, url: str, with_password: str) -> None:
    settings = load(tmp_path, REDIS_URL=url, REDIS_PASSWORD="a/b@c")
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == with_password
    assert "a/b@c" in settings.secrets()
    assert "REDIS_PASSWORD needs REDIS_URL" in problems(tmp_path, REDIS_PASSWORD="a/b@c")


@pytest.mark.parametrize("url", ["http://h", "redis://", "h:6379", "redis://h:port", "unix://"])
def test_no_redis(tmp_path: Path, url: str) -> None:
    assert "REDIS_URL must be" in problems(tmp_path, REDIS_URL=url)
