"""nginx in two parts: an upstream with one fixed answer, and the proxy that we measure against."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from bench.process import free_port, started, wait_for_port
from bench.programs import require

_FOREVER = 1_000_000_000  # requests on one connection: closing it is not what is measured

_CONFIG = """\
daemon off;
worker_processes 1;
{user}
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  default_type application/json;
  tcp_nodelay on;
  keepalive_timeout 600s;
  keepalive_requests {forever};
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  {upstream}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    {locations}
  }}
}}
"""

_PROXY_UPSTREAM = """upstream provider {{
    {servers}
    keepalive 256;
    keepalive_requests {forever};
  }}"""

_PROXY_LOCATION = """location / {{
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_buffering {buffering};
    }}"""


@contextmanager
def fixed_upstream(
    directory: Path, answer: bytes, *, cores: frozenset[int] | None = None
) -> Iterator[str]:
    """A provider that gives `answer` (JSON without `'` and `$`) to everything; its base URL."""
    locations = f"location / {{ return 200 '{answer.decode()}'; }}"
    with _nginx(directory, locations, cores=cores) as url:
        yield url


@contextmanager
def proxy(
    directory: Path, *upstreams: str, buffering: bool, cores: frozenset[int] | None = None
) -> Iterator[str]:
    """A proxy in front of `upstreams` with pooled connections; its base URL.

    Streams want no `buffering`.
    """
    servers = " ".join(f"server {urlsplit(each).netloc};" for each in upstreams)
    pool = _PROXY_UPSTREAM.format(servers=servers, forever=_FOREVER)
    location = _PROXY_LOCATION.format(buffering="on" if buffering else "off")
    with _nginx(directory, location, pool, cores=cores) as url:
        yield url


@contextmanager
def _nginx(
    directory: Path, locations: str, upstream: str = "", *, cores: frozenset[int] | None
) -> Iterator[str]:
    program = require("nginx")
    directory.mkdir(parents=True)
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(
        _CONFIG.format(
            user="user root;" if os.geteuid() == 0 else "",
            directory=directory,
            forever=_FOREVER,
            upstream=upstream,
            port=port,
            locations=locations,
        )
    )
    log = directory / "error.log"
    command = [program, "-p", str(directory), "-e", str(log), "-c", str(config)]
    with started(command, log=log, cores=cores) as process:
        wait_for_port(process, port, log)
        yield f"http://127.0.0.1:{port}"
