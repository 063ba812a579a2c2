"""The settings of sign-in, of the door to the network, and of the audit log.

`Settings` has them among its own.
"""

import ipaddress
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from stationmaster.settings import forms
from stationmaster.settings.field import setting
from stationmaster.settings.forms import Form, choice, duration, whole
from stationmaster.settings.rates import RateSettings

_SECURITY = "Security"
_SIGN_IN = "Sign-in"

Environment = Literal["development", "staging", "production"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST_NAME = re.compile(
    r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]|\*", re.ASCII
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def _environment(text: str) -> Environment:
    known: dict[str, Environment] = {
        "dev": "development",
        "development": "development",
        "local": "development",
        "staging": "staging",
        "prod": "production",
        "production": "production",
    }
    found = known.get(text.lower())
    if found is None:
        raise ValueError(text)
    return found


ENVIRONMENT: Form[Environment] = Form(_environment, "one of development, staging, production")


def _list(text: str) -> list[str]:
    """A JSON list of texts, or words between commas."""
    if not text.lstrip().startswith("["):
        return [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]
    found = json.loads(text)  # what it raises is a ValueError
    if not all(isinstance(part, str) for part in found):
        raise ValueError(text)
    return [part.strip() for part in found]


def _origins(text: str) -> tuple[str, ...]:
    return tuple(_origin(part) for part in _list(text))


def _origin(text: str) -> str:
    parts = urlsplit(text.rstrip("/"))
    port = parts.port  # raises ValueError for a port that is none
    bare = not (parts.path or parts.query or parts.fragment or parts.username or parts.password)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or not bare or "*" in text:
        raise ValueError(text)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    # As browsers write it: in lower case, without the port that goes without saying.
    explicit = "" if port in {None, _DEFAULT_PORTS[parts.scheme]} else f":{port}"
    return f"{parts.scheme}://{host}{explicit}"


ORIGINS: Form[tuple[str, ...]] = Form(
    _origins, "origins such as https://example.com, as a JSON list or between commas, without *"
)


def _hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(part.lower() for part in _list(text))
    if not all(_HOST_NAME.fullmatch(host) for host in hosts):
        raise ValueError(text)
    return hosts


HOSTS: Form[tuple[str, ...]] = Form(
    _hosts, "host names without ports, such as example.com or *.example.com, or *"
)


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(part) for part in _list(text))


NETWORKS: Form[tuple[Network, ...]] = Form(
    _networks, "addresses or networks such as 10.0.0.0/8, between commas"
)
WORDS: Form[tuple[str, ...]] = Form(
    lambda text: tuple(re.split(r"[,\s]+", text.strip())), "words between spaces or commas"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecuritySettings(RateSettings):
    """Who may come in, and how."""

    environment: Environment = setting(
        _SECURITY,
        ENVIRONMENT,
        "development",
        "production refuses to start with weak secrets, in the open without TLS, or with DEBUG.",
    )
    debug: bool = setting(
        _SECURITY, forms.FLAG, "false", "LOG_LEVEL is then debug, unless it says something else."
    )
    public_url: str | None = setting(
        _SECURITY,
        forms.BASE_URL,
        None,
        "Where clients reach this server. It is the issuer of its access tokens.",
    )
    allowed_hosts: tuple[str, ...] = setting(
        _SECURITY,
        HOSTS,
        "*",
        "Names that the Host header may hold. The host of PUBLIC_URL and loopback are always among"
        " them; * is any.",
    )
    backend_cors_origins: tuple[str, ...] = setting(
        _SECURITY,
        ORIGINS,
        "",
        "Origins whose pages may use the API in a browser, with credentials. None by default.",
        aliases=("CORS_ORIGINS",),
    )
    trusted_proxies: tuple[Network, ...] = setting(
        _SECURITY,
        NETWORKS,
        "",
        "Addresses of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.",
    )
    https_redirect: bool = setting(
        _SECURITY,
        forms.FLAG,
        "false",
        "Whether plain HTTP is answered with a redirect to HTTPS. Probes are exempt.",
    )
    ssl_certfile: Path | None = setting(
        _SECURITY,
        forms.PATH,
        None,
        "The certificate with its chain, PEM. With SSL_KEYFILE the server speaks TLS itself, and"
        " reads both again when they change.",
    )
    ssl_keyfile: Path | None = setting(
        _SECURITY, forms.PATH, None, "The certificate's private key, PEM, without a passphrase."
    )
    http_redirect_port: int | None = setting(
        _SECURITY,
        whole(1, 65535, noun="a port number"),
        None,
        "A second port, of plain HTTP, that only redirects to HTTPS. Needs SSL_CERTFILE.",
    )
    encryption_keys: tuple[SecretStr, ...] | None = setting(
        _SECURITY,
        forms.KEYS,
        None,
        "What stored secrets are encrypted with, the present key first. To change it, put the new"
        " one in front, restart, run `stationmaster secrets reseal`, then take the old one out.",
        derived="made of SECRET_KEY",
        secret=True,
    )
    audit_retention: float = setting(
        _SECURITY, duration("1d", "3650d"), "90d", "How long entries of the audit log are kept."
    )

    access_token_expire_minutes: int = setting(
        _SIGN_IN, whole(1, 1440), "60", "How many minutes an access token is valid."
    )
    refresh_token_expire_days: int = setting(
        _SIGN_IN,
        whole(1, 365),
        "30",
        "How many days a refresh token is valid; each use begins them anew.",
    )
    oidc_issuer: str | None = setting(
        _SIGN_IN,
        forms.BASE_URL,
        None,
        "An OpenID Connect provider to sign in with. Needs OIDC_CLIENT_ID and PUBLIC_URL too.",
    )
    oidc_client_id: str | None = setting(
        _SIGN_IN, forms.MODEL, None, "What the provider calls this server."
    )
    oidc_client_secret: SecretStr | None = setting(
        _SIGN_IN,
        forms.KEY,
        None,
        "The client's secret at the provider; left out for a public client.",
        secret=True,
    )
    oidc_scopes: tuple[str, ...] = setting(
        _SIGN_IN, WORDS, "openid email profile", "The scopes to ask the provider for."
    )
    oidc_new_users: Literal["refuse", "member", "viewer"] = setting(
        _SIGN_IN,
        choice("refuse", "member", "viewer"),
        "refuse",
        "What happens to somebody whom the provider knows and we do not: refused, or made a user of"
        " the first organisation with this role.",
    )
