"""A private nginx in front of several servers, as an operator would set it up: round robin."""

import asyncio
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.support.services import require

# A request that was sent is not sent again unless it is safe: nginx' own default. Only one that
# could not be sent goes to the next server. Connections are not kept: one that a server closes
# while a request is on its way to it would fail that.
_CONFIG = """
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
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    upstream servers {{
{servers}
    }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 100m;
        location / {{
            proxy_pass http://servers;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_buffering off;
            proxy_read_timeout 1h;
            proxy_next_upstream error timeout;
        }}
    }}
}}
"""


@asynccontextmanager
async def nginx(ports: Sequence[int]) -> AsyncIterator[str]:
    """Its URL, for as long as the block runs."""
    program, setpriv = require("nginx"), require("setpriv")
    home = Path(tempfile.mkdtemp(prefix="stationmaster-nginx-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    servers = "\n".join(f"        server 127.0.0.1:{each} fail_timeout=1s;" for each in ports)
    config = home / "nginx.conf"
    user = "user root;" if home.owner() == "root" else ""
    config.write_text(_CONFIG.format(home=home, port=port, servers=servers, user=user))
    process = await asyncio.create_subprocess_exec(
        # The parent-death signal: a killed test run leaves no server behind.
        *(setpriv, "--pdeathsig", "TERM", "--"),
        *(program, "-c", str(config), "-e", str(home / "error.log")),
    )
    try:
        async with asyncio.timeout(30):
            while not await _listens(port):
                assert process.returncode is None, (home / "error.log").read_text()
                await asyncio.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
        shutil.rmtree(home, ignore_errors=True)


async def _listens(port: int) -> bool:
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        return True
    return False
