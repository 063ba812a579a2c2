"""The server under test: `stationmaster serve`, as anyone would start it."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.process import free_port, rss_mib, started

KEY = "sk-benchmark-0123456789abcdef0123456789"
START_SECONDS = 30.0
# Everything is counted, at every level that has a limit by default, and nothing is refused.
RATES = {
    f"RATE_LIMIT_{kind}": "100000000"
    for kind in ("CHAT", "TASKS", "READ", "WRITE", "ADMIN", "ANALYTICS")
} | {"DEFAULT_RATE_LIMIT": "100000000"}


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is ready. `start_seconds` is from its start until `/ready` said so."""

    port: int
    process: "subprocess.Popen[bytes]"
    directory: Path
    start_seconds: float

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def rss(self) -> float:
        """Resident memory of the server itself, without agents, in MiB."""
        return rss_mib(self.process.pid)

    def get(self, path: str) -> Any:
        """The JSON at a path, asked for with the admin's key."""
        return self._call("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send JSON with the admin's key; the answer's JSON."""
        return self._call("POST", path, json.dumps(body))

    def _call(self, method: str, path: str, body: str | None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            headers = {"x-api-key": KEY, "content-type": "application/json"}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]}")
            return json.loads(text)
        finally:
            connection.close()


@contextmanager
def server(
    directory: Path,
    *,
    upstream: str | None = None,
    cores: frozenset[int] | None = None,
    env: Mapping[str, str] | None = None,
    program: str | None = None,
) -> Iterator[Server]:
    """A fresh server for as long as the block runs, with its defaults: everything durable is on.

    `upstream` is the model provider's base URL; without one the offline provider answers.
    `program` is a module to run in the place of `stationmaster serve`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "DATA_DIR": str(directory / "data"),
        "PORT": str(port),
        "WORKER_PORT": str(port),
        "ADMIN_API_KEY": KEY,
        **RATES,
        **(
            {"ANTHROPIC_BASE_URL": upstream, "ANTHROPIC_API_KEY": "sk-upstream-of-the-benchmark"}
            if upstream
            else {}
        ),
        **(env or {}),
    }
    log = directory / "server.log"
    command = [sys.executable, "-m", *([program] if program else ["stationmaster", "serve"])]
    began = time.perf_counter()
    with started(command, log=log, cores=cores, env=environment, cwd=directory) as process:
        while not _ready(port):
            if process.poll() is not None or time.perf_counter() - began > START_SECONDS:
                raise RuntimeError("The server does not start:\n" + log.read_text()[-4000:])
            time.sleep(0.005)
        try:
            yield Server(port, process, directory, time.perf_counter() - began)
        except Exception as error:
            error.add_note("The server said at last:\n" + _complaints(log))
            raise


def _complaints(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(line for line in lines if '"level":"info"' not in line)[-4000:]


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
