"""One real server before several vendors: any client's format to any of them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import ServerProcess
from tests.support.vendor_upstream import MODEL, VendorUpstream

pytestmark = pytest.mark.acceptance

CONFIG = """
providers:
  gpt: {{type: openai, base_url: "{url}/v1", api_key: sk-of-openai}}
  local: {{type: ollama, base_url: "{url}", presets: {{fast: {{model: {model}}}}}}}
  aws: {{type: bedrock, region: us-east-1, api_key_file: bedrock.key, base_url: "{url}"}}
  google: {{type: vertex, region: global, project: p, access_token: t, base_url: "{url}/v1"}}
  gone: {{type: ollama, base_url: "http://127.0.0.1:9", retry_delay: 0}}
models:
  gpt-x: {{targets: [{{provider: gpt, model: {model}}}], price: {{input: 1, output: 1}}}}
  fast: {{targets: [{{provider: local}}]}}
  on-aws:
    targets: [{{provider: aws, model: "us.anthropic.claude-haiku-4-5-20251001-v1:0"}}]
    price: {{input: 1, output: 1}}
  on-google:
    targets: [{{provider: google, model: claude-haiku-4-5@20251001}}]
    price: {{input: 1, output: 1}}
  away: {{targets: [{{provider: gone}}]}}
"""

MODELS = {
    "gpt-x": "/v1/chat/completions",
    "fast": "/api/chat",
    "on-aws": "/model/us.anthropic.claude-haiku-4-5-20251001-v1:0/invoke",
    "on-google": "/v1/projects/p/locations/global/publishers/anthropic/models/claude-haiku-4-5@",
}
CLIENTS = ("/v1/chat/completions", "/v1/messages")


@pytest.fixture
async def upstream() -> AsyncIterator[VendorUpstream]:
    async with VendorUpstream() as vendors:
        yield vendors


@pytest.fixture
async def server(tmp_path: Path, upstream: VendorUpstream) -> AsyncIterator[ServerProcess]:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(url=upstream.url, model=MODEL))
    (tmp_path / "bedrock.key").write_text("key-of-bedrock\n")
    async with ServerProcess(tmp_path, {"CONFIG_FILE": str(config)}) as running:
        yield running


def asking(model: str, *, stream: bool) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Say hello."}]
    return {"model": model, "max_tokens": 100, "stream": stream, "messages": messages}


async def test_either_format_reaches_every_vendor(
    server: ServerProcess, upstream: VendorUpstream
) -> None:
    for model, path in MODELS.items():
        for route in CLIENTS:
            for stream in (False, True):
                reply = await server.client.post(route, json=asking(model, stream=stream))
                assert reply.status_code == 200, (model, route, reply.text)
                assert "hello" in reply.text
                assert upstream.calls[-1].path.startswith(path)
    assert len(upstream.calls) == len(MODELS) * len(CLIENTS) * 2
    keys = {call.headers.get("authorization") for call in upstream.calls}
    assert keys == {"Bearer sk-of-openai", "Bearer key-of-bedrock", "Bearer t", None}


async def test_a_vendor_that_is_away_stops_its_own_models_alone(server: ServerProcess) -> None:
    for route in CLIENTS:
        away = await server.client.post(route, json=asking("away", stream=False))
        assert away.status_code in {502, 503, 504}
        there = await server.client.post(route, json=asking("fast", stream=False))
        assert there.status_code == 200
    assert (await server.client.get("/live")).status_code == 200
