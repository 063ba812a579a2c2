"""What both clients have in common: how they are set up, and what a failed sending is called."""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import httpx

from stationmaster.client.calls import Call
from stationmaster.client.errors import ClientError, ConnectionFailed

CONNECT_S = 10.0
SILENCE_S = 45.0  # of an event stream; the server sends a comment at least every 15 s
OK = range(200, 300)


def options(base_url: str, api_key: str | None, timeout: float) -> dict[str, Any]:
    """The arguments of httpx's client. Redirects are not followed: they would carry the key off."""
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ClientError(f"The server's URL must begin with http:// or https://, not {base_url!r}")
    headers = {"accept": "application/json"}
    if api_key is not None:
        if not api_key.isascii() or not api_key.isprintable():
            raise ClientError("The API key holds characters that no key has.")
        headers["authorization"] = f"Bearer {api_key}"
    return {
        "base_url": base_url.rstrip("/"),
        "headers": headers,
        "timeout": httpx.Timeout(timeout, connect=min(timeout, CONNECT_S)),
        # A proxy that the environment names can hardly reach this machine's own loopback.
        "trust_env": not _loopback(parts.hostname),
    }


def stream_timeout() -> httpx.Timeout:
    """For event streams and downloads: no bound in all, but on silence."""
    return httpx.Timeout(SILENCE_S, connect=CONNECT_S)


def arguments(call: Call[Any]) -> dict[str, Any]:
    """A call as arguments of httpx's `request`."""
    return {
        "method": call.method,
        "url": call.path,
        "params": call.params or None,
        "json": call.body,
        "files": call.parts,
        "headers": call.headers or None,
    }


def connection_failed(error: httpx.HTTPError | httpx.InvalidURL, base_url: str) -> ClientError:
    """The error of ours for one of httpx's."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return ConnectionFailed(f"No server answers at {base_url}.")
    if isinstance(error, httpx.TimeoutException):
        return ConnectionFailed(f"The server at {base_url} did not answer in time.")
    return ConnectionFailed(
        f"The connection to {base_url} failed: {str(error) or type(error).__name__}"
    )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
