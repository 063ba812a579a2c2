"""What follows from other settings, and what they must be together."""

import ipaddress
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr

from stationmaster.settings import forms
from stationmaster.settings.loading import Loader


def derive(values: dict[str, Any], loader: Loader) -> None:
    """Fill in what follows from other settings."""
    data_dir: Path = values["data_dir"]
    values["workspace_dir"] = values["workspace_dir"] or data_dir / "workspaces"
    values["files_dir"] = values["files_dir"] or data_dir / "files"
    values["database_path"] = values["database_path"] or data_dir / "stationmaster.db"
    if values["max_unanswered"] is None:
        values["max_unanswered"] = values["max_workers"]
    if values["max_queue"] is None:
        values["max_queue"] = 10 * values["max_workers"]
    _derive_database(values, loader)
    _derive_burst(values, loader)
    _derive_password(values, loader, "redis_url", "redis_password")
    _derive_password(values, loader, "rabbitmq_url", "rabbitmq_password")
    _derive_credentials(values, loader)
    if values["debug"] and not loader.given("LOG_LEVEL"):
        values["log_level"] = "debug"
    if values["provider"] is None:
        values["provider"] = "anthropic" if values["anthropic_api_key"] else "offline"


def _derive_burst(values: dict[str, Any], loader: Loader) -> None:
    rate, burst = values["default_rate_limit"], values["rate_limit_burst"]
    if rate is None or burst is None:
        return
    if burst < rate.amount:
        loader.problem(
            "RATE_LIMIT_BURST", "RATE_LIMIT_BURST must not be lower than DEFAULT_RATE_LIMIT"
        )
    elif rate.amount:
        values["default_rate_limit"] = replace(rate, burst=burst)


def _derive_password(values: dict[str, Any], loader: Loader, of: str, name: str) -> None:
    url, password = values[of], values[name]
    if password is None:
        return
    if url is None:
        loader.problem(name.upper(), f"{name.upper()} needs {of.upper()}")
        return
    parts = urlsplit(url.get_secret_value())
    if parts.password is None:
        user, _, place = parts.netloc.rpartition("@")
        secret = quote(password.get_secret_value(), safe="")
        values[of] = SecretStr(parts._replace(netloc=f"{user}:{secret}@{place}").geturl())


def _derive_database(values: dict[str, Any], loader: Loader) -> None:
    url: SecretStr | None = values["database_url"]
    if url is None:
        values["database_url"] = SecretStr(f"sqlite:///{values['database_path']}")
        return
    prefix, found, path = url.get_secret_value().partition("sqlite:///")
    if found and not prefix:
        values["database_path"] = loader.cwd / path
        values["database_url"] = SecretStr(f"sqlite:///{loader.cwd / path}")


def _derive_credentials(values: dict[str, Any], loader: Loader) -> None:
    credentials: SecretStr | None = values["claude_code_credentials_json"]
    file: Path | None = values["claude_code_credentials_secret"]
    if file is not None:
        credentials = loader.read_secret(file, forms.CREDENTIALS, "CLAUDE_CODE_CREDENTIALS_SECRET")
    values["subscription_login"] = None
    if credentials is None:
        return
    text = credentials.get_secret_value()
    if forms.credentials_kind(text) == "apiKey":
        key = SecretStr(json.loads(text)["apiKey"])
        values["anthropic_api_key"] = values["anthropic_api_key"] or key
    else:
        values["subscription_login"] = credentials


def check(values: dict[str, Any], loader: Loader) -> None:
    """What settings must be together."""
    keyless = not values["api_key_enabled"] and not values["api_key_disabled_anywhere"]
    if keyless and not _loopback(values["host"]):
        loader.problem(
            "HOST",
            "HOST must be a loopback address where API_KEY_ENABLED is false: anyone could run code"
            " (API_KEY_DISABLED_ANYWHERE=true says that this is meant)",
        )
    unlimited = not values["rate_limit_enabled"] and not values["rate_limit_disabled_anywhere"]
    if unlimited and not _loopback(values["host"]):
        loader.problem(
            "RATE_LIMIT_ENABLED",
            "RATE_LIMIT_ENABLED must be true where HOST is not a loopback address"
            " (RATE_LIMIT_DISABLED_ANYWHERE=true says that this is meant)",
        )
    _check_door(values, loader)
    replica = values["database_replica_url"]
    if replica and not values["database_url"].get_secret_value().startswith("postgresql://"):
        loader.problem(
            "DATABASE_REPLICA_URL", "DATABASE_REPLICA_URL needs a DATABASE_URL of PostgreSQL"
        )
    if values["ephemeral"] and values["role"] not in {"all", "worker"}:
        loader.problem(
            "EPHEMERAL", "EPHEMERAL needs ROLE all or worker: its one job runs in the same process"
        )
    if values["task_timeout"] > values["task_max_timeout"]:
        loader.problem("TASK_TIMEOUT", "TASK_TIMEOUT must not be longer than TASK_MAX_TIMEOUT")
    if values["task_max_cost"] > values["task_cost_limit"]:
        loader.problem("TASK_MAX_COST", "TASK_MAX_COST must not be higher than TASK_COST_LIMIT")
    if values["provider"] == "anthropic" and not values["anthropic_api_key"]:
        loader.problem("PROVIDER", "PROVIDER anthropic needs ANTHROPIC_API_KEY")


def _check_door(values: dict[str, Any], loader: Loader) -> None:
    if (values["ssl_certfile"] is None) != (values["ssl_keyfile"] is None):
        loader.problem("SSL_KEYFILE", "SSL_CERTFILE and SSL_KEYFILE must be set together")
    if values["http_redirect_port"] is not None and values["ssl_certfile"] is None:
        loader.problem("HTTP_REDIRECT_PORT", "HTTP_REDIRECT_PORT needs SSL_CERTFILE")
    if values["oidc_issuer"] is not None:
        for name in ("OIDC_CLIENT_ID", "PUBLIC_URL"):
            if values[name.lower()] is None:
                loader.problem("OIDC_ISSUER", f"OIDC_ISSUER needs {name}")


def _loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def database_password(url: SecretStr) -> tuple[str, ...]:
    """The password in a database's URL, as it is written there and as it is meant."""
    password = urlsplit(url.get_secret_value()).password
    return (password, unquote(password)) if password else ()


def credential_tokens(credentials: SecretStr | None) -> tuple[str, ...]:
    """The key and the tokens in Claude Code credentials."""
    if credentials is None:
        return ()
    document = json.loads(credentials.get_secret_value())
    login = document.get("claudeAiOauth") or {}
    tokens = (document.get("apiKey"), login.get("accessToken"), login.get("refreshToken"))
    return tuple(token for token in tokens if isinstance(token, str))
