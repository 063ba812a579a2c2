"""A private nginx in front of several servers, as the guides have operators set it up."""

import asyncio
import re
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

from tests.support.services import require

_FRAME = """
daemon off;
{user}
worker_processes 1;
pid {home}/pid;
error_log {home}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    client_max_body_size 100m;
    server {{ listen 127.0.0.1:{control}; return 200 {generation}; }}
{site}
}}
"""

_UPSTREAM = re.compile(r"^ *server [\w-]+:\d+([^;]*);.*\n(?: *server [\w-]+:\d+[^;]*;.*\n)*", re.M)


def documented(page: Path) -> str:
    """The one configuration of nginx that a page of the documentation shows."""
    block: str
    [block] = re.findall(r"^```nginx\n(.*?)^```", page.read_text(), re.M | re.S)
    return block


CLUSTER = Path(__file__).parents[2] / "docs" / "guides" / "cluster.md"


class Nginx:
    """One that runs. `use` gives it other servers, as an operator does: with a reload."""

    def __init__(self, home: Path, site: str) -> None:
        self.home = home
        self._site = site
        self._port, self._control = _free_ports(2)
        self._generation = 0
        self.process: asyncio.subprocess.Process | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    @property
    def config(self) -> Path:
        """Its configuration file."""
        return self.home / "nginx.conf"

    def configure(self, ports: Sequence[int]) -> None:
        """Write the configuration for servers on these ports."""
        self._generation += 1
        site, found = _UPSTREAM.subn(
            lambda first: "".join(f"server 127.0.0.1:{each}{first[1]};\n" for each in ports),
            self._site,
        )
        assert found == 1, "one list of servers"
        assert "listen 80;" in site
        self.config.write_text(
            _FRAME.format(
                home=self.home,
                user="user root;" if self.home.owner() == "root" else "",
                control=self._control,
                generation=self._generation,
                site=site.replace("listen 80;", f"listen 127.0.0.1:{self._port};"),
            )
        )

    async def use(self, ports: Sequence[int]) -> None:
        """Pass requests on to these from now on; what is under way ends where it is."""
        assert self.process is not None
        self.configure(ports)
        self.process.send_signal(signal.SIGHUP)
        await self.ready()

    async def ready(self) -> None:
        """Return once it works by the newest configuration."""
        assert self.process is not None
        async with asyncio.timeout(60):
            while await _generation(self._control) != self._generation:
                assert self.process.returncode is None, (self.home / "error.log").read_text()
                await asyncio.sleep(0.02)


@asynccontextmanager
async def balancer(ports: Sequence[int], *, site: str | None = None) -> AsyncIterator[Nginx]:
    """One for as long as the block runs.

    The `site` has one list of servers and listens on 80; without it, it is the guide's of clusters.
    """
    program, setpriv = require("nginx"), require("setpriv")
    home = Path(tempfile.mkdtemp(prefix="stationmaster-nginx-"))
    made = Nginx(home, documented(CLUSTER) if site is None else site)
    made.configure(ports)
    process = made.process = await asyncio.create_subprocess_exec(
        # The parent-death signal: a killed test run leaves no server behind.
        *(setpriv, "--pdeathsig", "TERM", "--"),
        *(program, "-c", str(made.config), "-e", str(home / "error.log")),
    )
    try:
        await made.ready()
        yield made
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
        shutil.rmtree(home, ignore_errors=True)


@asynccontextmanager
async def nginx(ports: Sequence[int]) -> AsyncIterator[str]:
    """Its URL, for as long as the block runs."""
    async with balancer(ports) as made:
        yield made.url


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


async def _generation(port: int) -> int:
    """Of the configuration that whoever accepts a connection works by; 0 where nobody does."""
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return int(answer.rpartition(b"\r\n\r\n")[2] or 0)
    return 0
