"""The subscription login: given to an agent's home, taken back refreshed, kept for the next one.

It belongs to one person, and only that person's own runs get it. In such a run the agent can read
it: that is what a login in Claude Code is.
"""

import hashlib
import json
import os
import re
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from stationmaster.agents.base import AgentUnavailable

_log = structlog.get_logger(__name__)

_DIRECTORY = ".claude"
_FILE = ".credentials.json"
_KEPT = "credentials.json"
_MAX_BYTES = 64 * 1024
_OAUTH = "claudeAiOauth"
_TOKENS = ("accessToken", "refreshToken")
# Shorter ones are none, and masking them would mangle every word.
_TOKEN = re.compile(r"[\x21-\x7e]{8,8192}")
# What a refresh changes. The rest, such as the kind of subscription, stays as the operator gave it.
_REFRESHED = (*_TOKENS, "expiresAt")

Json = dict[str, Any]


class SubscriptionLogin:
    """Keeps the newest form of a login, in `directory`.

    `given` is the operator's setting: JSON with `claudeAiOauth`. What agents have refreshed counts
    only as long as the setting is the one that it came from. `learned` is called with every token
    before it is used, so that logs mask it. All methods block for some file operations and may be
    called from threads.
    """

    def __init__(self, given: str, directory: Path, *, learned: Callable[[str], None]) -> None:
        self._directory = directory
        self._learned = learned
        self._lock = threading.Lock()
        self._source = hashlib.sha256(given.encode()).hexdigest()
        self._login: Json = json.loads(given)[_OAUTH]
        self._learn(self._login)
        kept = self._read_kept()
        if kept is not None and _expiry(kept) > _expiry(self._login):
            self._login = {**self._login, **kept}

    def give(self, home: Path) -> Json:
        """Write the login into an agent's home; return it, for `take_back`.

        Raises `AgentUnavailable` where the home has a link or a stranger's directory in its place.
        """
        with self._lock:
            login = dict(self._login)
        try:
            with _config_directory(home) as handle:
                with suppress(FileNotFoundError):
                    os.unlink(_FILE, dir_fd=handle)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                descriptor = os.open(_FILE, flags, 0o600, dir_fd=handle)
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    json.dump({_OAUTH: login}, file)
        except OSError as error:
            raise AgentUnavailable(
                f"The login cannot be put into the agent's home: {error.strerror}.",
                code="agent_login_failed",
            ) from error
        return login

    def take_back(self, home: Path, given: Json) -> None:
        """Remove the login from an agent's home, and keep it where the agent has refreshed it.

        Of several agents the one whose tokens live longest wins. What is not a login is ignored.
        """
        found = _read_login(home)
        remove(home)
        if found is None or found == {name: given.get(name) for name in _REFRESHED}:
            return
        self._learn(found)
        with self._lock:
            if _expiry(found) <= _expiry(self._login):
                return
            self._login = {**self._login, **found}
            self._keep(found)
        _log.info("The subscription login was refreshed by an agent.")

    def _learn(self, login: Json) -> None:
        for token in tokens(login):
            self._learned(token)

    def _read_kept(self) -> Json | None:
        try:
            document = json.loads((self._directory / _KEPT).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            _log.warning("The kept subscription login cannot be read; the setting's is used.")
            return None
        if not isinstance(document, dict) or document.get("source") != self._source:
            return None
        kept = _checked(document.get(_OAUTH))
        if kept is not None:
            self._learn(kept)
        return kept

    def _keep(self, login: Json) -> None:
        document = json.dumps({"source": self._source, _OAUTH: login})
        written = self._directory / f".{_KEPT}.{secrets.token_hex(4)}"
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(document)
                file.flush()
                os.fsync(file.fileno())
            written.replace(self._directory / _KEPT)
        except OSError as error:
            with suppress(OSError):
                written.unlink()
            _log.error("The refreshed login could not be kept.", reason=error.strerror)


def tokens(login: Json) -> tuple[str, ...]:
    """What is secret in a login."""
    found = (login.get(name) for name in _TOKENS)
    return tuple(token for token in found if isinstance(token, str) and _TOKEN.fullmatch(token))


def remove(home: Path) -> None:
    """Remove a login from an agent's home, where there is one."""
    with suppress(OSError), _config_directory(home, make=False) as handle:
        os.unlink(_FILE, dir_fd=handle)


@contextmanager
def _config_directory(home: Path, *, make: bool = True) -> Iterator[int]:
    """A handle on the CLI's directory in `home`; never through a link that an agent has put."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    outer = os.open(home, flags)
    try:
        if make:
            with suppress(FileExistsError):
                os.mkdir(_DIRECTORY, 0o700, dir_fd=outer)
        inner = os.open(_DIRECTORY, flags, dir_fd=outer)
    finally:
        os.close(outer)
    try:
        yield inner
    finally:
        os.close(inner)


def _read_login(home: Path) -> Json | None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe in its place must not hold us
    try:
        with _config_directory(home, make=False) as handle:
            descriptor = os.open(_FILE, flags, dir_fd=handle)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            data = file.read(_MAX_BYTES + 1)
        document = json.loads(data) if len(data) <= _MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None
    return _checked(document.get(_OAUTH)) if isinstance(document, dict) else None


def _checked(login: object) -> Json | None:
    """What a refresh changes, if it is all there and of the right kind."""
    if not isinstance(login, dict):
        return None
    expiry = login.get("expiresAt")
    if isinstance(expiry, bool) or not isinstance(expiry, int):
        return None
    values = [login.get(name) for name in _TOKENS]
    if not all(isinstance(each, str) and _TOKEN.fullmatch(each) for each in values):
        return None
    return {name: login[name] for name in _REFRESHED}


def _expiry(login: Json) -> int:
    """In milliseconds since 1970; 0 where the login does not say."""
    expiry = login.get("expiresAt")
    return expiry if isinstance(expiry, int) else 0
