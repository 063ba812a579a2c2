"""What a server in production must not have, and what to do about it."""

import ipaddress
import re
from collections.abc import Iterable
from typing import Any

from pydantic import SecretStr

from stationmaster.settings.derivation import database_password
from stationmaster.settings.loading import Loader

MIN_SECRET = 32  # characters of what everything hangs on
MIN_KEY = 24  # characters of an API key given in the settings
_MIN_DIFFERENT = 10  # different characters
_MAKE_ONE = "make one with `openssl rand -hex 32`"

# Words of examples, guides and templates: what holds one was copied, not made.
_COPIED = re.compile(
    r"change.?(this|me|it)|your.|super.?secret|example|placeholder|password|secret.?key|insecure"
    r"|default|sample|replace|test.?key|123456|abcdef0?1?23|qwerty|letmein|x{6}",
    re.IGNORECASE,
)
_DEFAULT_PASSWORDS = frozenset(
    {
        "password",
        "guest",
        "postgres",
        "postgresql",
        "admin",
        "root",
        "secret",
        "changethis",
        "stationmaster",
    }
)


def check_production(values: dict[str, Any], loader: Loader) -> None:
    """Note what keeps these settings from production."""
    if values["environment"] != "production":
        return
    _secrets(values, loader)
    _door(values, loader)
    if values["debug"]:
        loader.problem("DEBUG", "DEBUG must be false in production: take it out")
    if not values["api_key_enabled"]:
        loader.problem("API_KEY_ENABLED", "API_KEY_ENABLED must be true in production")


def _secrets(values: dict[str, Any], loader: Loader) -> None:
    if values["secret_key"] is None:
        loader.problem("SECRET_KEY", f"SECRET_KEY must be set in production: {_MAKE_ONE}")
    for name, least in (
        ("SECRET_KEY", MIN_SECRET),
        ("ENCRYPTION_KEYS", MIN_SECRET),
        ("ADMIN_API_KEY", MIN_KEY),
        ("API_KEY", MIN_KEY),
        ("API_KEYS", MIN_KEY),
    ):
        for secret in _each(values[name.lower()]):
            if why := _weak(secret, least):
                loader.problem(name, f"{name} {why}; {_MAKE_ONE}")
    for name in ("database_url", "database_replica_url", "redis_url", "rabbitmq_url"):
        url = values.get(name)
        if url is None:
            continue
        if any(word.lower() in _DEFAULT_PASSWORDS for word in database_password(url)):
            loader.problem(
                name.upper(),
                f"{name.upper()} has a password that everybody knows: change it there and here",
            )


def _each(value: SecretStr | Iterable[SecretStr] | None) -> list[str]:
    if value is None:
        return []
    return [
        item.get_secret_value() for item in ([value] if isinstance(value, SecretStr) else value)
    ]


def _weak(secret: str, least: int) -> str | None:
    """Why a secret is weak, without a word of it."""
    if len(secret) < least:
        return f"must have at least {least} characters in production"
    if len(set(secret)) < _MIN_DIFFERENT:
        return "repeats too few characters"
    if _COPIED.search(secret):
        return "looks like one from an example"
    return None


def _door(values: dict[str, Any], loader: Loader) -> None:
    behind = values["trusted_proxies"]
    everywhere = any(network.prefixlen == 0 for network in behind)
    if everywhere:
        loader.problem(
            "TRUSTED_PROXIES",
            "TRUSTED_PROXIES must name your proxies in production: with all addresses in it,"
            " anybody may claim to be anybody",
        )
    if _loopback(values["host"]) or values["ssl_certfile"] is not None or behind:
        return
    loader.problem(
        "HOST",
        "HOST is open to the network without TLS: set SSL_CERTFILE and SSL_KEYFILE, or"
        " TRUSTED_PROXIES to the proxy in front that has TLS, or HOST to 127.0.0.1",
    )


def _loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
