"""A private Redis server on a free port, empty for each test that asks.

Each test worker starts its own from the installed binary; the machine's is never used.
"""

import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.support.services import private, require

_START_TRIES: Final = 400


class RedisServer:
    """One running server."""

    def __init__(self, program: str, home: Path, *settings: str) -> None:
        self._settings = settings
        self._program = program
        self._home = home
        self._password = secrets.token_urlsafe(18)
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        config = self._home / "redis.conf"  # not an argument: everybody could read it
        config.write_text(
            f'port {self._port}\nbind 127.0.0.1\nrequirepass {self._password}\nsave ""\n'
            f"appendonly no\ndaemonize no\ndir {self._home}\nlogfile {self._home / 'log'}\n"
            + "".join(f"{setting}\n" for setting in self._settings)
        )
        setpriv = require("setpriv")
        # The parent-death signal: a killed test run leaves no server behind.
        self._process = subprocess.Popen(
            [setpriv, "--pdeathsig", "KILL", "--", self._program, str(config)],
            cwd=self._home, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(_START_TRIES):
            with suppress(OSError):
                self.command("PING")
                return
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.025)
        raise RuntimeError("Redis does not start:\n" + (self._home / "log").read_text()[-4000:])

    def pause(self) -> None:
        """Stop it at once, and lose everything; `resume` starts it again on the same port."""
        self.stop()

    def resume(self) -> None:
        self.start()

    def hang(self) -> None:
        """Take connections and answer nothing, until `wake`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=30)
            self._process = None

    def command(self, *words: str) -> bytes:
        """Send one command; the answer as it comes, at most 64 KiB of it."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as connection:
            answer = b""
            for each in (("AUTH", self._password), words):
                encoded = [word.encode() for word in each]
                parts = [b"*%d\r\n" % len(encoded)]
                parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded]
                connection.sendall(b"".join(parts))
                answer = connection.recv(65536)
                if answer.startswith(b"-"):
                    raise OSError(answer.decode())
            return answer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def private_redis(*settings: str) -> Iterator[RedisServer]:
    """A server for as long as the block runs. `settings` are lines of its configuration."""
    program = require("redis-server")
    with private("redis", lambda home: RedisServer(program, home, *settings)) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A server of this test worker's own, started when first asked for."""
    with private_redis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty database."""
    redis_server.command("FLUSHALL")
    return redis_server.url
