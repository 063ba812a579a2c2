"""Every provider passes one suite; all but the offline one against a scripted upstream."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from stationmaster.providers.anthropic import AnthropicProvider
from stationmaster.providers.base import Operation, Provider
from stationmaster.providers.bedrock import BedrockProvider, Credentials
from stationmaster.providers.conformance import ENDLESS, Check, Subject, checks_for
from stationmaster.providers.offline import OfflineProvider
from stationmaster.providers.ollama import OllamaProvider
from stationmaster.providers.openai import OpenAIProvider
from stationmaster.providers.vertex import VertexProvider
from stationmaster.providers.vertex.token import FixedToken
from tests.support.vendor_upstream import VendorUpstream
from tests.support.wire_upstream import Reply, Text, Usage, WireUpstream

UNKNOWN = "no-such-model"

ANTHROPICS: frozenset[Operation] = frozenset({"messages", "count_tokens"})
OPERATIONS: dict[str, frozenset[Operation]] = {
    "offline": ANTHROPICS,
    "anthropic": ANTHROPICS,
    "bedrock": ANTHROPICS,
    "vertex": ANTHROPICS,
    "openai": frozenset({"chat", "embeddings", "responses"}),
    "ollama": frozenset({"chat", "embeddings"}),
}
LISTING = {"openai", "ollama"}


def echo(request: dict[str, Any]) -> Reply:
    if request["model"] == UNKNOWN:
        return Reply(status=404, message=f"model: {UNKNOWN}")
    prompt = request["messages"][0]["content"]
    word = re.sub(r"^Say |\.$", "", prompt)
    answer = Text(f"Here it is: {word}. " + "And more words. " * 5)
    return Reply((answer,), Usage(40, 20), hang_after=5 if word == ENDLESS else None)


def of_vendor(kind: str, url: str) -> Provider:
    match kind:
        case "openai":
            key = (("authorization", "Bearer sk-upstream"),)
            return OpenAIProvider(
                base_url=f"{url}/v1", headers=key, operations=OPERATIONS["openai"]
            )
        case "ollama":
            return OllamaProvider(base_url=url)
        case "bedrock":
            keys = Credentials("AKIDEXAMPLE", "secret")
            return BedrockProvider(region="us-east-1", credentials=keys, base_url=url)
        case _:
            return VertexProvider(
                project="p", region="global", tokens=FixedToken("t"), base_url=f"{url}/v1"
            )


@pytest.fixture
async def subject(kind: str) -> AsyncIterator[Subject]:
    if kind == "offline":
        yield Subject(OfflineProvider(delay=0.001), exact_counts=True)
    elif kind == "anthropic":
        async with WireUpstream(echo) as upstream:

            async def closed() -> None:
                async with asyncio.timeout(10):
                    await upstream.calls[-1].done.wait()
                assert upstream.calls[-1].disconnected

            anthropic = AnthropicProvider(base_url=upstream.url, api_key="sk-upstream")
            yield Subject(anthropic, upstream_closed=closed)
            await anthropic.aclose()
    else:
        async with VendorUpstream() as vendor:
            provider = of_vendor(kind, vendor.url)
            yield Subject(provider, upstream_closed=vendor.closed)
            await provider.aclose()


CASES = [
    pytest.param(kind, check, id=f"{kind}-{check.__name__}")
    for kind, operations in OPERATIONS.items()
    for check in checks_for(operations, listing=kind in LISTING)
]


@pytest.mark.parametrize(("kind", "check"), CASES)
async def test_conforms(kind: str, check: Check, subject: Subject) -> None:
    assert subject.provider.operations == OPERATIONS[kind]
    await check(subject)
