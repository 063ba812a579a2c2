"""A private RabbitMQ server on free ports, without anything of the tests before.

Each test worker starts its own from the installed program, with its own port mapper; the machine's
is never used.
"""

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import aiormq
import pytest

from stationmaster.jobs.broker import LANES
from stationmaster.jobs.rabbitmq import PREFIX, RabbitMQ
from tests.support.services import missing, private, require

_START_SECONDS: Final = 90
_PLACES: Final = ("/usr/lib/rabbitmq/bin", "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin")
# One host to be tested on is not one to be sized for; nothing here is an alarm.
_CONFIG: Final = """
listeners.tcp.1 = 127.0.0.1:{port}
default_user = {user}
default_pass = {password}
loopback_users = none
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.relative = 0.9
log.file.level = warning
log.console = false
"""


class RabbitServer:
    """One running server."""

    user: Final = "stationmaster"

    def __init__(self, program: Path, home: Path) -> None:
        self._program = program
        self._home = home
        self.password = secrets.token_urlsafe(18)
        self.port = _free_port()
        self._mapper_port, self._distribution_port = _free_port(), _free_port()
        self._mapper: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://{self.user}:{self.password}@127.0.0.1:{self.port}/%2F"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self.launch()
        self.ready()

    def launch(self) -> None:
        """Start it, from a thread that lasts: its end would be the server's."""
        self._start_mapper()
        config = self._home / "rabbitmq.conf"
        config.write_text(_CONFIG.format(port=self.port, user=self.user, password=self.password))
        config.chmod(0o600)
        (self._home / "enabled_plugins").write_text("[].\n")
        with (self._home / "output").open("ab") as output:
            # The parent-death signal: a killed test run leaves no server behind.
            self._process = subprocess.Popen(
                [require("setpriv"), "--pdeathsig", "KILL", "--", str(self._program)],
                env=self._environment(), cwd=self._home, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip

    def ready(self) -> None:
        """Return once it serves."""
        assert self._process is not None
        for _ in range(_START_SECONDS * 10):
            if self._answers():
                return
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.1)
                break
        told = (self._home / "output").read_text(errors="replace")
        self.stop()
        raise RuntimeError("RabbitMQ does not start:\n" + told[-4000:])

    def _start_mapper(self) -> None:
        """Erlang's port mapper: started by the node itself, it would outlive it."""
        if self._mapper is None:
            self._mapper = subprocess.Popen(
                [require("setpriv"), "--pdeathsig", "KILL", "--", require("epmd"),
                 "-address", "127.0.0.1", "-port", str(self._mapper_port)],
                cwd=self._home, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        home = str(self._home)
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": home,  # where the cookie is made
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._mapper_port),
            "RABBITMQ_ALLOW_INPUT": "1",  # no shell between us and it
            "RABBITMQ_CONF_ENV_FILE": f"{home}/none",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{home}/none.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_NODENAME": f"stationmaster-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_PID_FILE": f"{home}/pid",
            # Few threads: several servers share a small machine.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +SDcpu 1:1 +SDio 1 +A 4 -noinput",
        }

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return bool(connection.recv(8))
        except OSError:
            return False

    async def settle(self) -> None:
        """Make our queues, and return once a crash would find them.

        Of a quorum queue the server writes down some seconds later which member it has; killed
        before, it has a queue without a leader, for good. That is not what is tested.
        """
        broker = RabbitMQ(self.url, receives=False)
        running = asyncio.create_task(broker.run())
        made = time.time()
        async with asyncio.timeout(_START_SECONDS):
            while broker.trouble is not None or self._written() <= made:
                made = time.time() if broker.trouble is not None else made
                await asyncio.sleep(0.1)
        running.cancel()
        await asyncio.wait({running})

    def _written(self) -> float:
        found = self._home.glob("mnesia/*/quorum/*/meta.dets")
        return max((path.stat().st_mtime for path in found), default=0.0)

    async def clear(self) -> None:
        """Forget all that is in our queues."""
        connection = await aiormq.connect(self.url)
        channel = await connection.channel()
        for lane in (*LANES, "dead"):
            await channel.queue_purge(PREFIX + lane)
        await connection.close()

    async def delete(self) -> None:
        """Delete our queues."""
        connection = await aiormq.connect(self.url)
        channel = await connection.channel()
        for lane in (*LANES, "dead"):
            await channel.queue_delete(PREFIX + lane)
        await connection.close()

    async def put(self, body: bytes, queue: str) -> None:
        """Send any bytes to a queue of ours."""
        connection = await aiormq.connect(self.url)
        channel = await connection.channel()
        await channel.basic_publish(body, routing_key=queue, mandatory=True)
        await connection.close()

    async def take(self, queue: str) -> bytes | None:
        """The next message of a queue, taken from it; None where none waits."""
        connection = await aiormq.connect(self.url)
        channel = await connection.channel()
        found = await channel.basic_get(queue, no_ack=True)
        await connection.close()
        return found.body or None

    def pause(self) -> None:
        """Kill it, as a crash would; `resume` starts it again on the same port and data."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=30)
        self._process = None

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
        for process in (self._process, self._mapper):
            if process is not None:
                process.kill()
                process.wait(timeout=30)
        self._process = self._mapper = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find_program() -> Path | None:
    """The server's own script, not the one that gives it to the machine's user."""
    for place in _PLACES:
        for found in sorted(Path("/").glob(place.lstrip("/")), reverse=True):
            if (found / "rabbitmq-server").exists():
                return found / "rabbitmq-server"
    return None


@contextmanager
def private_rabbitmq() -> Iterator[RabbitServer]:
    """A server for as long as the block runs."""
    program = find_program() or missing("rabbitmq-server")
    with private("rabbitmq", lambda home: RabbitServer(program, home)) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitServer]:
    """A server of this test worker's own, started when first asked for."""
    with private_rabbitmq() as server:
        worker = threading.Thread(target=lambda: asyncio.run(server.settle()))
        worker.start()
        worker.join()
        yield server


@pytest.fixture
async def rabbitmq_url(rabbitmq_server: RabbitServer) -> str:
    """The URL of a server on which nothing of ours is left."""
    await rabbitmq_server.clear()
    return rabbitmq_server.url
