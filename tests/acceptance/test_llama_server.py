"""A real server of OpenAI's format: llama.cpp's own, with a tiny random model."""

import asyncio
import json
import platform
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from stationmaster.kernel.errors import Upstream
from stationmaster.providers.conformance import Subject, chunks_of, completed
from stationmaster.providers.openai import OpenAIProvider
from tests.support.books import query
from tests.support.server import ADMIN_KEY, ServerProcess
from tests.support.tiny_model import CONTEXT, write_tiny_model

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(
        (sys.platform, platform.machine()) != ("linux", "x86_64"),
        reason="no built server of llama.cpp for this machine",
    ),
]


SAY = {"role": "user", "content": "Say hello."}
CONFIG = """
providers:
  llama: {{type: openai, base_url: "{url}"}}
models:
  tiny: {{targets: [{{provider: llama}}], max_output: 64, price: {{input: 1, output: 1}}}}
"""


@pytest.fixture
async def llama(tmp_path: Path) -> AsyncIterator[str]:
    """The base URL of a server that has loaded its model."""
    write_tiny_model(tmp_path / "tiny.gguf")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.support.llama_server", str(tmp_path / "tiny.gguf"), str(port)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/v1"
    try:
        async with asyncio.timeout(60), aclosing(OpenAIProvider(base_url=url)) as provider:
            while not await serves(provider):
                assert process.returncode is None
                await asyncio.sleep(0.1)
        yield url
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
async def subject(llama: str) -> AsyncIterator[Subject]:
    async with aclosing(OpenAIProvider(base_url=llama)) as provider:
        yield Subject(provider, model="tiny")


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


async def test_clients_of_both_formats_are_served_and_billed_by_its_count(
    llama: str, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.format(url=llama))
    env = {"CONFIG_FILE": str(tmp_path / "config.yaml")}
    async with (
        ServerProcess(tmp_path, env) as server,
        AsyncOpenAI(base_url=f"{server.url}/v1", api_key=ADMIN_KEY, max_retries=0) as chats,
        AsyncAnthropic(base_url=server.url, api_key=ADMIN_KEY, max_retries=0) as messages,
    ):
        asked: Any = {"model": "tiny", "max_tokens": 12, "messages": [SAY]}
        completions: Any = chats.chat.completions
        chat = await completions.create(**asked)
        told = {"include_usage": True}
        pieces = await completions.create(**asked, stream=True, stream_options=told)
        ended = [piece async for piece in pieces][-1]
        message = await messages.messages.create(**asked)
        async with messages.messages.stream(**asked) as stream:
            streamed = await stream.get_final_message()
        counts = [
            *((each.usage.prompt_tokens, each.usage.completion_tokens) for each in (chat, ended)),
            *(
                (used.input_tokens + (used.cache_read_input_tokens or 0), used.output_tokens)
                for used in (message.usage, streamed.usage)
            ),
        ]
        assert all(0 < wrote <= asked["max_tokens"] for _, wrote in counts)
        bill = "SELECT input_tokens + cache_read_tokens, output_tokens FROM ledger ORDER BY at"
        assert [tuple(row) for row in query(server.data_dir, bill)] == counts
