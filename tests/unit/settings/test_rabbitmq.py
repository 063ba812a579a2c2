"""Where RabbitMQ is."""

from pathlib import Path

import pytest

from stationmaster.settings import Settings, SettingsError


def load(directory: Path, **values: str) -> Settings:
    return Settings.load({"DATA_DIR": str(directory), **values}, cwd=directory)


@pytest.mark.parametrize("url", ["amqp://h", "amqps://a:b@h:5671/name", "amqp://a:b@h/%2F"])
def test_a_rabbitmq(tmp_path: Path, url: str) -> None:
    settings = load(tmp_path, RABBITMQ_URL=url)
    assert settings.rabbitmq_url is not None
    assert settings.rabbitmq_url.get_secret_value() == url
    assert url not in repr(settings)


@pytest.mark.parametrize("url", ["http://h", "amqp://", "h:5672", "amqp://h:port"])
def test_no_rabbitmq(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="RABBITMQ_URL"):
        load(tmp_path, RABBITMQ_URL=url)


def test_its_password_may_stand_apart(tmp_path: Path) -> None:
    settings = load(tmp_path, RABBITMQ_URL="amqp://name@h/%2F", RABBITMQ_PASSWORD="a/b@c")
    assert settings.rabbitmq_url is not None
    assert settings.rabbitmq_url.get_secret_value() == "amqp://name:a%2Fb%40c@h/%2F"
    assert {"a/b@c", "a%2Fb%40c"} <= set(settings.secrets())
    with pytest.raises(SettingsError, match="RABBITMQ_PASSWORD needs RABBITMQ_URL"):
        load(tmp_path, RABBITMQ_PASSWORD="a")
