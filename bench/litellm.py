"""LiteLLM's proxy, the peer that gateways are compared with, where it is installed."""

import http.client
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from bench.process import free_port, started, wait_for_port
from bench.server import KEY
from bench.upstream import ROOT

PROGRAM = ROOT / ".bench" / "litellm" / "bin" / "litellm"
HINT = "LiteLLM is not compared with: scripts/install-bench-peers installs it."
START_SECONDS = 90.0  # it takes eight on a machine with nothing else to do

_CONFIG = """\
model_list:
  - model_name: claude-sonnet-4-5
    litellm_params:
      model: anthropic/claude-sonnet-4-5
      api_base: {upstream}
      api_key: sk-upstream-of-the-benchmark
general_settings:
  master_key: {key}
"""
_HELLO = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 8,
    "messages": [{"role": "user", "content": "Hello."}],
}
_HEADERS = {"x-api-key": KEY, "content-type": "application/json"}


@contextmanager
def litellm(
    directory: Path, upstream: str, *, cores: frozenset[int] | None = None
) -> Iterator[str | None]:
    """One worker of the proxy, without a database; its base URL, or None where it is missing."""
    if not PROGRAM.exists():
        yield None
        return
    directory.mkdir(parents=True, exist_ok=True)
    config, log, port = directory / "config.yaml", directory / "litellm.log", free_port()
    config.write_text(_CONFIG.format(upstream=upstream, key=KEY))
    environment = {
        "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would fetch the newest prices
        "LITELLM_TELEMETRY": "False",
        "LITELLM_LOG": "ERROR",
    }
    command = [str(PROGRAM), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    with started(command, log=log, cores=cores, env=environment, cwd=directory) as process:
        wait_for_port(process, port, log, seconds=START_SECONDS)
        _first_call(port)
        yield f"http://127.0.0.1:{port}"


def _first_call(port: int) -> None:
    """It loads what it needs with the first call, for seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    try:
        connection.request("POST", "/v1/messages", json.dumps(_HELLO), _HEADERS)
        answer = connection.getresponse()
        if answer.status != HTTPStatus.OK:
            raise RuntimeError(f"LiteLLM answers {answer.status}: {answer.read()[:500]!r}")
    finally:
        connection.close()
