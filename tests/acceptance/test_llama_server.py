"""A real server of OpenAI's format: llama.cpp's own, with a tiny random model."""

import asyncio
import json
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from stationmaster.kernel.errors import Upstream
from stationmaster.providers.conformance import Subject, chunks_of, completed
from stationmaster.providers.openai import OpenAIProvider
from tests.support.tiny_model import CONTEXT, write_tiny_model

SERVER = shutil.which("llama-server")

pytestmark = [
    pytest.mark.acceptance,
    # No package brings a built one everywhere, so this is a skip in CI too.
    pytest.mark.skipif(SERVER is None, reason="llama-server (of llama.cpp) is not installed"),
]


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    write_tiny_model(tmp_path / "tiny.gguf")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert SERVER is not None
    process = await asyncio.create_subprocess_exec(
        SERVER,
        *("--model", str(tmp_path / "tiny.gguf"), "--alias", "tiny"),
        *("--host", "127.0.0.1", "--port", str(port), "--ctx-size", str(CONTEXT)),
        *("--threads", "1", "--parallel", "2"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    provider = OpenAIProvider(base_url=f"http://127.0.0.1:{port}/v1")
    try:
        async with asyncio.timeout(60):
            while not await serves(provider):
                assert process.returncode is None
                await asyncio.sleep(0.1)
        yield Subject(provider, model="tiny")
    finally:
        await provider.aclose()
        process.kill()
        await process.wait()


async def serves(provider: OpenAIProvider) -> bool:
    """While it loads the model it refuses, or is not there yet."""
    try:
        return "tiny" in await provider.models()
    except Upstream:
        return False


async def test_a_real_server_answers_whole_and_in_pieces(subject: Subject) -> None:
    bounds: dict[str, Any] = {"max_tokens": 16, "temperature": 0, "seed": 1}
    asked = subject.request(operation="chat", **bounds)
    whole = json.loads(await subject.asked(asked))
    asked = subject.request(operation="chat", stream=True, **bounds)
    told = completed(chunks_of(await subject.asked(asked)))
    # Not the words: random ones hold halves of characters, which each way tells differently.
    assert 0 < whole["usage"]["completion_tokens"] <= bounds["max_tokens"]
    assert told["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert told["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"] > 0
    assert told["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]


async def test_a_real_server_keeps_serving_after_a_call_was_given_up(subject: Subject) -> None:
    request = subject.request(operation="chat", stream=True, max_tokens=CONTEXT // 2)
    for _ in range(4):  # more than it serves at once
        reply = await subject.provider.send(request)
        chunks = reply.chunks()
        await anext(chunks)
        await chunks.aclose()
        await reply.aclose()
    answer = json.loads(await subject.asked(subject.request(operation="chat", max_tokens=4)))
    assert answer["usage"]["completion_tokens"] <= 4
